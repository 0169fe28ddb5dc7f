"""The threads that the backends on the CPU share their work among."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from allin1_core.cores import usable_cores


def thread_pool() -> ThreadPoolExecutor:
    """A thread per core; ends with its ``with`` block."""
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix="log_spectrogram")


def run_all(pool: ThreadPoolExecutor, run: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> None:
    """Call ``run(*task)`` for every task on the pool's threads and wait; the first error is raised."""
    for _ in pool.map(lambda task: run(*task), tasks):
        pass
