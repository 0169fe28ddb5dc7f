"""Whether Triton kernels can be compiled and run on a card here; imports Triton."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import torch
from triton.errors import TritonError

from allin1_core.errors import UnfitBackendError

# What Triton raises where it cannot compile, load or run a kernel; the third where it finds no libcuda.
_UNFIT = (RuntimeError, OSError, AssertionError, ImportError, subprocess.SubprocessError, TritonError)


def check_capability(device: torch.device, what: str, remedy: str) -> None:
    """Raise `UnfitBackendError` for a card below compute capability 8.0; a CPU, for the interpreter, is any."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        raise UnfitBackendError(
            f"{what}: the card's compute capability is "
            f"{'.'.join(map(str, torch.cuda.get_device_capability(device)))}; expected 8.0 or more; {remedy}"
        )


@contextlib.contextmanager
def unfit_where_not_compiled(what: str, remedy: str) -> Iterator[None]:
    """Raise `UnfitBackendError` with the cause where kernels cannot be compiled and run."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise  # plain torch takes more
    except _UNFIT as error:
        raise UnfitBackendError(
            f"{what}: its kernels cannot be compiled and run here "
            f"({type(error).__name__}: {error}); Triton needs a C compiler, Python's headers and a folder that it "
            f"can write to (TRITON_CACHE_DIR): {remedy}"
        ) from error
