"""The exact Viterbi recursion in numpy: the algorithm of `viterbi_kernel.h`, for where that is not compiled.

Its derivation stands there. Here a block of frames is an axis of the arrays, and ``numpy.add.accumulate``, which
adds one after the other, carries the entries of a block to their exits.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from allin1_core.dbn.chains import Chains

_MAX_FRAMES_IN_BLOCK = 32


def viterbi(
    chains: Chains,
    densities: np.ndarray,
    entry_rows: np.ndarray,
    inside_rows: np.ndarray,
    log_initial: np.ndarray,
    last: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
    """Best path through a bar model.

    Parameters
    ----------
    chains : Chains
    densities : float64 (num_rows, num_frames)
        Log densities, no NaN, at least one frame. Row 0 is seen by the states beyond the border.
    entry_rows, inside_rows : int32 (num_beats,)
        Row of `densities` that a beat's first states see, and its other states within the border.
    log_initial : float64 (num_states,)
        Log probability of each state before the first frame.
    last : float64 (num_states,), optional
        Is filled with the log probability of the best path to each state in the last frame: what to go on from.

    Returns
    -------
    path : uint32 (num_frames,)
        State in each frame; not meaningful if the log probability is -inf.
    log_probability : float
    """
    return _Recursion(chains, densities, entry_rows, inside_rows).run(log_initial, last)


def dense_viterbi(
    log_transitions: np.ndarray, densities: np.ndarray, initial: float
) -> tuple[np.ndarray, float]:
    """Best path where there are few states; of equals the first wins.

    Parameters
    ----------
    log_transitions : float64 (num_states, num_states)
        From row to column.
    densities : float64 (num_frames, num_states)
        Log densities, no NaN, at least one frame.
    initial : float
        Log probability of each state before the first frame.

    Returns
    -------
    path : int64 (num_frames,)
    log_probability : float
    """
    value = np.full(len(log_transitions), initial)
    origins = np.empty(densities.shape, dtype=np.int64)
    for frame, density in enumerate(densities):
        # Compared with the density added, which can round two values to one.
        candidates = (value[:, np.newaxis] + log_transitions) + density
        origins[frame] = candidates.argmax(axis=0)
        value = candidates.max(axis=0)
    state = int(value.argmax())
    log_probability = float(value[state])
    path = np.empty(len(densities), dtype=np.int64)
    for frame in range(len(path) - 1, -1, -1):
        path[frame] = state
        state = int(origins[frame, state])
    return path, log_probability


class _Recursion:
    """Buffers of one decoding. Column u of `exits` is the value that leaves each chain in frame u - 1."""

    def __init__(
        self, chains: Chains, densities: np.ndarray, entry_rows: np.ndarray, inside_rows: np.ndarray
    ) -> None:
        self.chains = chains
        self.num_rows, self.num_frames = densities.shape
        self.pad = int(chains.intervals[-1])
        self.step = min(int(chains.intervals[0]), _MAX_FRAMES_IN_BLOCK)
        padded = np.zeros((self.num_rows, self.num_frames + 2 * self.pad + self.step))
        padded[:, self.pad : self.pad + self.num_frames] = densities
        self.densities = padded
        self.entry_rows, self.inside_rows = entry_rows, inside_rows
        beats, intervals = chains.borders.shape
        # Exits are held for as long as the longest chain; a row of them is used like a ring, moved block by block.
        self.exits = np.full((beats, intervals, self.pad + 2 * self.step), -np.inf)

    def carry(self, beat: int, interval: int, frame: int, entries: np.ndarray) -> np.ndarray:
        """Values at the exits of ``entries (num_frames,)`` made in consecutive frames from `frame` on."""
        length, border = int(self.chains.intervals[interval]), int(self.chains.borders[beat, interval])
        terms = np.empty((length, len(entries)))
        terms[0] = entries
        for row, start, stop in ((self.inside_rows[beat], 1, border), (0, max(border, 1), length)):
            if stop > start:
                first = self.pad + frame + start
                seen = self.densities[row, first : first + stop - start + len(entries) - 1]
                terms[start:stop] = sliding_window_view(seen, len(entries))
        return np.add.accumulate(terms, axis=0)[-1]

    def run(self, log_initial: np.ndarray, values: np.ndarray | None) -> tuple[np.ndarray, float]:
        lengths = self.chains.intervals
        beats, intervals = self.chains.borders.shape
        starts = np.cumsum(lengths) - lengths
        initial = log_initial.reshape(beats, -1)
        for beat in range(beats):
            for interval, (start, length) in enumerate(zip(starts, lengths, strict=True)):
                entries = initial[beat, start : start + length][::-1]
                self.exits[beat, interval, :length] = self.carry(beat, interval, -int(length), entries)
        num_blocks = -(-self.num_frames // self.step)
        origins = np.empty((num_blocks * self.step, beats, intervals), dtype=np.int32)
        for frame in range(0, self.num_frames, self.step):
            leaving = self.exits[:, :, : self.step].reshape(beats * intervals, self.step)
            first = self.pad + frame
            for beat in range(beats):
                seen = self.densities[self.entry_rows[beat], first : first + self.step]
                for interval in range(intervals):
                    chain = beat * intervals + interval
                    found = slice(self.chains.offsets[chain], self.chains.offsets[chain + 1])
                    before = self.chains.origins[found]
                    candidates = leaving[before] + self.chains.log_transitions[found, np.newaxis]
                    candidates += seen
                    best = candidates.argmax(axis=0)
                    origins[frame : frame + self.step, beat, interval] = before[best]
                    entries = candidates[best, np.arange(self.step)]
                    length = int(lengths[interval])
                    carried = self.carry(beat, interval, frame, entries)
                    self.exits[beat, interval, length : length + self.step] = carried
            left = min(self.step, self.num_frames - frame)
            self.exits[:, :, : -self.step] = self.exits[:, :, left : left - self.step or None]
        return self.backtrack(starts, origins, values)

    def backtrack(
        self, starts: np.ndarray, origins: np.ndarray, values: np.ndarray | None
    ) -> tuple[np.ndarray, float]:
        """The best last state, the first of equals, and the path that led to it."""
        lengths = self.chains.intervals
        beats, intervals = self.chains.borders.shape
        states_per_beat = int(lengths.sum())
        last = np.concatenate(
            [self.exits[b, i, : lengths[i]][::-1] for b in range(beats) for i in range(intervals)]
        )
        if values is not None:
            values[:] = last
        state = int(last.argmax())
        log_probability = float(last[state])
        path = np.zeros(self.num_frames, dtype=np.uint32)
        beat, within = divmod(state, states_per_beat)
        interval = int(np.searchsorted(starts, within, side="right")) - 1
        position = within - int(starts[interval])
        frame = self.num_frames - 1
        while frame >= 0 and log_probability > -np.inf:
            chain_start = beat * states_per_beat + int(starts[interval])
            entered = max(frame - position, 0)
            path[entered : frame + 1] = np.arange(
                chain_start + position - (frame - entered), chain_start + position + 1
            )
            if frame - position < 0:
                break
            beat, interval = divmod(int(origins[entered, beat, interval]), intervals)
            position = int(lengths[interval]) - 1
            frame = entered - 1
        return path, log_probability
