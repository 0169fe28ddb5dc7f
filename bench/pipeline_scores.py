"""How well the pipeline's beats match the scores of the shared tracks (mir_eval's F-measure, +-70 ms)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parity.shared import shared_folder


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


def measure_f_measures(tracks: Sequence[str]) -> dict[str, dict[str, float]]:
    """F-measures of ``beats`` and ``downbeats`` by track, analysed from their stems with the published ensemble."""
    import mir_eval

    from allin1_core import analyze

    folder = shared_folder()
    if folder is None:
        raise FileNotFoundError("the shared reference material is not here; set ALLIN1_SHARED")
    paths = [folder / "audio" / track for track in tracks]
    results = analyze(paths, weights_dir=folder / "weights", progress=False)
    assert isinstance(results, list)
    measured = {}
    for track, result in zip(tracks, results, strict=True):
        beats, downbeats = read_score(track)
        measured[track] = {
            "beats": float(mir_eval.beat.f_measure(beats, np.asarray(result.beats))),
            "downbeats": float(mir_eval.beat.f_measure(downbeats, np.asarray(result.downbeats))),
        }
    return measured
