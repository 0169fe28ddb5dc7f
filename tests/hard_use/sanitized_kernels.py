"""A pytest plugin that puts the sanitized extensions in place of the normal ones, for one session."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

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


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A session that used a normal extension after all proved nothing."""
    loaded = [module for name, module in sys.modules.items() if name.startswith("allin1_core.")]
    files = [Path(file) for module in loaded if (file := getattr(module, "__file__", None))]
    extensions = [file for file in files if file.suffix in (".so", ".pyd")]
    normal = [file for file in extensions if _LIBRARY not in file.parents]
    if normal or not extensions:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        print(f"sanitized session: loaded {normal or 'no extension at all'}; expected all from {_LIBRARY}")
