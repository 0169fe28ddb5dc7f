"""How sure the decoder says it is, and how often it is right: ``python -m parity.full.confidences``.

Activations of every annotated song are decoded, as in `parity.full.decoder`. Each beat has a confidence, and is right
if an annotated beat lies within 70 ms; a downbeat is right if an annotated downbeat does. Of each song the beats are
counted by their confidence.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core.dbn import DBNDownBeatTrackingProcessor
from allin1_core.threads import usable_cores
from parity.full.decoder import BEATS_PER_BAR, run
from parity.inputs.activations import FPS, from_song
from parity.inputs.annotations import read_annotations
from parity.material import shared_folder
from parity.reports import accuracy

COMMAND = "python -m parity.full.confidences"
# Most confidences are near 1.
EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)
_TOLERANCE = 0.07


def calibration(times: np.ndarray, confidences: np.ndarray, annotated: np.ndarray) -> dict[str, list[float]]:
    """Of beats with a confidence between two `EDGES`: how many, the sum of their confidences, how many are right."""
    right = np.array(
        [np.abs(annotated - time).min(initial=np.inf) <= _TOLERANCE for time in times], dtype=float
    )
    weights = {"number": np.ones(len(times)), "sure": confidences, "right": right}
    return {
        name: np.histogram(confidences, EDGES, weights=weight)[0].tolist() for name, weight in weights.items()
    }


@functools.cache
def _decoder() -> DBNDownBeatTrackingProcessor:
    return DBNDownBeatTrackingProcessor(BEATS_PER_BAR, fps=FPS)


def rate_song(shared: Path, name: str) -> dict[str, Any]:
    """One song's row of the report."""
    song = read_annotations(shared)[name]
    activations = from_song(song)
    beats = _decoder()(activations)
    found = _decoder().confidences(activations, beats[:, 0])
    is_first = beats[:, 1] == 1
    return {
        "song": name,
        "tempo": song.tempo_kind,
        "beats": calibration(beats[:, 0], found[:, 0], song.times),
        "downbeats": calibration(beats[is_first, 0], found[is_first, 1], song.downbeats),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    parser.add_argument("--processes", type=int, default=usable_cores())
    parser.add_argument("--songs", type=int, help="only the first so many")
    options = parser.parse_args(arguments)
    shared = shared_folder()
    if shared is None:
        print("the shared reference material is not here (set ALLIN1_SHARED to its folder): nothing to rate")
        return 0
    names = list(read_annotations(shared))[: options.songs]
    rows = run(functools.partial(rate_song, shared), options.processes, names, "confidences")
    path = accuracy.update(options.reports, "confidences", {"command": COMMAND, "edges": EDGES, "rows": rows})
    print(f"confidences of {len(rows)} songs: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
