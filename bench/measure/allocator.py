"""Control of glibc's allocator: freed memory is kept during a measurement.

By default glibc hands large arrays back to the system when they are freed and asks for new pages the next time. On a
virtual machine a page may then have to come from the host, which costs a hundred times as much as one that the guest
still has: the same call of madmom took 1.3 s or 3 s, by how long ago memory of that size was freed. Kept memory makes
a round repeatable. It favours whoever allocates most, here the oracles: ratios are the lower for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

# Parameters of mallopt, from glibc's malloc.h, and what it starts with.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_TRIM_THRESHOLD, _MMAP_MAX = 128 * 1024, 65536


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def return_freed_memory() -> None:
    """Hand everything that is freed but kept back to the system; does nothing without glibc."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(ctypes.c_size_t(0))


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside the block freed memory stays with the process, at its end it is handed back; nothing without glibc."""
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_M_MMAP_MAX, 0)
    library.mallopt(_M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        library.mallopt(_M_MMAP_MAX, _MMAP_MAX)
        library.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
        return_freed_memory()
