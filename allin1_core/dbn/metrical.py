"""Metrical structure: the decoder's input from probabilities, beats from its output, and their tempo.

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
from numpy.lib.stride_tricks import sliding_window_view

from allin1_core.dbn.checks import check_activations, check_times

BEATS_PER_BAR = (3, 4)
FRAMES_PER_SECOND = 100
# Seconds within which two beats are the same: the window of the field's beat F-measure.
BEAT_TOLERANCE = 0.07

_SMALLEST_BEAT = np.float32(1e-8)

# Two bars of four. Of fewer beats a wrong one cannot be told from the right ones, and rounding to frames alone may
# move the tempo by more than half a percent.
MIN_BEATS_FOR_TEMPO = 8
# Beats that a local tempo is taken over: four bars of four. That rounds it to steps of 0.01 s in 16 periods, which
# are 0.5 BPM at 215.
_LOCAL_BEATS = 16
# Intervals whose median is the period at their middle.
_LOCAL_INTERVALS = 9
# Ratios of a period to the typical one where beats are left out or doubled for a while.
_LEVELS = np.array([1 / 3, 1 / 2, 1, 2, 3])
# How far from its place on the grid a beat may lie, in periods.
_OFF_THE_GRID = 0.25
# Pairs of beats grow with the square of their number: this many give 130,000.
_MOST_FITTED_IN_PAIRS = 512


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

    Raises
    ------
    ValueError
        If the two differ in length, have another shape, or hold what is no probability.
    """
    beat = check_activations(beat, None).astype(np.float32, copy=False)
    downbeat = check_activations(downbeat, None).astype(np.float32, copy=False)
    if len(beat) != len(downbeat):
        raise ValueError(f"beat: {len(beat)} frames, downbeat: {len(downbeat)}; expected as many")
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


def most_frequent_tempo(beats: list[float]) -> int | None:
    """Tempo of a track as All-In-One gives it: the most frequent of the rounded rates ``60 / interval``.

    Intervals are multiples of 0.01 s, so the rates are coarse, and this may miss a steady tempo by up to 3; see
    `fitted_tempo`.

    Parameters
    ----------
    beats : list of float
        Seconds, ascending.

    Returns
    -------
    int or None
        Beats per minute; of several equally frequent ones the highest. None with fewer than two beats.

    Raises
    ------
    ValueError
        If the beats are not finite and ascending.
    """
    times = check_times(beats)
    if len(times) < 2:
        return None
    rates = np.rint(60 / np.diff(times)).astype(int)
    candidates, counts = np.unique(rates, return_counts=True)
    return int(candidates[counts == counts.max()].max())


@dataclasses.dataclass(frozen=True)
class Tempo:
    """Tempo of a track.

    Attributes
    ----------
    bpm : float
        Beats per minute, rounded to hundredths.
    spread : float
        How much it varies over the track: half the width, in beats per minute, of the range that the middle 90 % of
        the local tempi lie in, each taken over 16 beats (half of the beats, where there are fewer than 32). Rounded
        to hundredths.
    """

    bpm: float
    spread: float


def fitted_tempo(beats: list[float]) -> Tempo | None:
    """Tempo of a track: the slope of a robust line through the numbers and the times of its beats.

    The line begins as Theil and Sen's, the median of the slopes of all pairs of beats, and is then fitted by least
    squares to the beats that lie close to it. Beats that are missing, added, doubled or halved for a while do not
    change it, nor does a beat that comes late, after which the others keep their distances.

    Parameters
    ----------
    beats : list of float
        Seconds, strictly ascending.

    Returns
    -------
    Tempo or None
        None with fewer than `MIN_BEATS_FOR_TEMPO`. For beats of a steady tempo of 55 to 215 BPM that are
        rounded to 0.01 s it is within 0.07 BPM for 30 s of music, 0.03 for 60, its spread below 0.25 BPM.

    Raises
    ------
    ValueError
        If the beats are not finite and ascending.
    """
    times = check_times(beats)
    if len(times) < MIN_BEATS_FOR_TEMPO:
        return None
    times, numbers, parts = _number(times)

    few = np.unique(np.linspace(0, len(times) - 1, min(len(times), _MOST_FITTED_IN_PAIRS)).astype(int))
    pairs = np.tri(len(few), k=-1, dtype=bool)
    spans, steps = (np.subtract.outer(values[few], values[few])[pairs] for values in (times, numbers))
    period = _median(spans / steps)
    for _ in range(2):
        offsets = times - period * numbers
        offsets -= np.array([_median(offsets[parts == part]) for part in range(parts[-1] + 1)])[parts]
        # 1.4826 times the median deviation is one standard deviation of a normal distribution.
        near = np.abs(offsets) <= max(3 * 1.4826 * _median(np.abs(offsets)), 1 / FRAMES_PER_SECOND)
        counts = np.maximum(np.bincount(parts, near), 1)
        centred_times = times - (np.bincount(parts, near * times) / counts)[parts]
        centred_numbers = numbers - (np.bincount(parts, near * numbers) / counts)[parts]
        squares = np.sum(near * centred_numbers**2)
        if squares > 0:  # else no part has two beats
            period = np.sum(near * centred_numbers * centred_times) / squares

    step = min(_LOCAL_BEATS, len(times) // 2)
    local = 60 * (numbers[step:] - numbers[:-step]) / (times[step:] - times[:-step])
    slowest, fastest = np.percentile(local, [5, 95])
    return Tempo(round(float(60 / period), 2), round(float(fastest - slowest) / 2, 2))


def _median(values: np.ndarray) -> float:
    """What `np.median` gives of float64 that are not NaN; most of its time goes into looking for those."""
    middle = len(values) // 2
    if len(values) % 2:
        return float(np.partition(values, middle)[middle])
    ordered = np.partition(values, (middle - 1, middle))
    return float((ordered[middle - 1] + ordered[middle]) / 2)


def _number(times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the beats by the multiples of the period that lie between them, and leave out those beside the grid.

    Parameters
    ----------
    times : float64 (num_beats,)
        Seconds.

    Returns
    -------
    times, numbers, parts : float64, int64 and int64 (num_numbered,)
        A new part begins where the grid does: after a third beat in a row that is not on the old one.
    """
    intervals = np.diff(times)
    neighbours = sliding_window_view(np.pad(intervals, _LOCAL_INTERVALS // 2, mode="edge"), _LOCAL_INTERVALS)
    periods = np.median(neighbours, axis=1)
    levels = np.log(periods / np.median(intervals))[:, np.newaxis] - np.log(_LEVELS)
    periods /= _LEVELS[np.argmin(np.abs(levels), axis=1)]
    kept, numbers, parts = [0], [0], [0]
    # Of lists a number is had in a fifth of the time that it takes of arrays.
    seconds, seconds_a_beat = times.tolist(), periods.tolist()
    for beat in range(1, len(times)):
        # The beat before may itself be early or late, so the one before that is asked as well.
        for earlier in range(len(kept) - 1, max(len(kept) - 3, -1), -1):
            distance = (seconds[beat] - seconds[kept[earlier]]) / seconds_a_beat[beat - 1]
            periods_between = round(distance)
            number = numbers[earlier] + periods_between
            is_on_grid = number > numbers[-1] and abs(distance - periods_between) <= _OFF_THE_GRID
            if is_on_grid:
                break
        if is_on_grid or beat - kept[-1] > 2:
            kept.append(beat)
            numbers.append(max(number, numbers[-1] + 1))
            parts.append(parts[-1] + (not is_on_grid))
    return times[kept], np.array(numbers), np.array(parts)
