"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from allin1_core.errors import OutputError


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
    probe = folder / f".{uuid.uuid4().hex}.part"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written to ({error.strerror or error}); choose another folder"
        ) from error
    return folder


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
            name = path.with_name(f".{uuid.uuid4().hex}.part")
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


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file in UTF-8, whole or not at all; `OutputError` if it cannot be written."""
    with written_whole(path) as file:
        file.write(text.encode())
    return Path(path)
