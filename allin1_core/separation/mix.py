"""The mix of a track that was analysed, for figures and sonification."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from allin1_core.audio.conversion import as_float32
from allin1_core.audio.reading import read_audio
from allin1_core.audio.types import Audio, Stems
from allin1_core.files.reading import FileContent
from allin1_core.files.writing import expand_user
from allin1_core.separation import find_stems, read_stems, stems_folder
from allin1_core.separation.inputs import Input, check_samples, take


def read_mix(
    path: Path, stems_dir: str | os.PathLike[str] | None = None, audio: Input | FileContent | None = None
) -> Audio:
    """An audio file as float, or the sum of the stems in a folder or a stem file without a mix.

    Parameters
    ----------
    path : Path
        Audio file, or folder with stems.
    stems_dir : path-like, optional
        Where the stems are if the file itself is not there; see `allin1_core.analyze`.
    audio : path-like, Audio, Stems, binary file object or FileContent, optional
        What is read instead of `path`.

    Returns
    -------
    Audio
        float32; a sum of stems is mono and scaled down where it would exceed [-1, 1].

    Raises
    ------
    AudioError, StemsError
        If it cannot be read, is empty, or holds samples that are not finite or far above full scale.
    """
    if audio is None:
        is_elsewhere = stems_dir is not None and not os.path.exists(path)
        audio = stems_folder(stems_dir or "", path.stem) if is_elsewhere else path
    elif isinstance(audio, str | os.PathLike):
        audio = expand_user(audio)
    elif isinstance(audio, Audio | Stems):
        check_samples(audio)
    elif not isinstance(audio, FileContent):
        audio = take(audio).audio
    if isinstance(audio, Path | FileContent):
        stems = find_stems(audio)
        # The first stream of a stem file is the mix, unless it is a stem itself.
        has_mix = stems is None or all(stream > 0 for _, stream in stems.values())
        audio = read_audio(audio) if stems is None or has_mix else read_stems(stems, str(audio))
    if isinstance(audio, Stems):
        total = np.sum([as_float32(stem) for stem in audio.samples], axis=0)
        total /= max(1.0, np.abs(total).max())
        return Audio(total[:, np.newaxis].astype(np.float32), audio.sample_rate)
    return Audio(as_float32(audio.samples), audio.sample_rate)
