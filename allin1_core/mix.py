"""The mix of a track that was analysed, for figures and sonification."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from allin1_core.audio import Audio, read_audio
from allin1_core.separation import read_stems_folder, stems_folder


def read_mix(path: Path, stems_dir: str | os.PathLike[str] | None = None) -> Audio:
    """An audio file as float, or the sum of the stems in a folder.

    Parameters
    ----------
    path : Path
        Audio file, or folder with stems.
    stems_dir : path-like, optional
        Where the stems are if the file itself is not there; see `allin1_core.analyze`.

    Returns
    -------
    Audio
        float32; a sum of stems is mono and scaled down where it would exceed [-1, 1].

    Raises
    ------
    AudioError, StemsError
        If it cannot be read.
    """
    if path.is_dir() or (stems_dir is not None and not path.is_file()):
        folder = path if path.is_dir() else stems_folder(stems_dir or "", path.stem)
        stems = read_stems_folder(folder)
        total = np.sum([_as_float(stem) for stem in stems.samples], axis=0)
        total /= max(1.0, np.abs(total).max())
        return Audio(total[:, np.newaxis].astype(np.float32), stems.sample_rate)
    audio = read_audio(path)
    return Audio(_as_float(audio.samples), audio.sample_rate)


def _as_float(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / np.float32(32768) if samples.dtype == np.int16 else samples
