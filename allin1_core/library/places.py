"""Places: folders of this machine, and what fsspec URLs name, read and written the same way."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from allin1_core.errors import Allin1Error, LibraryError, OptionError, OutputError
from allin1_core.files.writing import expand_user, lock, written_whole


def plain(location: str | os.PathLike[str]) -> str:
    """A location as text, a ``file://`` URL as the path that it stands for."""
    return str(location).removeprefix("file://")


def is_url(location: str | os.PathLike[str]) -> bool:
    """Whether a location leads beyond the paths of this machine."""
    return "://" in plain(location)


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path on it.

    Raises
    ------
    LibraryError
        If there is none of that name, or its package is not installed.
    """
    import fsspec

    with errors_as(
        url, LibraryError, "cannot be used", "see docs/library.md for what each kind of URL needs"
    ):
        found, path = fsspec.core.url_to_fs(url)
    return found, str(path)


@contextlib.contextmanager
def errors_as(location: str, error: type[Allin1Error], what: str, advice: str) -> Iterator[None]:
    """Raise what the libraries behind URLs raise, each classes of its own, as one of ours."""
    try:
        yield
    except Allin1Error:
        raise
    except Exception as cause:
        raise error(f"{location}: {what} ({reason(cause)}); {advice}") from cause


def reason(error: Exception) -> str:
    """What an error says, on one line; its class where it says nothing."""
    return " ".join((str(getattr(error, "strerror", None) or error) or type(error).__name__).split())[:300]


class Place:
    """A folder that results go to: of this machine, or of what an fsspec URL names.

    A file there is written whole or not at all: on this machine to a temporary file that is then renamed, elsewhere in
    one upload, which object stores show when it is complete.

    Parameters
    ----------
    location : path-like
        Folder or URL.

    Attributes
    ----------
    folder : Path or None
        On this machine.

    Raises
    ------
    OptionError
        If it is empty.
    LibraryError
        If the URL's file system cannot be used.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        text = plain(location)
        if not text:  # as a path that would be the working folder
            raise OptionError("out: found ''; expected a folder or URL; '.' for the working folder")
        self.folder = None if is_url(text) else Path(os.path.abspath(expand_user(text)))
        self.location = text.rstrip("/") if self.folder is None else str(self.folder)
        self.filesystem, self.root = filesystem(self.location)

    def path(self, name: str) -> str:
        """The path of a file on `filesystem`."""
        return f"{self.root.rstrip('/')}/{name}"

    def _errors(self, name: str, what: str) -> contextlib.AbstractContextManager[None]:
        advice = "check the place, its rights and the connection"
        return errors_as(f"{self.location}/{name}", OutputError, what, advice)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold a folder of this machine for this process alone while the block runs, where it has locks."""
        if self.folder is None:
            yield
            return
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none.

        Raises
        ------
        OutputError
            If it cannot be read.
        """
        with self._errors(name, "cannot be read"):
            try:
                return bytes(self.filesystem.cat_file(self.path(name)))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if self.folder is not None:
            with written_whole(self.folder / name) as file:
                file.write(content)
            return
        with self._errors(name, "cannot be written"):
            self.filesystem.pipe_file(self.path(name), content)

    def put(self, name: str, source: Path) -> None:
        """Write a file with the content of one of this machine; see `write`."""
        if self.folder is not None:
            self.write(name, source.read_bytes())
            return
        with self._errors(name, "cannot be written"):
            self.filesystem.put_file(str(source), self.path(name))

    def fetch(self, name: str, target: Path) -> bool:
        """Copy a file to this machine; False if there is none. `OutputError` if it cannot be read."""
        with self._errors(name, "cannot be read"):
            try:
                self.filesystem.get_file(self.path(name), str(target))
            except FileNotFoundError:
                target.unlink(missing_ok=True)
                return False
        return True

    def files(self, folder: str, suffix: str) -> list[str]:
        """Paths on `filesystem` of the files in a folder whose names end so, sorted; none if it is not there.

        Raises
        ------
        OutputError
            If it cannot be listed.
        """
        with self._errors(folder, "cannot be listed"):
            self.filesystem.invalidate_cache()
            try:
                found = self.filesystem.ls(self.path(folder), detail=False)
            except FileNotFoundError:
                return []
            if [str(path) for path in found] == [self.path(folder)]:
                raise NotADirectoryError(errno.ENOTDIR, "found a file; expected a folder")
        names = {path: path.rpartition("/")[2] for path in map(str, found)}
        return sorted(
            path for path, name in names.items() if name.endswith(suffix) and not name.startswith(".")
        )
