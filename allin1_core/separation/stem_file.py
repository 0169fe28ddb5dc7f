"""Stem files: stems as audio streams of one file, identified by the names in its metadata.

A stem file of Native Instruments (``.stem.mp4``) is an MPEG-4 file whose first audio stream is the mix, and the next
four the stems. The atom ``moov/udta/stem`` holds JSON with a list ``stems``: the name and colour of each stem, in the
order of the streams. Other writers name each stream by its title, in MPEG-4 or Matroska, with or without a mix.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from allin1_core.audio.containers import BOXES, EBML
from allin1_core.audio.decoding import open_container
from allin1_core.audio.types import STEM_NAMES
from allin1_core.errors import AudioError, StemsError
from allin1_core.files.reading import FileContent, open_regular
from allin1_core.separation.folder import ALL_STEMS, find_stem_files

_ATOM = (b"moov", b"udta", b"stem")
_LARGEST_ATOM = 1 << 20  # bytes
_MOST_ATOMS = 10_000

# What a stem is called besides its own name.
_WORDS = {stem: stem for stem in ALL_STEMS} | {
    "bassline": "bass",
    "drum": "drums",
    "percussion": "drums",
    "others": "other",
    "synth": "other",
    "synths": "other",
    "melody": "other",
    "music": "other",
    "vocal": "vocals",
    "vox": "vocals",
    "voice": "vocals",
}


def find_stems(source: Path | FileContent) -> dict[str, tuple[Path | FileContent, int]] | None:
    """File and audio stream of each stem that a folder or a stem file holds; None if this is a mix.

    Raises
    ------
    AudioError, StemsError
        As `find_stem_files` and `find_stem_streams`.
    """
    if isinstance(source, Path) and os.path.isdir(source):
        return {stem: (path, 0) for stem, path in find_stem_files(source).items()}
    streams = find_stem_streams(source)
    return None if streams is None else {stem: (source, stream) for stem, stream in streams.items()}


def find_stem_streams(source: Path | FileContent) -> dict[str, int] | None:
    """The audio streams of a file that are stems.

    A file is a stem file if it has the atom, or if the titles of several streams are names of stems, bass or drums
    among them. Without the atom a first stream that is called otherwise is the mix.

    Parameters
    ----------
    source : Path or FileContent

    Returns
    -------
    dict of int
        Number of the audio stream by stem: ``bass``, ``drums``, ``other``, ``vocals``, and where they are ``guitar``
        and ``piano``. None if this is no stem file.

    Raises
    ------
    StemsError
        If it is one, and the names do not tell which stream is which stem.
    AudioError
        If the file cannot be opened or read.
    """
    with _open(source) as file:
        try:
            head = file.read(8)
            file.seek(0)
            tags = _tags(file) if head[4:] in BOXES or head.startswith(EBML) else []
            if len(tags) < 2:
                return None
            atom = _read_atom(file)
        except OSError as error:
            raise AudioError(
                f"{source}: cannot be read ({error.strerror or error}); copy the file again"
            ) from error
    titles = [tag.get("title") or tag.get("name") or tag.get("handler_name", "") for tag in tags]
    if atom is None:
        named = {stem for title in titles if (stem := _stem(title))}
        if len(named) < 2 or named.isdisjoint(("bass", "drums")):
            return None
        first = 0 if _stem(titles[0]) else 1
        return _streams(source, dict(enumerate(titles[first:], first)))
    names = _names(source, atom)
    if len(names) != len(tags) - 1:
        raise StemsError(
            f"{source}: {len(tags)} audio streams, where its stem atom names {len(names)} stems "
            f"({', '.join(map(repr, names))}); expected the mix and one stream for each stem. Export the file again"
        )
    return _streams(source, dict(enumerate(names, 1)))


def _open(source: Path | FileContent) -> BinaryIO:
    return io.BytesIO(source.content) if isinstance(source, FileContent) else open_regular(source, AudioError)


def _tags(file: BinaryIO) -> list[dict[str, str]]:
    """What each audio stream says of itself; nothing if FFmpeg cannot read the file: `read_audio` says why."""
    import av

    try:
        with open_container(file) as container:
            return [stream.metadata for stream in container.streams.audio]
    except (av.FFmpegError, ValueError):
        return []


def _stem(name: str) -> str | None:
    """The one stem that a name has words for; None if there is none or more than one."""
    stems = {_WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in _WORDS}
    return stems.pop() if len(stems) == 1 else None


def _streams(source: Path | FileContent, names: Mapping[int, str]) -> dict[str, int]:
    stems = [_stem(name) for name in names.values()]
    streams = {stem: stream for stem, stream in zip(stems, names, strict=True) if stem is not None}
    if len(streams) < len(stems) or not set(STEM_NAMES) <= streams.keys():
        found = ", ".join(repr(name[:80]) for name in names.values())
        raise StemsError(
            f"{source}: the stems in this file are called {found}; expected one each that is called "
            f"{', '.join(STEM_NAMES)}. Rename them, or give them as files of those names in a folder"
        )
    return streams


def _names(source: Path | FileContent, atom: bytes) -> Sequence[str]:
    try:
        names = [stem["name"] for stem in json.loads(atom)["stems"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        names = None
    if not names or not all(isinstance(name, str) for name in names):
        raise StemsError(
            f"{source}: the stem atom (moov/udta/stem) holds {len(atom)} bytes that name no stems; expected JSON with "
            'a list "stems", each with a "name". Export the file again'
        )
    return names


def _read_atom(file: BinaryIO) -> bytes | None:
    start, end = 0, file.seek(0, 2)
    for wanted in _ATOM:
        inside = next(
            ((first, last) for kind, first, last in _atoms(file, start, end) if kind == wanted), None
        )
        if inside is None:
            return None
        start, end = inside
    file.seek(start)
    return file.read(min(end - start, _LARGEST_ATOM))


def _atoms(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each atom between two places of the file, and where its content begins and ends."""
    for _ in range(_MOST_ATOMS):
        file.seek(start)
        head = file.read(16)
        if len(head) < 8 or start + 8 > end:
            return
        size, kind, content = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1:  # it has 64 bits, after the kind
            size, content = int.from_bytes(head[8:], "big"), start + 16
        last = min(start + size, end) if size else end
        if last < content:
            return
        yield kind, content, last
        start = last
