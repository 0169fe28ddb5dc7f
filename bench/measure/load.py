"""Pinned numbers of threads, and the load of other processes during a measurement."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from allin1_core.threads import limited_cores


@contextlib.contextmanager
def pinned_threads(threads: int) -> Iterator[int]:
    """Let our thread pools, BLAS, OpenMP and torch use exactly that many threads inside the block.

    Libraries that are loaded later are not caught: import what is measured first. MLX has no such setting. `ValueError`
    unless it is at least one.
    """
    from threadpoolctl import threadpool_limits

    if threads < 1:
        raise ValueError(f"threads: {threads}; expected at least 1")
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    with limited_cores(threads), threadpool_limits(limits=threads):
        if torch:
            torch.set_num_threads(threads)
        try:
            yield threads
        finally:
            if torch and before is not None:
                torch.set_num_threads(before)


class OtherLoad:
    """How many cores other processes kept busy while the block ran, on the cores that this process may use.

    Two threads that have to share a core with somebody else are slower for no fault of theirs: a measurement that
    needs more cores than were free says nothing.

    Attributes
    ----------
    cores : float
        Set when the block ends; 0 where the system does not tell.
    """

    def __init__(self) -> None:
        self.cores = 0.0

    def __enter__(self) -> OtherLoad:
        self._busy, self._own, self._start = _busy_seconds(), time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        elapsed = time.perf_counter() - self._start
        own = time.process_time() - self._own
        if elapsed > 0:
            self.cores = max(0.0, (_busy_seconds() - self._busy - own) / elapsed)


def _busy_seconds() -> float:
    """CPU seconds that anybody has spent on the cores of this process since the system started."""
    import psutil

    per_core = psutil.cpu_times(percpu=True)
    if hasattr(os, "sched_getaffinity"):
        usable = os.sched_getaffinity(0)
        per_core = [times for core, times in enumerate(per_core) if core in usable]
    idle = ("idle", "iowait", "guest", "guest_nice")  # guest time is part of user time
    return sum(getattr(times, field) for times in per_core for field in times._fields if field not in idle)
