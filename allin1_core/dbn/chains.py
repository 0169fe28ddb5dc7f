"""The hidden Markov model in the layout of the Viterbi kernels: chains of states, and the candidates for entering each.

A chain is one beat of the bar at one interval. Nothing happens within it, so a model is described by the chains'
lengths, by which densities their states see, and by the candidates of each chain's first state.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from allin1_core.dbn.checks import frozen
from allin1_core.dbn.transition_model import TransitionModel


@dataclasses.dataclass(frozen=True, eq=False)
class Chains:
    """The chains of a bar model; chain ``beat * num_intervals + interval``, in the order of the states.

    Attributes
    ----------
    intervals : int32 (num_intervals,)
        States of a chain, ascending.
    borders : int32 (num_beats, num_intervals)
        How many of these, from the first on, see the beat's density; the others see that of no beat.
    offsets : int64 (num_beats * num_intervals + 1,)
        The candidates of chain c are ``offsets[c]:offsets[c + 1]`` of the next two.
    origins : int32 (num_candidates,)
        The chain whose last state is the candidate; ascending for each chain.
    log_transitions : float64 (num_candidates,)
    beat_columns : int32 (num_beats,)
        Column of the log densities that the states within the border see; the others see column 0.
    numbers : int32 (num_beats,)
        Position of each beat in its bar, from 1.
    max_candidates : int
        The most that a chain has.
    """

    intervals: np.ndarray
    borders: np.ndarray
    offsets: np.ndarray
    origins: np.ndarray
    log_transitions: np.ndarray
    beat_columns: np.ndarray
    numbers: np.ndarray
    max_candidates: int

    @property
    def num_beats(self) -> int:
        return len(self.borders)

    @property
    def num_intervals(self) -> int:
        return len(self.intervals)

    @property
    def num_states(self) -> int:
        return self.num_beats * int(self.intervals.sum())


def make_chains(transition_model: TransitionModel, pointers: np.ndarray) -> Chains:
    """Chains of a transition and an observation model.

    Parameters
    ----------
    transition_model : TransitionModel
    pointers : uint32 (num_states,)
        See `allin1_core.dbn.observation_model.ObservationModel`.

    Raises
    ------
    ValueError
        If a beat's states do not see one column of densities first and column 0 after that.
    """
    intervals, beats_before = transition_model.state_space.intervals, transition_model.beats_before
    num_beats, num_intervals = len(beats_before), len(intervals)
    starts = np.concatenate([[0], np.cumsum(intervals)[:-1]])
    borders = np.empty((num_beats, num_intervals), dtype=np.int32)
    beat_columns = np.empty(num_beats, dtype=np.int32)
    for beat, seen in enumerate(pointers.reshape(num_beats, -1)):
        beat_columns[beat] = seen[0]
        borders[beat] = np.add.reduceat(seen != 0, starts)
        within = np.arange(seen.size) - np.repeat(starts, intervals) < np.repeat(borders[beat], intervals)
        if not np.array_equal(seen, np.where(within, seen[0], 0)) or seen[0] == 0:
            raise ValueError(
                f"pointers: the states of beat {beat + 1} see {np.unique(seen)}; expected one column of densities "
                "from the start of the beat on, and column 0 after that"
            )
    counts, origins, transitions = [], [], []
    for before, matrix in zip(beats_before, transition_model.beat_transitions, strict=True):
        to_interval, row = np.nonzero(matrix.T)
        counts.append(np.bincount(to_interval, minlength=num_intervals))
        origins.append(np.array(before)[row // num_intervals] * num_intervals + row % num_intervals)
        transitions.append(matrix[row, to_interval])
    per_chain = np.concatenate(counts)
    positions = transition_model.state_space.state_positions.reshape(num_beats, -1)
    return Chains(
        intervals=frozen(intervals.astype(np.int32)),
        borders=frozen(borders),
        offsets=frozen(np.concatenate([[0], np.cumsum(per_chain)]).astype(np.int64)),
        origins=frozen(np.concatenate(origins).astype(np.int32)),
        log_transitions=frozen(np.log(np.concatenate(transitions))),
        beat_columns=frozen(beat_columns),
        numbers=frozen(positions[:, 0].astype(np.int32) + 1),
        max_candidates=int(per_chain.max()),
    )
