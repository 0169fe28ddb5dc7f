"""The exact Viterbi recursion in numpy: the algorithm of `viterbi_kernel.h`, for where that is not compiled.

Its derivation stands there. Here a block of frames is an axis of the arrays, and so are the chains: the entries of all
chains are carried to their exits together, one position of a chain after the other.
"""

from __future__ import annotations

import numpy as np

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

    def carry(self, frame: int, entries: np.ndarray) -> np.ndarray:
        """Values of ``entries (beats, intervals, frames)``, made from `frame` on, at the chains' exits; in place."""
        num_entries, longest_border = entries.shape[-1], self.chains.borders.max()
        for position in range(1, self.pad):
            first = self.pad + frame + position
            seen = self.densities[:, first : first + num_entries]
            longer = int(np.searchsorted(self.chains.intervals, position, side="right"))
            if position < longest_border:
                within = position < self.chains.borders[:, longer:]
                entries[:, longer:] += seen[np.where(within, self.inside_rows[:, np.newaxis], 0)]
            else:
                entries[:, longer:] += seen[0]
        return entries

    def enter(self, frame: int, origins: np.ndarray) -> np.ndarray:
        """Best entries ``(beats, intervals, step)`` from `frame` on; their origins go to the array of that shape."""
        leaving = self.exits[:, :, : self.step].reshape(-1, self.step)
        seen = self.densities[self.entry_rows, self.pad + frame : self.pad + frame + self.step]
        seen = np.repeat(seen, self.chains.num_intervals, axis=0)
        best = np.full(seen.shape, -np.inf)
        origins = origins.reshape(best.shape)
        first, stop = self.chains.offsets[:-1], self.chains.offsets[1:]
        for nth in range(self.chains.max_candidates):
            # A chain with fewer is given its last one again, which is never better than before.
            candidate = np.minimum(first + nth, stop - 1)
            before = self.chains.origins[candidate, np.newaxis]
            value = leaving[before[:, 0]] + self.chains.log_transitions[candidate, np.newaxis]
            value += seen
            better = value > best if nth else np.True_
            np.copyto(best, value, where=better)
            np.copyto(origins, before, where=better)
        return best.reshape(*self.chains.borders.shape, self.step)

    def run(self, log_initial: np.ndarray, values: np.ndarray | None) -> tuple[np.ndarray, float]:
        lengths = self.chains.intervals
        beats, intervals = self.chains.borders.shape
        starts = np.cumsum(lengths) - lengths
        # The state at position p is an entry at frame -1 - p.
        initial = log_initial.reshape(beats, -1)
        entries = np.zeros((beats, intervals, self.pad))
        for interval, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            entries[:, interval, self.pad - length :] = initial[:, start : start + length][:, ::-1]
        carried = self.carry(-self.pad, entries)
        for interval, length in enumerate(lengths):
            self.exits[:, interval, :length] = carried[:, interval, self.pad - length :]
        num_blocks = -(-self.num_frames // self.step)
        origins = np.empty((num_blocks, beats, intervals, self.step), dtype=np.int32)
        for frame in range(0, self.num_frames, self.step):
            entries = self.enter(frame, origins[frame // self.step])
            carried = self.carry(frame, entries)
            for interval, length in enumerate(lengths):
                self.exits[:, interval, length : length + self.step] = carried[:, interval]
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
            block, column = divmod(entered, self.step)
            beat, interval = divmod(int(origins[block, beat, interval, column]), intervals)
            position = int(lengths[interval]) - 1
            frame = entered - 1
        return path, log_probability
