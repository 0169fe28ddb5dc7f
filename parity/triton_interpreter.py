"""Triton's interpreter, in which its kernels run where there is no CUDA: to be imported before Triton is."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator

import pytest

torch = pytest.importorskip("torch")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is imported
pytest.importorskip("triton")

from triton.runtime import interpreter  # noqa: E402


@contextlib.contextmanager
def language_patched_once() -> Iterator[None]:
    """Triton's interpreter patches its language once for each function in a kernel's run.

    By itself it does so at each call of one, in a third of its time. Replaced are `_patch_lang` and the call of a
    `GridExecutor` in `triton.runtime.interpreter`, which are internals (here those of Triton 3.9). Where one is gone,
    setting it fails; where they are used otherwise, so that no call is saved, the end does. Left out is what it
    computes, for a fifth of its time, to see sums of int32 overflow: without its option `debug` it looks at none.
    """
    saved, kernels = [], []
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            patched: set[Callable] = set()
            patch_language, execute = interpreter._patch_lang, interpreter.GridExecutor.__call__

            def patch_once(function: Callable) -> object:
                if function in patched:
                    saved.append(function)
                    return interpreter._LangPatchScope()
                patched.add(function)
                return patch_language(function)

            def execute_anew(kernel: object, *arguments: object, **keywords: object) -> object:
                patched.clear()
                kernels.append(kernel)
                return execute(kernel, *arguments, **keywords)

            builder = interpreter.interpreter_builder
            assert not builder.options.debug
            options = dataclasses.replace(builder.options, sanitize_overflow=False)
            patch.setattr(builder, "options", options)
            patch.setattr(interpreter, "_patch_lang", patch_once)
            patch.setattr(interpreter.GridExecutor, "__call__", execute_anew)
        yield
    assert saved or not kernels, (
        "Triton's interpreter patches its language otherwise than this fixture takes it to"
    )
