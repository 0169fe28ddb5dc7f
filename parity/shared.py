"""Where the shared reference material lies (stems, weights, goldens, annotations), if it is here at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import soundfile

STEMS = ("bass", "drums", "other", "vocals")


def shared_folder() -> Path | None:
    """The folder named by ``ALLIN1_SHARED``, else ``../shared`` beside the checkout, else None.

    Raises
    ------
    FileNotFoundError
        If ``ALLIN1_SHARED`` is set but names no folder: a typo must not skip the tests.
    """
    named = os.environ.get("ALLIN1_SHARED")
    if named:
        folder = Path(named)
        if not folder.is_dir():
            raise FileNotFoundError(f"ALLIN1_SHARED: no folder at {named!r}; correct it or unset it")
        return folder
    folder = Path(__file__).resolve().parents[2] / "shared"
    return folder if (folder / "audio").is_dir() else None


def tracks() -> list[str]:
    """Names of the shared tracks, sorted; empty where the folder is absent."""
    folder = shared_folder()
    return sorted(path.name for path in (folder / "audio").iterdir()) if folder else []


def read_stems(track: str) -> np.ndarray:
    """The stems of a shared track, ``int16 (4, num_samples)`` in the order of `STEMS`, at 44.1 kHz."""
    folder = shared_folder()
    if folder is None:
        raise FileNotFoundError("the shared reference material is not here; set ALLIN1_SHARED")
    stems = []
    for stem in STEMS:
        samples, sample_rate = soundfile.read(folder / "audio" / track / f"{stem}.flac", dtype="int16")
        assert sample_rate == 44100, (track, stem, sample_rate)
        stems.append(samples)
    return np.stack(stems)


def read_score(track: str) -> tuple[np.ndarray, np.ndarray]:
    """Beats and downbeats of a track's score, in seconds.

    Raises
    ------
    FileNotFoundError
        If the shared reference material is not here.
    """
    folder = shared_folder()
    if folder is None:
        raise FileNotFoundError("the shared reference material is not here; set ALLIN1_SHARED")
    rows = np.loadtxt(folder / "audio" / track / "beats.tsv", ndmin=2)
    return rows[:, 0], rows[rows[:, 1] == 1, 0]
