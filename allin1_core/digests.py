"""SHA-256 of audio: by it a result, a kept spectrogram or kept stems know what they were made from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from allin1_core.audio import Audio, Stems
from allin1_core.errors import AudioError, StemsError
from allin1_core.regular_files import FileContent, open_regular
from allin1_core.separation import find_stems, stems_folder
from allin1_core.tracks import Track


def file_digest(path: Path) -> str:
    """SHA-256 of an audio file; `AudioError` if it cannot be read."""
    digest = hashlib.sha256()
    with open_regular(path, AudioError) as file:
        try:
            while block := file.read(1 << 20):
                digest.update(block)
        except OSError as error:
            raise AudioError(f"{path}: cannot be read ({error.strerror}); copy the file again") from error
    return digest.hexdigest()


def samples_digest(audio: Audio | Stems) -> str:
    """SHA-256 of the samples, their type, shape and rate."""
    digest = hashlib.sha256(f"{audio.samples.dtype} {audio.samples.shape} {audio.sample_rate}".encode())
    digest.update(np.ascontiguousarray(audio.samples).data)
    return digest.hexdigest()


def is_separated(track: Track, stems_dir: str | os.PathLike[str] | None) -> bool:
    """Whether a track is a mix, so that its stems come from a separation; errors as of `find_ready_stems`."""
    given = track.given
    return not (given is not None and isinstance(given.audio, Stems)) and not find_ready_stems(
        track, stems_dir
    )


def find_ready_stems(
    track: Track, stems_dir: str | os.PathLike[str] | None
) -> dict[str, tuple[Path | FileContent, int]]:
    """File and audio stream of each of a track's ready stems; none if it is a mix, or came as samples.

    Raises
    ------
    AudioError, StemsError
        If they are not there or not complete, or the track cannot be opened.
    """
    audio = track.given.audio if track.given is not None else track.path
    if isinstance(audio, Stems):
        return {}
    if stems_dir is not None and not os.path.isdir(track.path):
        if track.given is not None:
            raise StemsError(
                f"stems_dir: {stems_dir}; expected none, because the track came without the name that its stems go by. "
                "Give its path, or Stems"
            )
        audio = stems_folder(stems_dir, track.path.stem)
    return {} if isinstance(audio, Audio) else find_stems(audio) or {}


def audio_digests(track: Track, stems_dir: str | os.PathLike[str] | None) -> dict[str, str]:
    """SHA-256 of the files that a track is made from, by their names: the mix, or the stems.

    Of a track that came as samples or a file object it is that one's, by ``samples`` or ``file``.

    Raises
    ------
    AudioError, StemsError
        If one is missing or cannot be read.
    """
    if track.given is not None:
        return {"file" if isinstance(track.given.audio, FileContent) else "samples": track.given.sha256}
    stems = find_ready_stems(track, stems_dir).values()
    paths = [path for path, _ in stems if isinstance(path, Path)] or [track.path]
    return {path.name: file_digest(path) for path in dict.fromkeys(paths)}
