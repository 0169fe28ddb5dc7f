"""From probabilities to beats: the decoder's input, its output in words, and the tempo.

The network gives two probabilities a frame, ``beat`` (every beat, downbeats among them) and ``downbeat``. The bar
pointer model of the decoder wants them disjoint: beat but not downbeat, downbeat, and neither. With
``b = beat`` and ``d = downbeat`` they are

    max(1e-8, b - d),   d,   ((1 - b) + (1 - d)) / 2

divided by their sum (Kim and Nam, "All-In-One Metrical And Functional Structure Analysis With Neighborhood
Attentions on Demixed Audio", WASPAA 2023).
"""

from __future__ import annotations

import dataclasses

import numpy as np

BEATS_PER_BAR = (3, 4)
FRAMES_PER_SECOND = 100

_SMALLEST_BEAT = np.float32(1e-8)


@dataclasses.dataclass(frozen=True)
class Beats:
    """Beats of a track.

    Attributes
    ----------
    times : list of float
        Seconds, multiples of 0.01 s, ascending.
    positions : list of int
        Position in the bar of each beat, from 1.
    """

    times: list[float]
    positions: list[int]

    @property
    def downbeats(self) -> list[float]:
        """Times of the beats at position 1, in seconds."""
        return [time for time, position in zip(self.times, self.positions, strict=True) if position == 1]


def decoder_input(beat: np.ndarray, downbeat: np.ndarray) -> np.ndarray:
    """Disjoint activations for the downbeat decoder.

    Parameters
    ----------
    beat, downbeat : float32 (T,)
        Probabilities.

    Returns
    -------
    float32 (T, 2)
        Beat but not downbeat, and downbeat; with the third class left out they sum to less than one.
    """
    beat = np.asarray(beat, dtype=np.float32)
    downbeat = np.asarray(downbeat, dtype=np.float32)
    beat_only = np.maximum(_SMALLEST_BEAT, beat - downbeat)
    neither = ((1 - beat) + (1 - downbeat)) / 2
    total = beat_only + downbeat + neither
    return np.stack([beat_only / total, downbeat / total], axis=-1)


def beats_from_decoder(decoded: np.ndarray) -> Beats:
    """The decoder's rows as `Beats`.

    Parameters
    ----------
    decoded : float64 (num_beats, 2)
        Time in seconds, position in the bar; may have no rows.
    """
    return Beats([float(time) for time in decoded[:, 0]], [int(position) for position in decoded[:, 1]])


def tempo(beats: list[float]) -> int | None:
    """Tempo of a track: the most frequent of the rounded rates ``60 / interval``.

    Parameters
    ----------
    beats : list of float
        Seconds, ascending.

    Returns
    -------
    int or None
        Beats per minute; of several equally frequent ones the highest. None with fewer than two beats.
    """
    if len(beats) < 2:
        return None
    rates = np.rint(60 / np.diff(beats)).astype(int)
    candidates, counts = np.unique(rates, return_counts=True)
    return int(candidates[counts == counts.max()].max())
