"""State spaces of a beat, a bar, and bars of several lengths: position and tempo as states that a path moves through.

A beat of interval L (frames) has L states, and a path stays in each for one frame; the tempo can change only
between beats. States are numbered beat by beat, within a beat interval by interval, from shortest to longest.

Krebs, Böck and Widmer, "An Efficient State Space Model for Joint Tempo and Meter Tracking", ISMIR 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from allin1_core.dbn.checks import frozen, positive_integer, positive_number

# By default a bar of four has 14,876.
_MOST_STATES = 1 << 26


def _check_number(num_states: float) -> None:
    """Raise `ValueError` before there are more states than memory may hold."""
    if num_states > _MOST_STATES:
        raise ValueError(
            f"{num_states:.3g} states; expected at most {_MOST_STATES}. Lower fps (frames a second, not samples), the "
            "number of tempi or the bar lengths, or raise min_bpm"
        )


def _intervals(min_interval: float, max_interval: float, num_intervals: int | None) -> np.ndarray:
    """Beat intervals in whole frames, ascending ``int64 (num_intervals,)``."""
    linear = np.arange(np.round(min_interval), np.round(max_interval) + 1)
    first, last = np.log2(min_interval), np.log2(max_interval)
    # The grid's ends may round to other frames than the intervals that they stand for, of which it then has fewer.
    shortest, longest = np.round(np.logspace(first, last, 2, base=2))
    if num_intervals is None or num_intervals >= len(linear) or num_intervals > longest - shortest + 1:
        return linear.astype(np.int64)
    # Rounding merges neighbours of the logarithmic grid, so the grid is refined until enough distinct ones are left.
    grid_size = num_intervals
    while True:
        intervals = np.unique(np.round(np.logspace(first, last, grid_size, base=2)))
        if len(intervals) >= num_intervals:
            return intervals.astype(np.int64)
        grid_size += 1


class BeatStateSpace:
    """State space of one beat.

    Parameters
    ----------
    min_interval, max_interval : float
        Shortest and longest beat interval, in frames; rounded to whole frames.
    num_intervals : int, optional
        Number of intervals, spaced logarithmically; by default (and if there are not that many) every whole
        number of frames between the two.

    Attributes
    ----------
    num_states, num_intervals : int
    intervals : int64 (num_intervals,)
        In frames, ascending.
    state_positions : float64 (num_states,)
        Position within the beat, 0 to 1 (exclusive).
    state_intervals : int64 (num_states,)
        Interval of each state, in frames.
    first_states, last_states : int64 (num_intervals,)
        First and last state of each interval.

    Raises
    ------
    ValueError
        If an interval is shorter than a frame, the shortest is longer than the longest, or states are more than memory
        may hold.
    """

    def __init__(self, min_interval: float, max_interval: float, num_intervals: int | None = None) -> None:
        positive_number("min_interval", min_interval, "frames")
        positive_number("max_interval", max_interval, "frames")
        if np.round(min_interval) < 1:
            raise ValueError(
                f"min_interval: {min_interval:g} frames; expected at least one frame. "
                "Lower max_bpm or raise fps"
            )
        if min_interval > max_interval:
            raise ValueError(
                f"min_interval: {min_interval:g} frames is more than max_interval, {max_interval:g}; "
                "expected min_bpm <= max_bpm"
            )
        if num_intervals is not None:
            num_intervals = positive_integer("num_intervals", num_intervals)
        _check_number(max_interval)
        self.intervals = frozen(_intervals(min_interval, max_interval, num_intervals))
        self.num_intervals = len(self.intervals)
        self.num_states = int(self.intervals.sum())
        _check_number(self.num_states)
        ends = np.cumsum(self.intervals)
        self.first_states = frozen(ends - self.intervals)
        self.last_states = frozen(ends - 1)
        positions = [np.linspace(0, 1, interval, endpoint=False) for interval in self.intervals]
        self.state_positions = frozen(np.concatenate(positions))
        self.state_intervals = frozen(np.repeat(self.intervals, self.intervals))


class BarStateSpace:
    """State space of a bar: `num_beats` beats, one after the other.

    Parameters
    ----------
    num_beats : int
        Beats in a bar.
    min_interval, max_interval, num_intervals
        As of `BeatStateSpace`.

    Attributes
    ----------
    num_beats, num_states, num_intervals : int
    intervals : int64 (num_intervals,)
        Intervals of every beat, in frames, ascending.
    state_positions : float64 (num_states,)
        Position within the bar in beats, 0 to `num_beats` (exclusive).
    state_intervals : int64 (num_states,)
        Interval of each state, in frames.
    first_states, last_states : list of int64 (num_intervals,)
        For each beat, first and last state of each interval.

    Raises
    ------
    ValueError
        As `BeatStateSpace`, or if `num_beats` is not a positive integer.
    """

    def __init__(
        self, num_beats: int, min_interval: float, max_interval: float, num_intervals: int | None = None
    ) -> None:
        self.num_beats = positive_integer("num_beats", num_beats)
        beat = BeatStateSpace(min_interval, max_interval, num_intervals)
        self.intervals = beat.intervals
        self.num_intervals = beat.num_intervals
        self.num_states = self.num_beats * beat.num_states
        _check_number(self.num_states)
        beats = range(self.num_beats)
        self.state_positions = frozen(np.concatenate([beat.state_positions + number for number in beats]))
        self.state_intervals = frozen(np.tile(beat.state_intervals, self.num_beats))
        self.first_states = [frozen(beat.first_states + number * beat.num_states) for number in beats]
        self.last_states = [frozen(beat.last_states + number * beat.num_states) for number in beats]


class MeterStateSpace:
    """State space of bars of several lengths, after which bars of any other may follow.

    Parameters
    ----------
    meters : sequence of int
        Bar lengths, in beats.
    min_interval, max_interval, num_intervals
        As of `BeatStateSpace`.

    Attributes
    ----------
    bars : list of BarStateSpace
        One for each bar length; their states stand one after the other.
    state_meters : int64 (num_states,)
        Length of each state's bar, in beats.
    num_states, num_intervals, intervals, state_positions, state_intervals, first_states, last_states
        As of `BarStateSpace`, of all bars; positions are those within a state's bar.

    Raises
    ------
    ValueError
        As `BarStateSpace`.
    """

    def __init__(
        self,
        meters: Sequence[int],
        min_interval: float,
        max_interval: float,
        num_intervals: int | None = None,
    ) -> None:
        # But for the positions the states are those of one bar of all these beats.
        whole = BarStateSpace(sum(meters), min_interval, max_interval, num_intervals)
        self.bars = [BarStateSpace(meter, min_interval, max_interval, num_intervals) for meter in meters]
        self.num_states, self.num_intervals = whole.num_states, whole.num_intervals
        self.intervals, self.state_intervals = whole.intervals, whole.state_intervals
        self.first_states, self.last_states = whole.first_states, whole.last_states
        self.state_positions = frozen(np.concatenate([bar.state_positions for bar in self.bars]))
        self.state_meters = frozen(np.repeat(meters, [bar.num_states for bar in self.bars]))
