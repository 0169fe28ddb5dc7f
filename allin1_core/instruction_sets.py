"""The instruction sets that the compiled kernels may use: the processor's, or fewer where the environment says so."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

from allin1_core.errors import BackendError

# Names the best instruction set that the kernels may use; by default it is the processor's best.
VARIABLE = "ALLIN1_INSTRUCTION_SET"

# All that kernels are compiled for, best first.
NAMES = ("AVX-512", "AVX2", "baseline x86-64", "NEON", "baseline")


@functools.cache
def _best_permitted() -> str | None:
    """The variable's value, read once in a process; None where it is unset or empty."""
    return os.environ.get(VARIABLE) or None


def permitted(available: Sequence[str]) -> tuple[str, ...]:
    """Those of the available instruction sets that may be used, best first.

    Parameters
    ----------
    available : sequence of str
        What kernels are compiled for and this processor can run, best first.

    Raises
    ------
    BackendError
        If the environment variable names none of them.
    """
    best = _best_permitted()
    if best is None:
        return tuple(available)
    if best not in available:
        raise BackendError(
            f"{VARIABLE}: {best!r}; expected one of {', '.join(map(repr, available))}, which this processor can run, "
            "or no such variable"
        )
    return tuple(available[available.index(best) :])
