"""Posterior of the decoder: how probable it is that a beat starts in a frame, by all frames (forward-backward).

A chain c is one beat of the bar at one tempo, L states passed one a frame; only its first state has a choice (see
`viterbi_kernel.h`). So the recursions of forward and backward go from beat to beat, too. With d_p(t) the density that
position p sees, T(a, c) the probability of entering chain c after chain a, and G_c(t) the product of d_1(t + 1) to
d_{L-1}(t + L - 1), 1 beyond the last frame,

    entry:   E_c(t) = d_0(t) sum_a X_a(t - 1) T(a, c)          exit:    X_c(t + L - 1) = E_c(t) G_c(t)
    future:  B_c(t) = G_c(t) Y_c(t + L - 1)                    after:   Y_a(t) = sum_c T(a, c) d_0(t + 1) B_c(t + 1)

where Y is 1 from the last frame on. A state at position p before the first frame is an entry in frame -1 - p with its
initial probability. Then E_c(t) B_c(t) / Z is the probability that chain c is entered in frame t; Z, the probability of
all that was seen, is the sum of the states after the last frame.

All are kept as logarithms. A sum over predecessors is a product of matrices of what is left when the greatest term of a
frame is taken out; where that would round a sum to nothing, it is made term by term. G is a difference of prefix sums
in which densities of 0 are counted instead of added. Entries of as many frames as the shortest interval has do not
depend on each other, so a block of that many is computed at once. Backward needs the entries of the forward pass: they
are made again, part by part, from the exits at the part's beginning, so that memory does not grow with all states of
all frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from allin1_core.dbn.hidden_markov_model import HiddenMarkovModel
from allin1_core.dbn.metrical import BEAT_TOLERANCE
from allin1_core.dbn.viterbi import kernel_rows

_FRAMES_IN_PART = 4096
# A sum of terms up to 1 that is less than this has lost digits to underflow.
_LEAST_SUM = 1e-290


def confidences(
    models: Sequence[HiddenMarkovModel],
    log_weights: np.ndarray,
    activations: np.ndarray,
    required: np.ndarray | None,
    frames: np.ndarray,
    fps: float,
) -> np.ndarray:
    """Probability that a beat, and that a downbeat, is where each of some beats is.

    Parameters
    ----------
    models : sequence of HiddenMarkovModel
        Alternatives, such as bars of three and of four.
    log_weights : float64 (num_models,)
        Log of the prior weight of each.
    activations : float (num_frames, ...)
        Checked; at least one frame.
    required : int (num_frames,), optional
        See `allin1_core.dbn.viterbi.viterbi`.
    frames : int64 (num_beats,)
        Where the beats are; outside of the activations there is none.
    fps : float

    Returns
    -------
    float64 (num_beats, 2)
        That a beat starts within 0.07 s, and that a downbeat does; 0 if no path is possible. Where beats may follow
        each other sooner than that on both sides, within half of the shortest interval.
    """
    found = [BeatPosterior(model, activations, required) for model in models]
    evidence = np.array([one.log_evidence for one in found]) + log_weights
    result = np.zeros((len(frames), 2))
    if evidence.max() == -np.inf:
        return result
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    for one, weight in zip(found, weights, strict=True):
        starts = one.starts()
        is_first = one.chains.numbers == 1
        shortest = int(one.chains.intervals[0])
        after = min(round(BEAT_TOLERANCE * fps), (shortest - 1) // 2)
        # A beat is put anywhere into the first part of its interval, so it may have started before.
        before = max(after, int(one.chains.borders.max()) - 1)
        for column, probability in enumerate((starts.sum(axis=1), starts[:, is_first].sum(axis=1))):
            total = np.concatenate([[0.0], np.cumsum(probability)])
            first, last = (
                np.clip(frames + one.before + shift, 0, len(probability)) for shift in (-before, after + 1)
            )
            result[:, column] += weight * (total[last] - total[first])
    return np.clip(result, 0.0, 1.0)


class BeatPosterior:
    """The forward pass over a model; `starts` goes back.

    Parameters
    ----------
    model : HiddenMarkovModel
    activations, required
        As of `confidences`.

    Attributes
    ----------
    before : int
        Frames of the longest interval.
    log_evidence : float
        Log probability of all that was seen; -inf if no path is possible.
    """

    def __init__(
        self, model: HiddenMarkovModel, activations: np.ndarray, required: np.ndarray | None = None
    ) -> None:
        self.chains = model.chains
        self._transitions = model.transition_model.beat_transitions
        self._before = [np.array(before) for before in model.transition_model.beats_before]
        self._lengths = np.tile(self.chains.intervals, self.chains.num_beats)
        self.before = int(self._lengths.max())
        self._step = int(self._lengths.min())
        self._num_frames = len(activations)
        rows, entry_rows, inside_rows = kernel_rows(
            self.chains, model.observation_model.log_densities(activations), required
        )
        self._entering = np.pad(rows, ((0, 0), (0, self._step)))[entry_rows]
        # Chains of equal length see the same, but for the row that is seen within the border.
        borders = np.maximum(self.chains.borders.ravel(), 1)
        seen = np.stack([np.repeat(inside_rows, self.chains.num_intervals), borders, self._lengths], axis=1)
        self._seen, seen_by = np.unique(seen, axis=0, return_inverse=True)
        self._seen_by = seen_by.reshape(-1)
        padded = np.pad(rows, ((0, 0), (self.before, 2 * self.before + self._step)))
        impossible = ~np.isfinite(padded)  # inf in a row that no state sees
        self._sums = [
            np.pad(np.cumsum(values, axis=1), ((0, 0), (1, 0)))
            for values in (np.where(impossible, 0.0, padded), impossible)
        ]
        exits = self._initial_exits(model.log_initial)
        self._parts = []
        for first in range(0, self._num_frames, _FRAMES_IN_PART):
            self._parts.append((first, exits))
            exits = self._forward(first, exits)[1]
        last = exits[np.arange(self.before) < self._lengths[:, np.newaxis]]
        greatest = last.max()
        self.log_evidence = float(greatest)
        if greatest > -np.inf:
            self.log_evidence += float(np.log(np.exp(last - greatest).sum()))

    def _passages(self, first: int, num_frames: int) -> np.ndarray:
        """log G_c(t) of frames from `first` on, ``float64 (num_chains, num_frames)``."""
        start = self.before + first
        result = np.empty((len(self._seen), num_frames))
        for (inside, border, length), row in zip(self._seen.tolist(), result, strict=True):
            ranges = (inside, 1, border), (0, border, length)
            total, zeros = (
                sum(
                    sums[row, start + stop :][:num_frames] - sums[row, start + begin :][:num_frames]
                    for row, begin, stop in ranges
                )
                for sums in self._sums
            )
            row[:] = np.where(zeros > 0, -np.inf, total)
        return result[self._seen_by]

    def _initial_exits(self, log_initial: np.ndarray) -> np.ndarray:
        """Exits from frame -1 on, of what the states hold before frame 0: ``float64 (num_chains, longest)``."""
        exits = np.full((len(self._lengths), self.before), -np.inf)
        passing = self._passages(-self.before, self.before)
        ends = np.cumsum(self._lengths)
        for chain, (length, end) in enumerate(zip(self._lengths, ends, strict=True)):
            # Position p, an entry in frame -1 - p, leaves in frame length - 2 - p.
            exits[chain, :length] = log_initial[end - length : end][::-1] + passing[chain, -length:]
        return exits

    def _shifted(self, width: int) -> np.ndarray:
        """Where a block's frames lie in rows of that width, each later by its chain's length."""
        places = np.arange(len(self._lengths)) * width + self._lengths
        return places[:, np.newaxis] + np.arange(self._step)

    def _forward(self, first: int, exits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Entries of a part's frames, and the exits from its last frame on."""
        num_frames = min(_FRAMES_IN_PART, self._num_frames - first)
        held = np.full((len(exits), self.before + num_frames + self._step), -np.inf)
        held[:, : self.before] = exits  # column u is frame first + u - 1
        passing = self._passages(first, num_frames + self._step)
        flat, leave_at = held.reshape(-1), self._shifted(held.shape[1])
        entries = np.empty((len(exits), num_frames + self._step))
        of_beat = held.reshape(self.chains.num_beats, self.chains.num_intervals, -1)
        for frame in range(0, num_frames, self._step):
            leaving = of_beat[:, :, frame : frame + self._step]
            entered = [
                _log_product(transitions.T, leaving[before].reshape(-1, self._step))
                for transitions, before in zip(self._transitions, self._before, strict=True)
            ]
            at = first + frame
            made = np.stack(entered) + self._entering[:, np.newaxis, at : at + self._step]
            made = made.reshape(-1, self._step)
            entries[:, frame : frame + self._step] = made
            flat[leave_at + frame] = made + passing[:, frame : frame + self._step]
        return entries[:, :num_frames], held[:, num_frames : num_frames + self.before]

    def starts(self) -> np.ndarray:
        """Probability that each beat of the bar starts in each frame.

        Returns
        -------
        float64 (before + num_frames, num_beats)
            From `before` frames before the first on, as many as the longest interval has: of these, that the path is in
            that beat when the frames begin, which sums to 1. All 0 if no path is possible.
        """
        result = np.zeros((self.before + self._num_frames, self.chains.num_beats))
        if self.log_evidence == -np.inf:
            return result
        # Of exits in the frames from a part's last one on, what follows; from the last frame of all on nothing, 1.
        after = np.zeros((len(self._lengths), self.before + self._step))
        for first, exits in reversed(self._parts):
            entries = self._forward(first, exits)[0]
            num_frames = entries.shape[1]
            probability, after = self._backward(first, entries, after)
            result[self.before + first : self.before + first + num_frames] = probability
        # What leaves in frame k - 1 of what the states held before the first frame started in frame k - length.
        held = np.exp(self._parts[0][1] + after[:, : self.before] - self.log_evidence)
        for chain, length in enumerate(self._lengths.tolist()):
            beat = chain // self.chains.num_intervals
            result[self.before - length : self.before, beat] += held[chain, :length]
        return result

    def _backward(self, first: int, entries: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of starts in a part's frames, and what follows exits from the frame before it on."""
        num_chains, num_frames = entries.shape
        shape = self.chains.num_beats, self.chains.num_intervals
        # Column u is frame first + u - 1.
        held = np.concatenate([np.zeros((num_chains, num_frames)), after], axis=1)
        of_beat = held.reshape(*shape, -1)
        passing = self._passages(first, num_frames)
        flat, leave_at = held.reshape(-1), self._shifted(held.shape[1])
        result = np.empty((num_frames, self.chains.num_beats))
        for stop in range(num_frames, 0, -self._step):
            start = max(stop - self._step, 0)
            at, width = first + start, stop - start
            future = flat[(leave_at + start)[:, :width]] + passing[:, start:stop]
            started = np.exp(entries[:, start:stop] + future - self.log_evidence)
            result[start:stop] = started.reshape(*shape, width).sum(axis=1).T
            seen = future.reshape(*shape, width) + self._entering[:, np.newaxis, at : at + width]
            leaving = np.full((*shape, width), -np.inf)
            for beat, (transitions, before) in enumerate(zip(self._transitions, self._before, strict=True)):
                followed = _log_product(transitions, seen[beat]).reshape(len(before), -1, width)
                leaving[before] = np.logaddexp(leaving[before], followed)
            of_beat[:, :, start:stop] = leaving
        return result, held[:, : self.before + self._step]


def _log_product(matrix: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """Log of ``matrix @ exp(logs)``, with no more loss than that of a product of numbers near 1."""
    greatest = logs.max(axis=0)
    greatest[greatest == -np.inf] = 0.0
    sums = matrix @ np.exp(logs - greatest)
    with np.errstate(divide="ignore"):
        result = np.log(sums) + greatest
    if sums.min() < _LEAST_SUM:
        for row, column in np.argwhere(sums < _LEAST_SUM):
            leads = matrix[row] > 0
            terms = logs[leads, column] + np.log(matrix[row, leads])
            result[row, column] = np.logaddexp.reduce(terms, initial=-np.inf)
    return result
