"""How many cores this process may use: what every thread pool and every report goes by."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

from allin1_core.errors import BackendError

_LIMIT: ContextVar[int | None] = ContextVar("limit", default=None)


def usable_cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has; see `limited_cores`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _LIMIT.get()
    return cores if limit is None else min(cores, limit)


def at_most_usable(num_threads: int | None) -> int:
    """Threads for who asks for that many: not more than `limited_cores` allows; for None `usable_cores`."""
    if num_threads is None:
        return usable_cores()
    limit = _LIMIT.get()
    return num_threads if limit is None else min(num_threads, limit)


def check_num_threads(num_threads: int | None) -> None:
    """Raise `BackendError` unless it is at least 1, or None."""
    if num_threads is not None and num_threads < 1:
        raise BackendError(f"num_threads: {num_threads}; expected at least 1, or None for all cores")


@contextlib.contextmanager
def limited_cores(most: int) -> Iterator[None]:
    """Inside the block, thread pools that the calling thread starts have at most that many threads.

    It holds for what allin1-core starts; BLAS and torch have settings of their own.

    Parameters
    ----------
    most : int
        At least 1.

    Raises
    ------
    ValueError
        If `most` is not positive.
    """
    if most < 1:
        raise ValueError(f"most: {most}; expected at least 1 core")
    token = _LIMIT.set(most)
    try:
        yield
    finally:
        _LIMIT.reset(token)
