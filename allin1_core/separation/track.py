"""A track: its path, the name of its files, and the SHA-256 of the audio that it is made from."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from allin1_core.errors import AudioError

if TYPE_CHECKING:
    from allin1_core.separation.inputs import Given
from collections.abc import Mapping
from typing import TypeAlias

from allin1_core.audio.types import Audio, Stems
from allin1_core.errors import StemsError
from allin1_core.files.reading import FileContent, file_digest, open_regular
from allin1_core.separation import find_stems, stems_folder


@dataclasses.dataclass(frozen=True)
class Track:
    """A track to analyse.

    Attributes
    ----------
    path : Path
        Audio file or folder of stems, absolute.
    name : str
        What its files are called, without suffix; no two tracks share one.
    given : Given, optional
        The track itself, if it came without a path; then `path` leads to no file.
    """

    path: Path
    name: str
    given: Given | None = None


# As they were given, or file and audio stream of each.
ReadyStems: TypeAlias = Stems | Mapping[str, tuple[Path | FileContent, int]]


def find_ready_stems(track: Track, stems_dir: str | os.PathLike[str] | None) -> ReadyStems | None:
    """A track's ready stems, which can be opened but are not read; None if it is a mix, to be separated.

    Raises
    ------
    AudioError, StemsError
        If they are not there or not complete, or a file of the track cannot be opened.
    """
    source: Path | FileContent
    if track.given is None:
        is_in_stems_dir = stems_dir is not None and not os.path.isdir(track.path)
        source = stems_folder(stems_dir or "", track.path.stem) if is_in_stems_dir else track.path
    elif isinstance(track.given.audio, Stems):
        return track.given.audio
    elif stems_dir is not None:
        raise StemsError(
            f"stems_dir: {stems_dir}; expected none, because the track came without the name that its stems go by. "
            "Give its path, or Stems"
        )
    elif isinstance(track.given.audio, Audio):
        return None
    else:
        source = track.given.audio
    stems = find_stems(source)
    for path, _ in (stems or {}).values():
        if path != source and isinstance(path, Path):  # of a folder
            open_regular(path, AudioError).close()
    return stems


def audio_digests(track: Track, ready: ReadyStems | None) -> dict[str, str]:
    """SHA-256 of the files that a track is made from, by their names: the mix, or its ready stems.

    Of a track that came as samples or a file object it is that one's, by ``samples`` or ``file``.

    Raises
    ------
    AudioError, StemsError
        If one is missing or cannot be read.
    """
    if track.given is not None:
        return {"file" if isinstance(track.given.audio, FileContent) else "samples": track.given.sha256}
    files = (
        [track.path] if ready is None or isinstance(ready, Stems) else [file for file, _ in ready.values()]
    )
    return {path.name: file_digest(path) for path in dict.fromkeys(files) if isinstance(path, Path)}
