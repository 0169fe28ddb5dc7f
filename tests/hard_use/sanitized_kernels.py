"""A pytest plugin that puts the sanitized extensions in place of the normal ones, for one session.

It notes which instruction sets were called, because a session that left one out proved nothing of it.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_LIBRARY = Path(os.environ["ALLIN1_SANITIZED_KERNELS"])


class SanitizedFinder:
    """Finds an extension of allin1_core in the folder of sanitized builds, and nothing else."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith("allin1_core."):
            return None
        stem = _LIBRARY.joinpath(*name.split("."))
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            file = stem.with_name(stem.name + suffix)
            if file.exists():
                return importlib.util.spec_from_file_location(name, file)
        return None


sys.meta_path.insert(0, SanitizedFinder)


_CALLED: dict[str, set[str]] = {}


def noting(kernel: str, run: Callable[..., Any], instructions: Callable[..., str]) -> Callable[..., Any]:
    """An entry point that also notes under `kernel` the instruction set it was asked for."""
    _CALLED.setdefault(kernel, set())

    @functools.wraps(run)
    def noted(*arguments: Any, **keywords: Any) -> Any:
        result = run(*arguments, **keywords)
        _CALLED[kernel].add(instructions(*arguments, **keywords))
        return result

    return noted


def pytest_sessionstart() -> None:
    from allin1_core.dbn import _viterbi
    from allin1_core.network import _fused
    from allin1_core.simd.instruction_sets import checked
    from allin1_core.spectrogram import _transform

    def first(instruction_set: str | None, *_: Any, **more: Any) -> str:
        return checked(instruction_set)

    def named(*_: Any, instruction_set: str | None = None) -> str:
        return checked(instruction_set)

    _viterbi.viterbi = noting("decoder", _viterbi.viterbi, named)
    _CALLED.setdefault("decoder online", set())

    class NotedForwardAlgorithm(_viterbi.ForwardAlgorithm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, instruction_set: str | None = None) -> None:
            super().__init__(*arguments, instruction_set=instruction_set)
            self.advance = noting("decoder online", super().advance, lambda *_: checked(instruction_set))

    _viterbi.ForwardAlgorithm = NotedForwardAlgorithm
    _transform.run = noting("spectrogram", _transform.run, first)
    _fused.run_pass = noting("network", _fused.run_pass, first)
    _fused.run_attention = noting("network's attention", _fused.run_attention, first)


def expected_sets() -> dict[str, Collection[str]]:
    """By kernel, what this processor can run."""
    from allin1_core.simd.instruction_sets import instruction_sets

    kernels = ("decoder", "decoder online", "spectrogram", "network", "network's attention")
    return dict.fromkeys(kernels, instruction_sets())


def left_out(expected: Mapping[str, Collection[str]], called: Mapping[str, Collection[str]]) -> list[str]:
    """A line for each kernel that was not run on all of its instruction sets."""
    return [
        f"{kernel} did not run on {', '.join(name for name in names if name not in called.get(kernel, ()))}"
        for kernel, names in expected.items()
        if not set(names) <= set(called.get(kernel, ()))
    ]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A session that used a normal extension after all, or left an instruction set out, proved nothing."""
    loaded = [module for name, module in sys.modules.items() if name.startswith("allin1_core.")]
    files = [Path(file) for module in loaded if (file := getattr(module, "__file__", None))]
    extensions = [file for file in files if file.suffix in (".so", ".pyd")]
    normal = [file for file in extensions if _LIBRARY not in file.parents]
    if normal or not extensions:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        print(f"sanitized session: loaded {normal or 'no extension at all'}; expected all from {_LIBRARY}")
    expected = expected_sets()
    if session.exitstatus == pytest.ExitCode.OK and (missing := left_out(expected, _CALLED)):
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        print("sanitized session:", *missing, sep="\n  ")
    print(
        "\nran under both sanitizers:",
        *(
            f"{kernel} ({', '.join(name for name in names if name in _CALLED[kernel])})"
            for kernel, names in expected.items()
        ),
        sep="\n  ",
    )
