"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from allin1_core.errors import OutputError

_TEMPORARY = ".part"


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


def check_writable(folder: str | os.PathLike[str]) -> Path:
    """The folder, created where it is not there, in which files can be made.

    Raises
    ------
    OutputError
        If it cannot be created or written to.
    """
    folder = make_folder(folder)
    probe = folder / temporary_name()
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written to ({error.strerror or error}); choose another folder"
        ) from error
    remove_abandoned(folder)
    return folder


def temporary_name() -> str:
    """A name for a temporary file that tells which process made it, so that it can be removed if that was killed."""
    return f".{_host()}-{os.getpid()}-{uuid.uuid4().hex}{_TEMPORARY}"


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files that processes of this machine left in a folder when they were killed."""
    if os.name != "posix":
        return  # asking whether a process lives would end it
    for path in folder.glob(f".{_host()}-*{_TEMPORARY}"):
        process = path.name.split("-")[1]
        if process.isdecimal() and not _is_alive(int(process)):
            with contextlib.suppress(OSError):  # another process was faster, or may and we may not
                path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it is another user's
    return True


@functools.cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` when the block has ended well, replacing what was there.

    The block writes to a temporary file in the same folder, which is flushed to the disk and then renamed; if
    anything fails on the way, it is removed, and `path` is as it was.

    Raises
    ------
    OutputError
        If the file cannot be written: no permission, no space, no such folder.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        try:
            name = path.with_name(temporary_name())
            with name.open("xb") as file:
                temporary = name
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            temporary = None
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); nothing was left behind. "
            "Free space, or choose another folder"
        ) from error


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
        if path.is_file():
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed ({error.strerror or error}); delete it") from error


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file in UTF-8, whole or not at all; `OutputError` if it cannot be written."""
    with written_whole(path) as file:
        file.write(text.encode())
    return Path(path)
