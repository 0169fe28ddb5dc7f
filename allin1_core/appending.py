"""Lines appended to a file that several processes share: each one whole, and nobody else's is ever cut."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a file, which is created if it is not there.

    The file is locked meanwhile (``flock``, advisory: it holds back those who call this). If the disk takes only a
    part of the line, that part is removed again; but only under the lock, and only if it is still the end of the file.

    Raises
    ------
    OSError
        If the line could not be written whole.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    try:
        is_locked = _lock(descriptor)
        start, written = os.fstat(descriptor).st_size, 0
        try:
            while written < len(line):
                written += os.write(descriptor, line[written:])
        except BaseException:
            if written and is_locked and os.fstat(descriptor).st_size == start + written:
                os.ftruncate(descriptor, start)
            raise
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file until it is closed; False on Windows, and where the file system has no locks."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True
