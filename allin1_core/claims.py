"""Names in an output folder, each taken by one track at a time, also between processes that share the folder.

Which names have results can be seen from the files there, but two processes that start together see none. So a
process holds a name while it works on the track, by a small hidden file that says which track that is and is locked
(``flock``). Processes at work on the same track share the lock, and the last one to give the name back removes the
file. A process that was killed holds no lock: the file that it leaves means nothing, and is written over or removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from allin1_core.files import CLAIM, is_deleted, try_lock


@contextlib.contextmanager
def claimed(folder: Path, name: str, path: Path) -> Iterator[bool]:
    """Hold a name for a track while the block runs, unless another track has it.

    Parameters
    ----------
    folder : Path
        Where the results go.
    name : str
        What the track's files are to be called. Upper and lower case do not differ.
    path : Path
        The track.

    Yields
    ------
    bool
        Whether the name is this track's. True where the file system has no locks, on which this rests.
    """
    # A hash, because the name with anything added may be too long for a file.
    claim = folder / f".{hashlib.sha256(os.fsencode(name.casefold())).hexdigest()[:32]}{CLAIM}"
    try:
        descriptor = _take(claim, os.fsencode(path))
        is_ours = descriptor is not None
    except OSError:
        descriptor, is_ours = None, True
        with contextlib.suppress(OSError):
            claim.unlink(missing_ok=True)
    try:
        yield is_ours
    finally:
        if descriptor is not None:
            _give_back(descriptor, claim)


def _take(claim: Path, track: bytes) -> int | None:
    """Descriptor of the claim, locked for the track; None if another track has it, `OSError` if there are no locks."""
    while True:
        with contextlib.ExitStack() as opened:
            descriptor = _open(claim)
            opened.callback(os.close, descriptor)
            if try_lock(descriptor):  # nobody has the name
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, track, 0)
            # One lock is given up before the other is had, so that another track may come between: what counts is
            # what the file says now.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if is_deleted(descriptor):
                continue  # given back meanwhile
            if os.pread(descriptor, len(track) + 1, 0) != track:
                return None
            opened.pop_all()
            return descriptor


def _open(claim: Path) -> int:
    try:
        return os.open(claim, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        return os.open(claim, os.O_RDONLY)  # another user's


def _give_back(descriptor: int, claim: Path) -> None:
    try:
        if try_lock(descriptor) and not is_deleted(descriptor):
            claim.unlink()
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child made by fork may have it open, too
    except OSError:
        pass  # the folder is gone, or may no longer be written to; a claim without a lock means nothing
    finally:
        os.close(descriptor)
