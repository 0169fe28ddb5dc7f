"""Bar tracking: positions in the bar for beats that are given, from downbeat activations at them.

The hidden Markov model has one state for each beat of each bar length, and one step for each beat. Within a bar a
path moves on to the next beat with probability 1. From the last beat of a bar of one of n lengths it goes to the
first beat of a bar of the same length with probability 1 - c, and of each other length with c / (n - 1). The first
beat of a bar sees the downbeat activation a, the others (1 - a) / (w - 1). All states are equally likely before the
first beat. There are few states, so the Viterbi recursion goes over a dense matrix; of equals the first wins.

Böck, Krebs and Widmer, "Joint Beat and Downbeat Tracking with Recurrent Neural Networks", ISMIR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from allin1_core.dbn.checks import (
    bar_lengths,
    check_activations,
    check_times,
    nearest_frames,
    positive_number,
    probability,
    real_number,
)
from allin1_core.dbn.metrical import BEAT_TOLERANCE
from allin1_core.dbn.observation_model import beat_log_densities
from allin1_core.dbn.viterbi import choose_kernel, load_kernel

# Probabilities are kept this far from 0 and 1: a network's sigmoid rounds to 1, and two of those in a row would rule
# out every path.
_LEAST_PROBABILITY = 1e-6
# Beats of all bars; the matrix of transitions takes 512 MiB then.
_MOST_BEATS = 8192


def activations_at_beats(beats: Any, downbeat: Any, fps: float = 100) -> np.ndarray:
    """Downbeat activation of each of some given beats: the rows that `DBNBarTrackingProcessor` takes.

    It is the highest within 0.07 s of the beat and nearer to it than to its neighbours, limited to 1e-6 to 1 - 1e-6.

    Parameters
    ----------
    beats : float (num_beats,)
        Times in seconds, ascending.
    downbeat : float (num_frames,)
        Probability of a downbeat in each frame.
    fps : float
        Frames per second.

    Returns
    -------
    float64 (num_beats, 2)
        Time in seconds and probability.

    Raises
    ------
    ValueError
        If the times are not ascending or outside the activations, or the activations are no probabilities.
    """
    times = check_times(beats)
    activations = check_activations(downbeat, None).astype(np.float64)
    positive_number("fps", fps, "frames per second")
    frames = nearest_frames(times, fps)
    if len(frames) and (frames[0] < 0 or frames[-1] >= len(activations)):
        raise ValueError(
            f"beats: {times[0]:g} to {times[-1]:g} s; expected times within the {len(activations)} frames of the "
            f"activations, 0 to {(len(activations) - 1) / fps:g} s at {fps:g} frames a second"
        )
    between = (frames[:-1] + frames[1:]) // 2
    reach = min(round(BEAT_TOLERANCE * fps), len(activations))
    first = np.maximum(frames - reach, np.r_[0, between + 1])
    last = np.minimum(frames + reach, np.r_[between, len(activations) - 1])
    # Beats a frame apart or less leave each other no frame but their own.
    first, last = np.minimum(first, frames), np.maximum(last, frames)
    highest = [activations[one : other + 1].max() for one, other in zip(first, last, strict=True)]
    limited = np.clip(np.array(highest), _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    return np.stack([times, limited], axis=1)


class DBNBarTrackingProcessor:
    """Positions in the bar of given beats by a dynamic Bayesian network: madmom's class of the same name.

    Parameters
    ----------
    beats_per_bar : int or sequence of int
        Bar lengths to model, in beats.
    observation_weight : float
        Above 1; the higher, the more the downbeat activations count, and the shorter are the bars.
    meter_change_prob : float or None
        Probability that the bar length changes at the end of a bar; 0 or None forbids it.
    backend : str
        ``auto``, ``cython`` or ``numpy``.

    Attributes
    ----------
    choice : allin1_core.backends.Choice
        Which kernel decodes, and why.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    BackendError
        If the backend does not exist or is not installed.
    """

    OBSERVATION_WEIGHT = 100
    METER_CHANGE_PROB = 1e-7

    def __init__(
        self,
        beats_per_bar: int | Sequence[int] = (3, 4),
        observation_weight: float = OBSERVATION_WEIGHT,
        meter_change_prob: float | None = METER_CHANGE_PROB,
        *,
        backend: str = "auto",
    ) -> None:
        meters = bar_lengths(beats_per_bar)
        if sum(meters) > _MOST_BEATS:
            raise ValueError(
                f"beats_per_bar: {sum(meters)} beats in all bars; expected at most {_MOST_BEATS}"
            )
        real_number("observation_weight", observation_weight, "a number above 1", lambda weight: weight > 1)
        change = probability("meter_change_prob", meter_change_prob)
        self.beats_per_bar = np.array(meters)
        self.observation_weight = observation_weight
        self._meters = np.repeat(meters, meters)
        self._numbers = np.concatenate([np.arange(1, meter + 1) for meter in meters])
        self._pointers = (self._numbers == 1).astype(np.int64)
        self._log_initial = float(np.log(1 / len(self._numbers)))
        self._log_transitions = _log_transitions(self.beats_per_bar, float(change))
        self.choice = choose_kernel(backend)
        self._kernel = load_kernel(self.choice.backend, "dense_viterbi")

    def process(self, data: Any) -> np.ndarray:
        """Beats with their positions in the bar.

        Parameters
        ----------
        data : float (num_beats, 2)
            Times in seconds, ascending, and the probability that each beat is a downbeat, as from
            `activations_at_beats` or madmom's RNNBarProcessor. As with madmom the last probability is not looked at
            (that processor has none): the last beat follows from the one before. Logarithms are taken in the
            precision of the data.

        Returns
        -------
        float64 (num_beats, 2)
            Time in seconds and position in the bar, from 1; ``(0, 2)`` if there are no beats.

        Raises
        ------
        ValueError
            If there is a single beat, the shape is another, the times are not ascending, a value is no probability,
            or the probabilities, of exactly 0 and 1, rule out every path.
        """
        array = np.asarray(data)
        if array.dtype.kind not in "buif" or array.ndim != 2 or array.shape[1] != 2:
            raise ValueError(
                f"data: {array.dtype} of shape {array.shape}; expected rows of time and downbeat probability, "
                "(num_beats, 2)"
            )
        times = check_times(array[:, 0])
        if len(array) == 1:
            raise ValueError("data: one beat; expected at least two, as the last follows from the one before")
        if len(array) == 0:
            return np.empty((0, 2))
        path = self._viterbi(check_activations(array[:-1, 1], None))
        numbers = self._numbers[path]
        numbers = np.append(numbers, numbers[-1] % self._meters[path[-1]] + 1)
        return np.stack([times, numbers], axis=1)

    __call__ = process

    def _viterbi(self, activations: np.ndarray) -> np.ndarray:
        """Most likely path of states, ``int64 (num_activations,)``."""
        densities = beat_log_densities(activations, self.observation_weight).take(self._pointers, axis=1)
        path, log_probability = self._kernel(self._log_transitions, densities, self._log_initial)
        if log_probability == -np.inf:
            raise ValueError(
                "data: the downbeat probabilities rule out every sequence of bars; expected values of exactly 0 and "
                f"1 only where bars of {', '.join(map(str, self.beats_per_bar))} beats allow them"
            )
        return path


def _log_transitions(meters: np.ndarray, change: float) -> np.ndarray:
    """Log probability of each transition between beats, ``float64 (num_states, num_states)`` from row to column."""
    lasts = np.cumsum(meters) - 1
    firsts = lasts - meters + 1
    probabilities = np.eye(int(meters.sum()), k=1)
    between = np.eye(len(meters))
    if len(meters) > 1:
        between[:] = change / (len(meters) - 1)
        np.fill_diagonal(between, 1.0 - change)
    probabilities[lasts] = 0
    probabilities[np.ix_(lasts, firsts)] = between
    with np.errstate(divide="ignore"):
        return np.log(probabilities)
