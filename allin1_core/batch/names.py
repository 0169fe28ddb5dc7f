"""File names of tracks, reserved by locks between processes that share a folder."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from allin1_core.errors import AudioError
from allin1_core.files.writing import CLAIM, expand_user, is_deleted, try_lock

if TYPE_CHECKING:
    pass


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


def track_name(path: Path) -> str:
    """What a track's files are called: its file's name without suffix, its folder's name."""
    return path.name if os.path.isdir(path) else path.stem


def name_with_hash(path: Path) -> str:
    """The same with a short hash of the whole path, for a track whose name another one has."""
    return f"{track_name(path)}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


def absolute(path: Path) -> Path:
    """The absolute path of a track, without links but for one that is the track itself.

    Such a link is a name of its own, by which the track's stems are looked for and its files are called. So a link and
    its target are two tracks.
    """
    if path.name in ("", ".."):
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent), path.name)


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Whether a path stands for others; what is there as it is written does not, whatever characters it has."""
    path = expand_user(path)
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def expand_paths(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Absolute paths in the order given; a pattern stands for its matches in alphabetical order.

    A path that comes up again is dropped.

    Raises
    ------
    AudioError
        If a pattern matches nothing.
    """
    expanded: dict[Path, None] = {}
    for given in paths:
        path = expand_user(given)
        matches = [path]
        if is_pattern(given):
            matches = [Path(match) for match in sorted(glob.glob(_escape_folder(path), recursive=True))]
            if not matches:
                raise AudioError(f"{given}: no file matches this pattern; check it")
        expanded.update((absolute(match), None) for match in matches)
    return list(expanded)


def _escape_folder(pattern: Path) -> str:
    """A pattern with its folder, as far as that is there as it is written, escaped: ``albums [2020]/*.mp3``."""
    folder = next(parent for parent in pattern.parents if os.path.lexists(parent))
    return os.path.join(glob.escape(str(folder)), pattern.relative_to(folder))
