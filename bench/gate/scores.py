"""How well the pipeline's beats match the scores of the shared tracks (mir_eval's F-measure, +-70 ms)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parity.material import needed_folder, read_score


def measure_f_measures(tracks: Sequence[str]) -> dict[str, dict[str, float]]:
    """F-measures of ``beats`` and ``downbeats`` by track, analysed from their stems with the published ensemble."""
    import mir_eval

    from allin1_core import analyze

    folder = needed_folder()
    paths = [folder / "audio" / track for track in tracks]
    results = analyze(paths, weights_dir=folder / "weights", progress=False)
    measured = {}
    for track, result in zip(tracks, results, strict=True):
        beats, downbeats = read_score(track)
        measured[track] = {
            "beats": float(mir_eval.beat.f_measure(beats, np.asarray(result.beats))),
            "downbeats": float(mir_eval.beat.f_measure(downbeats, np.asarray(result.downbeats))),
        }
    return measured
