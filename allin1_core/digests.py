"""SHA-256 of audio: by it a result, a kept spectrogram or kept stems know what they were made from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from allin1_core.audio import Audio, Stems
from allin1_core.errors import Allin1Error, AudioError, StemsError
from allin1_core.regular_files import FileContent, open_regular
from allin1_core.separation import find_stems, stems_folder
from allin1_core.tracks import Track

# As they were given, or file and audio stream of each.
ReadyStems: TypeAlias = Stems | Mapping[str, tuple[Path | FileContent, int]]


def file_digest(path: Path, error: type[Allin1Error] = AudioError) -> str:
    """SHA-256 of a file, read in blocks; `error` if it cannot be read."""
    digest = hashlib.sha256()
    with open_regular(path, error) as file:
        try:
            while block := file.read(1 << 20):
                digest.update(block)
        except OSError as cause:
            raise error(f"{path}: cannot be read ({cause.strerror}); copy the file again") from cause
    return digest.hexdigest()


def samples_digest(audio: Audio | Stems) -> str:
    """SHA-256 of the samples, their type, shape and rate."""
    digest = hashlib.sha256(f"{audio.samples.dtype} {audio.samples.shape} {audio.sample_rate}".encode())
    digest.update(np.ascontiguousarray(audio.samples).data)
    return digest.hexdigest()


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
