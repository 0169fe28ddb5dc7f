"""Transition model: how likely the tempo changes from one beat to the next.

Within a beat a path can only move on to the next state, with probability 1. From the last state of a beat it goes
to the first state of the next beat (after the last beat: of the first), at the same or another interval, with a
probability that falls off exponentially with the ratio of the intervals.

Krebs, Böck and Widmer, "An Efficient State Space Model for Joint Tempo and Meter Tracking", ISMIR 2015.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from allin1_core.dbn.checks import frozen, real_number
from allin1_core.dbn.state_space import BarStateSpace, BeatStateSpace, MeterStateSpace


def exponential_transition(
    from_intervals: np.ndarray,
    to_intervals: np.ndarray,
    transition_lambda: float | None,
    threshold: float = float(np.spacing(1)),
    norm: bool = True,
) -> np.ndarray:
    """Probability of each change of interval, ``exp(-lambda * |to / from - 1|)``.

    Parameters
    ----------
    from_intervals, to_intervals : int (num_from,), int (num_to,)
        In frames.
    transition_lambda : float, optional
        The higher, the more a constant tempo is preferred; None allows the same interval only.
    threshold : float
        Probabilities up to this, before normalisation, become 0.
    norm : bool
        Whether the probabilities from one interval are scaled to sum to 1.

    Returns
    -------
    float64 (num_from, num_to)

    Raises
    ------
    ValueError
        If probabilities that are all 0 were to be scaled.
    """
    if transition_lambda is None:
        return np.eye(len(from_intervals), len(to_intervals))
    ratio = to_intervals.astype(np.float64) / from_intervals.astype(np.float64)[:, np.newaxis]
    probability = np.exp(-transition_lambda * np.abs(ratio - 1.0))
    probability[probability <= threshold] = 0
    if norm:
        total = np.sum(probability, axis=1)[:, np.newaxis]
        if not total.all():
            raise ValueError(
                f"to_intervals: none can follow {from_intervals[np.argmin(total)]} frames; expected one whose "
                f"probability is above {threshold:g}"
            )
        probability /= total
    return probability


class SparseTransitions(NamedTuple):
    """All transitions, grouped by the state they lead to (compressed sparse rows).

    ``states[pointers[s]:pointers[s + 1]]`` are the predecessors of state s, ascending, and `probabilities` runs
    parallel to `states`. ``uint32 (num_transitions,)``, ``uint32 (num_states + 1,)``, ``float64
    (num_transitions,)``.
    """

    states: np.ndarray
    pointers: np.ndarray
    probabilities: np.ndarray


class TransitionModel:
    """Transitions of a state space, and between its beats.

    Attributes
    ----------
    state_space : BeatStateSpace, BarStateSpace or MeterStateSpace
    beats_before : tuple of tuple of int
        For each beat, those that lead to it, ascending; by default the one before it, in a circle.
    beat_transitions : tuple of float64 (num_beats_before * num_intervals, num_intervals)
        For each beat, the probability of entering it at an interval (column) from an interval of the beats before
        (row, beat by beat).
    num_states, num_transitions : int
    states, pointers, probabilities, log_probabilities
        See `SparseTransitions`; built on first use, because decoding does not need them.
    """

    state_space: BeatStateSpace | BarStateSpace | MeterStateSpace

    def __init__(
        self, state_space: BeatStateSpace | BarStateSpace, transition_lambda: Sequence[float | None]
    ) -> None:
        self.state_space = state_space
        by_lambda = {
            value: frozen(exponential_transition(state_space.intervals, state_space.intervals, value))
            for value in set(transition_lambda)
        }
        self.beat_transitions = tuple(by_lambda[value] for value in transition_lambda)
        num_beats = len(self.beat_transitions)
        self.beats_before = tuple(((beat - 1) % num_beats,) for beat in range(num_beats))

    @property
    def num_states(self) -> int:
        return self.state_space.num_states

    @property
    def num_transitions(self) -> int:
        return len(self.states)

    @functools.cached_property
    def _sparse(self) -> SparseTransitions:
        space = self.state_space
        of_a_beat = isinstance(space, BeatStateSpace)
        first_states = [space.first_states] if of_a_beat else space.first_states
        last_states = [space.last_states] if of_a_beat else space.last_states
        inside = np.setdiff1d(np.arange(space.num_states), np.concatenate(first_states))
        to, origin, probability = [inside], [inside - 1], [np.ones(len(inside))]
        for first, before, transitions in zip(
            first_states, self.beats_before, self.beat_transitions, strict=True
        ):
            row, to_interval = np.nonzero(transitions)
            to.append(first[to_interval])
            origin.append(np.concatenate([last_states[beat] for beat in before])[row])
            probability.append(transitions[row, to_interval])
        states, origins = np.concatenate(to), np.concatenate(origin)
        order = np.lexsort((origins, states))
        counts = np.bincount(states, minlength=space.num_states)
        return SparseTransitions(
            frozen(origins[order].astype(np.uint32)),
            frozen(np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32)),
            frozen(np.concatenate(probability)[order]),
        )

    @property
    def states(self) -> np.ndarray:
        return self._sparse.states

    @property
    def pointers(self) -> np.ndarray:
        return self._sparse.pointers

    @property
    def probabilities(self) -> np.ndarray:
        return self._sparse.probabilities

    @functools.cached_property
    def log_probabilities(self) -> np.ndarray:
        return frozen(np.log(self.probabilities))


class BeatTransitionModel(TransitionModel):
    """Transitions from a beat to the next one like it.

    Parameters
    ----------
    state_space : BeatStateSpace
    transition_lambda : float or None
        The higher, the more a constant tempo is preferred; None forbids a change.
    """

    def __init__(self, state_space: BeatStateSpace, transition_lambda: float | None) -> None:
        self.transition_lambda = check_lambda(transition_lambda)
        super().__init__(state_space, [self.transition_lambda])


class BarTransitionModel(TransitionModel):
    """Transitions between the beats of a bar, and from its last beat to its first.

    Parameters
    ----------
    state_space : BarStateSpace
    transition_lambda : float, None or sequence of them
        The higher, the more a constant tempo is preferred; None forbids a change. A sequence holds one value for
        each beat, for the transition into it: ``[100, None, None]`` lets the tempo change at the bar line only.

    Raises
    ------
    ValueError
        If a sequence has not one value for each beat, or a value is negative or not finite.
    """

    def __init__(
        self,
        state_space: BarStateSpace,
        transition_lambda: float | Sequence[float | None] | None,
    ) -> None:
        if isinstance(transition_lambda, (list, tuple)):
            values = list(transition_lambda)
        else:
            values = [transition_lambda] * state_space.num_beats
        if len(values) != state_space.num_beats:
            raise ValueError(
                f"transition_lambda: {len(values)} values; expected one, or one for each of the "
                f"{state_space.num_beats} beats of the state space"
            )
        self.transition_lambda = [check_lambda(value) for value in values]
        super().__init__(state_space, self.transition_lambda)


class MeterTransitionModel(TransitionModel):
    """Transitions of bars of several lengths, with changes between them at the bar lines.

    From the last beat of a bar a path goes to the first of a bar of the same length with probability 1 - c, and to one
    of another length with c times that length's share of the weight of all others; the tempo changes as it does into
    that beat in bars of one length.

    Parameters
    ----------
    state_space : MeterStateSpace
    transition_lambda : sequence of float, None or sequence of them
        For each bar length, as of `BarTransitionModel`.
    change_prob : float
        c: probability that the bar length changes, at each bar line.
    weights : sequence of float
        Of each bar length, at least 0.
    """

    def __init__(
        self,
        state_space: MeterStateSpace,
        transition_lambda: Sequence[float | Sequence[float | None] | None],
        change_prob: float,
        weights: Sequence[float],
    ) -> None:
        self.state_space = state_space
        bars = [
            BarTransitionModel(bar, value)
            for bar, value in zip(state_space.bars, transition_lambda, strict=True)
        ]
        self.transition_lambda = [bar.transition_lambda for bar in bars]
        changes = meter_changes(np.asarray(weights, dtype=np.float64), change_prob)
        lengths = [bar.num_beats for bar in state_space.bars]
        lasts = np.cumsum(lengths) - 1
        transitions, before = [], []
        for bar, probability, last in zip(bars, changes.T, lasts, strict=True):
            leading = np.flatnonzero(probability)
            entered = [probability[one] * bar.beat_transitions[0] for one in leading]
            transitions += [frozen(np.concatenate(entered)), *bar.beat_transitions[1:]]
            before += [tuple(lasts[leading].tolist())]
            before += [
                (beat - 1,) for beat in range(int(last) - len(bar.beat_transitions) + 2, int(last) + 1)
            ]
        self.beat_transitions, self.beats_before = tuple(transitions), tuple(before)


def meter_changes(weights: np.ndarray, change_prob: float) -> np.ndarray:
    """Probability of each bar length (column) after each (row), ``float64 (num_meters, num_meters)``."""
    others = weights * (1 - np.eye(len(weights)))
    totals = np.maximum(others.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return change_prob * others / totals + np.diag(np.full(len(weights), 1 - change_prob))


def check_lambda(value: float | None) -> float | None:
    """`transition_lambda` of one beat as a float; `ValueError` if it is neither None nor a number of at least 0."""
    if value is None:
        return None
    expected = "a number of at least 0, or None for no change"
    return float(real_number("transition_lambda", value, expected, lambda number: number >= 0))
