"""SHA-256 of audio: by it a result, a kept spectrogram or kept stems know what they were made from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from allin1_core.audio import Stems
from allin1_core.errors import Allin1Error, AudioError
from allin1_core.regular_files import open_regular
from allin1_core.separation import find_stem_files, stems_folder
from allin1_core.tracks import Track


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


def stems_digest(stems: Stems) -> str:
    """SHA-256 of the samples, their type and their rate."""
    digest = hashlib.sha256(f"{stems.samples.dtype} {stems.samples.shape} {stems.sample_rate}".encode())
    digest.update(np.ascontiguousarray(stems.samples).data)
    return digest.hexdigest()


def is_separated(track: Track, stems_dir: str | os.PathLike[str] | None) -> bool:
    """Whether a track is a mix, so that its stems come from a separation."""
    return stems_dir is None and not os.path.isdir(track.path)


def ready_stems(track: Track, stems_dir: str | os.PathLike[str] | None) -> Path:
    """The folder of a track's ready stems; `StemsError` if it is not there."""
    return track.path if os.path.isdir(track.path) else stems_folder(stems_dir or "", track.path.stem)


def check_input(track: Track, stems_dir: str | os.PathLike[str] | None) -> None:
    """Whether there are files to read, without reading them.

    Raises
    ------
    AudioError, StemsError
        If one is missing or cannot be opened.
    """
    for path in _audio_files(track, stems_dir):
        open_regular(path, AudioError).close()


def audio_digests(track: Track, stems_dir: str | os.PathLike[str] | None) -> dict[str, str]:
    """SHA-256 of the files that a track is made from, by their names: the mix, or the stems.

    Raises
    ------
    AudioError, StemsError
        If one is missing or cannot be read.
    """
    return {path.name: file_digest(path) for path in _audio_files(track, stems_dir)}


def _audio_files(track: Track, stems_dir: str | os.PathLike[str] | None) -> list[Path]:
    if is_separated(track, stems_dir):
        return [track.path]
    return list(find_stem_files(ready_stems(track, stems_dir)).values())
