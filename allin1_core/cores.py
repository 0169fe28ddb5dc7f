"""How many cores this process may use: what every thread pool and every report goes by."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

_LIMIT: ContextVar[int | None] = ContextVar("limit", default=None)


def usable_cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has; see `limited_cores`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _LIMIT.get()
    return cores if limit is None else min(cores, limit)


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
