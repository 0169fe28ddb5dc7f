"""Atomic writing, file locks and locked append: a file is written whole or not at all.

A file that is being made, and a name that is taken (`claims`), is locked (``flock``) by the process at work on it. The
kernel releases the lock when that process ends, however it ends and whatever container it runs in. So what is found
unlocked was abandoned, and is removed. Where a file system has no locks, nothing is removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import io
import os
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from allin1_core.errors import OptionError, OutputError

_TEMPORARY, CLAIM = ".part", ".claim"

# Device and inode, which are the same by every path and link.
Identity: TypeAlias = tuple[int, int]


def expand_user(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ``~`` or ``~user`` replaced by that home folder; as it is where there is no such user."""
    return Path(os.path.expanduser(path))


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, created with its parents where it is not there.

    Raises
    ------
    OutputError
        If it cannot be created, or is a file.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be used as an output folder ({error.strerror or error}); choose another"
        ) from error
    return folder


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder, which is created where it is not there, in which files cannot be made.

    Raises
    ------
    OutputError
        If it cannot be created or written to.
    """
    folder = make_folder(folder)
    probe = folder / temporary_name()
    try:
        probe.touch(exist_ok=False)
        probe.unlink(missing_ok=True)  # another process may have taken it for abandoned
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written to ({error.strerror or error}); choose another folder"
        ) from error
    remove_abandoned(folder)


def check_names(paths: Iterable[Path]) -> None:
    """Refuse files whose names, or whole paths, are longer than their file system takes.

    Raises
    ------
    OutputError
        To be raised before any of them is written.
    """
    for path in paths:
        try:
            path.lstat()
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                continue
            raise OutputError(
                f"{path}: too long a name for a file ({len(os.fsencode(path.name))} bytes, and with its folder "
                f"{len(os.fsencode(path))}); nothing was written. Give the track a shorter name"
            ) from error


def identities(paths: Iterable[str | os.PathLike[str]]) -> dict[Identity, str | os.PathLike[str]]:
    """The paths of what is there, by what they lead to."""
    found = {}
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # ValueError: a NUL in the name
            entry = os.stat(path)
            found[entry.st_dev, entry.st_ino] = path
    return found


def check_no_input(
    outputs: Iterable[str | os.PathLike[str]], inputs: Mapping[Identity, str | os.PathLike[str]]
) -> None:
    """Refuse to write over what is read, by whatever path or link.

    Parameters
    ----------
    outputs : iterable of path-like
    inputs : dict of path-like
        From `identities`.

    Raises
    ------
    OptionError
        To be raised before anything is written.
    """
    for identity, path in identities(outputs).items():
        if identity in inputs:
            raise OptionError(
                f"{path}: found the input {inputs[identity]}, which would be overwritten; expected another place to "
                "write to"
            )


def temporary_name() -> str:
    """A name for a temporary file; it tells the machine, because locks may not reach beyond it."""
    return f".{_host()}-{uuid.uuid4().hex}{_TEMPORARY}"


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files and claims that processes of this machine left in a folder when they were killed."""
    for pattern in (f".{_host()}-*{_TEMPORARY}", f".*{CLAIM}"):
        for path in folder.glob(pattern):
            # Another process was faster, it is another user's, or there are no locks.
            with contextlib.suppress(OSError), path.open("r+b") as file:
                if try_lock(file.fileno()):
                    path.unlink()


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process alone, until it is closed; False if another one has it locked.

    Raises
    ------
    OSError
        If its file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(descriptor: int) -> bool:
    """Wait for an open file and lock it for this process alone, until it is closed; False where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def is_deleted(descriptor: int) -> bool:
    """Whether an open file was deleted since it was opened."""
    return os.fstat(descriptor).st_nlink == 0


@functools.cache
def _host() -> str:
    import socket

    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


def _open_temporary(folder: Path) -> tuple[Path, BinaryIO]:
    """A new temporary file, locked where the file system has locks."""
    while True:
        path = folder / temporary_name()
        file = path.open("xb")
        lock(file.fileno())
        if not is_deleted(file.fileno()):
            return path, file
        file.close()  # another process saw it before it was locked


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` when the block has ended well, replacing what was there.

    The block writes to a temporary file in the same folder, which is flushed to the disk and then renamed; if
    anything fails on the way, it is removed, and `path` is as it was.

    Raises
    ------
    OutputError
        If the file cannot be written: no permission, no space, no such folder. If a device is there.
    """
    path = Path(path)
    # The superuser's rename would put a file in the place of /dev/null, or of the link /dev/stdout.
    if _is_device(path) or os.path.realpath(path.parent) == "/dev":
        raise OutputError(f"{path}: found a device; expected the path of a file to write")
    try:
        temporary, file = _open_temporary(path.parent)
        # Renamed while it is open: until then it stays locked.
        with file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); nothing was left behind. "
            "Free space, or choose another folder"
        ) from error


def _is_device(path: Path) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


class HashingWriter(io.BufferedIOBase):
    """A binary file to write to that hashes what is written.

    Attributes
    ----------
    sha256
        `hashlib` object of what was written so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return self._file.write(data)


def remove(path: str | os.PathLike[str]) -> None:
    """Remove a file if it is there; `OutputError` if it cannot be removed."""
    path = Path(path)
    try:
        if os.path.isfile(path):  # no error where the name is too long for a file
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed ({error.strerror or error}); delete it") from error


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file in UTF-8, whole or not at all; `OutputError` if it cannot be written."""
    with written_whole(path) as file:
        file.write(text.encode())
    return Path(path)


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a file, which is created if it is not there.

    The file is locked meanwhile (``flock``, advisory: it holds back those who call this). If the disk takes only a
    part of the line, that part is removed again; but only under the lock, and only if it is still the end of the file.

    Raises
    ------
    OSError
        If the line could not be written whole.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        is_locked = lock(descriptor)
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
