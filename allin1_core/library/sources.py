"""The songs of a library: found below a folder or URL, or listed in a text file or a Parquet column."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import os
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from allin1_core.batch.names import with_hash
from allin1_core.errors import LibraryError, OptionError
from allin1_core.files.writing import expand_user
from allin1_core.library.places import errors_as, filesystem, is_url, plain
from allin1_core.library.walking import REACH, Found, is_folder_of_stems, state_of, walk, walk_url
from allin1_core.separation.folder import AUDIO_SUFFIXES
from allin1_core.separation.inputs import PathLike
from allin1_core.separation.track import absolute

# As many as a 64-bit hash tells apart: libraries have thousands of tracks called "01 - Intro".
_DIGITS = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Song:
    """A song of a library.

    Attributes
    ----------
    location : str
        Absolute path, or URL, of its audio file or folder of stems.
    name : str
        What its files are called; no two songs share one.
    state : str
        Size and time of the last change (or the store's tag) of its files, by which a change is seen without reading
        them; empty where that was not to be had.
    """

    location: str
    name: str
    state: str = ""

    def named_apart(self) -> Song:
        """The song by a name that tells its location."""
        return dataclasses.replace(self, name=with_hash(self.name, self.location, _DIGITS))


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of so many parts of a library.

    A song's part follows from the SHA-256 of its location alone, whatever else is in the library.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """``3/64`` is the third of 64 parts, None the whole.

        Raises
        ------
        OptionError
            If it is something else.
        """
        if text is None:
            return cls(1, 1)
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise OptionError(f"shard: {text!r}; expected PART/PARTS from 1/1, such as 3/64 of 1/64 to 64/64")
        return cls(int(index), int(count))

    def __contains__(self, location: str) -> bool:
        digest = hashlib.sha256(os.fsencode(location)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1


def find_songs(
    source: PathLike | Sequence[PathLike], *, column: str = "path", shard: Shard | None = None
) -> tuple[list[Song], list[str]]:
    """The songs of a source that are in a shard, and the locations of all that the source has.

    A folder below the source that cannot be read is one of them, and fails as a song: what is in it is not known.

    Parameters
    ----------
    source : path-like, or sequence of those
        Folder, which is walked; ``.txt``, a song on each line; ``.parquet``, a song in each row; else one song.
        Paths or URLs; of a sequence each is a song.
    column : str
        Of a Parquet file.
    shard : Shard, optional

    Raises
    ------
    LibraryError
        If the source is missing, cannot be read or reached, or has no songs.
    OptionError
        If a path is empty.
    """
    files = dict(_songs(source, column))
    if not files:
        raise LibraryError(
            f"{source}: no songs; expected audio files ({', '.join(sorted(AUDIO_SUFFIXES)[:6])}, ...), folders with "
            "bass, drums, other and vocals, or a list of them (.txt, .parquet)"
        )
    names = _names(files)
    songs = [
        Song(location, names[location], state_of(location) if state is None else state)
        for location, (_, state) in files.items()
        if shard is None or location in shard
    ]
    return songs, list(files)


def _songs(source: PathLike | Sequence[PathLike], column: str) -> Iterator[tuple[str, Found]]:
    if not isinstance(source, str | os.PathLike):
        if "" in source:  # as a path that would be the working folder
            raise OptionError("source: found '' among the songs; expected paths or URLs")
        return (_single(location) for location in source)
    source = plain(source)
    if not source:
        raise OptionError("source: found ''; expected a folder, list or song; '.' for the working folder")
    suffix = path_of(source).suffix.lower()
    if suffix in (".txt", ".parquet"):
        content = _content(source)
        lines = _lines(content, source) if suffix == ".txt" else _column(content, source, column)
        return (_single(line) for line in lines)
    if is_url(source):
        return iter([_single(source)]) if suffix in AUDIO_SUFFIXES else walk_url(source)
    path = expand_user(source)
    if not os.path.lexists(path):
        raise LibraryError(f"{source}: not there; expected a folder of songs, a song, or a list of songs")
    if not os.path.isdir(path) or is_folder_of_stems(path):
        return iter([_single(source)])
    return walk(Path(os.path.realpath(path)))


def _single(location: PathLike) -> tuple[str, Found]:
    location = plain(location)
    if not is_url(location):
        path = absolute(expand_user(location))
        return str(path), (os.path.isdir(path), None)
    url = location.rstrip("/")
    return url, (is_url_of_stems(url), "")


def is_url_of_stems(url: str) -> bool:
    """Whether a URL is taken for a folder of stems, by its name: to list each one would take days."""
    return not url.startswith(("http://", "https://")) and path_of(url).suffix.lower() not in AUDIO_SUFFIXES


def path_of(location: str) -> PurePosixPath:
    """A path, or that in a URL."""
    is_web = location.startswith(("http://", "https://"))
    return PurePosixPath(urllib.parse.urlsplit(location).path if is_web else location)


def _content(source: str) -> bytes:
    with errors_as(source, LibraryError, "cannot be read", REACH):
        if not is_url(source):
            return expand_user(source).read_bytes()
        files, path = filesystem(source)
        return bytes(files.cat_file(path))


def _lines(content: bytes, source: PathLike) -> Iterator[str]:
    try:
        lines = list(
            io.StringIO(content.decode("utf-8-sig"), newline=None)
        )  # names may hold what str takes for ends
    except UnicodeDecodeError as error:
        raise LibraryError(f"{source}: not UTF-8 ({error}); expected a path or URL on each line") from error
    songs = (line.strip() for line in lines)
    # A comment, but for a song such as "#1 Crush.mp3".
    return (song for song in songs if song and (song[0] != "#" or os.path.lexists(song)))


def _column(content: bytes, source: PathLike, column: str) -> Iterator[str]:
    from pyarrow import ArrowException, BufferReader, parquet

    try:
        table = parquet.read_table(BufferReader(content))
    except ArrowException as error:
        raise LibraryError(f"{source}: cannot be read as Parquet ({error})") from error
    if column not in table.column_names:
        raise LibraryError(
            f"{source}: no column {column!r}; found {', '.join(table.column_names)}. Name the one with the songs "
            "(--column)"
        )
    values = table.column(column).to_pylist()
    if not all(isinstance(value, str) and value for value in values):
        raise LibraryError(
            f"{source}: column {column!r} has other values than paths and URLs; expected text in each row"
        )
    return iter(values)


def _names(files: Mapping[str, Found]) -> dict[str, str]:
    """What each song's files are called: as its file or folder, with a hash if others are called so."""

    def own_name(location: str) -> str:
        path = path_of(location)
        return path.name if files[location][0] else path.stem

    # Some file systems do not tell upper from lower case.
    shared = collections.Counter(own_name(location).casefold() for location in files)
    names = {
        location: name
        if shared[(name := own_name(location)).casefold()] == 1
        else with_hash(name, location, _DIGITS)
        for location in files
    }
    again = [
        name for name, times in collections.Counter(map(str.casefold, names.values())).items() if times > 1
    ]
    if again:
        raise LibraryError(f"{again[0]}: several songs would be called so; expected one. Rename one of them")
    return names
