"""The instruction sets that the compiled kernels may use: the processor's, or fewer where the environment says so."""

from __future__ import annotations

import functools
import os

from allin1_core.errors import BackendError
from allin1_core.simd._processor import best_instruction_set, features

# Names the best instruction set that the kernels may use; by default it is the processor's best.
VARIABLE = "ALLIN1_INSTRUCTION_SET"

# On x86-64, best first: whoever has one has those after it. Elsewhere there is one, NEON or the compiler's baseline.
_X86_64 = ("AVX-512", "AVX2", "baseline x86-64")
NAMES = (*_X86_64, "NEON", "baseline")


@functools.cache
def _best_permitted() -> str | None:
    """The variable's value, read once in a process; None where it is unset or empty."""
    return os.environ.get(VARIABLE) or None


@functools.cache
def _available() -> tuple[str, ...]:
    """What kernels are compiled for and this processor can run, best first."""
    best = best_instruction_set(features())
    return _X86_64[_X86_64.index(best) :] if best in _X86_64 else (best,)


def instruction_sets() -> tuple[str, ...]:
    """Names of the instruction sets that every kernel can be asked for in this process, best first.

    Raises
    ------
    BackendError
        If the environment variable names none that this processor can run.
    """
    best, available = _best_permitted(), _available()
    if best is None:
        return available
    if best not in available:
        raise BackendError(
            f"{VARIABLE}: {best!r}; expected one of {', '.join(map(repr, available))}, which this processor can run, "
            "or no such variable"
        )
    return available[available.index(best) :]


def instruction_set() -> str:
    """Name of the instruction set that every kernel runs on unless another is asked for.

    Raises
    ------
    BackendError
        As `instruction_sets`.
    """
    return instruction_sets()[0]


def checked(name: str | None = None) -> str:
    """That instruction set, which every kernel can be asked for, or by default the best one.

    Raises
    ------
    ValueError
        If the name is none of `instruction_sets`.
    BackendError
        As `instruction_sets`.
    """
    sets = instruction_sets()
    if name is not None and name not in sets:
        raise ValueError(f"instruction_set: {name!r} has no kernels here; expected one of {sets}")
    return sets[0] if name is None else name
