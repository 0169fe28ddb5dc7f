"""Hints: what is known of a track's tempo, bars and beats before they are decoded, checked and brought to one form."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from allin1_core.dbn.checks import MOST_FRAMES
from allin1_core.dbn.metrical import FRAMES_PER_SECOND
from allin1_core.errors import HintError

ANY_BEAT = -1
# Seconds and position in the bar, 0 where it is not known; ascending.
Anchors: TypeAlias = tuple[tuple[float, int], ...]

# The decoder's states grow with the longest beat and bar.
_SLOWEST_BPM = 10
_LONGEST_BAR = 64
# Faster beats would leave no frame between one and the next.
_FASTEST_BPM = 60 * FRAMES_PER_SECOND // 2


def checked_tempo_range(min_bpm: Any, max_bpm: Any) -> tuple[float, float]:
    """The tempo range in beats per minute.

    Raises
    ------
    HintError
        If one of the two is no tempo, or they are not in order.
    """
    expected = f"beats per minute from {_SLOWEST_BPM} to {_FASTEST_BPM}"
    for name, value in (("min_bpm", min_bpm), ("max_bpm", max_bpm)):
        _checked(name, value, expected, lambda v: v.ndim == 0 and _SLOWEST_BPM <= v <= _FASTEST_BPM)
    if min_bpm >= max_bpm:
        raise HintError(f"min_bpm: {min_bpm:g}, max_bpm: {max_bpm:g}; expected min_bpm below max_bpm")
    return float(min_bpm), float(max_bpm)


def checked_meters(
    beats_per_bar: Any, meter_weights: Any
) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    """The bar lengths in beats, and the weight of each.

    Raises
    ------
    HintError
        If a length is not a whole number from 1 to 64, or there is not one weight for each.
    """
    lengths = np.atleast_1d(
        _checked(
            "beats_per_bar",
            beats_per_bar,
            f"bar lengths, whole numbers of beats from 1 to {_LONGEST_BAR}",
            lambda v: v.ndim < 2 and v.size > 0 and bool(np.isin(v, range(1, _LONGEST_BAR + 1)).all()),
        )
    )
    meters = tuple(int(length) for length in lengths)
    return meters, checked_weights(meter_weights, meters)


def checked_weights(meter_weights: Any, beats_per_bar: Sequence[int]) -> tuple[float, ...] | None:
    """The weight of each bar length; None where there are none.

    Raises
    ------
    HintError
        If there is not one weight of at least 0 for each, with a finite sum above 0.
    """
    if meter_weights is None:
        return None
    weights = _checked(
        "meter_weights",
        meter_weights,
        f"one weight of at least 0, with a finite sum above 0, for each of beats_per_bar {list(beats_per_bar)}",
        lambda v: v.shape == (len(beats_per_bar),) and np.all(v >= 0) and 0 < sum(v.tolist()) < np.inf,
    )
    return tuple(float(weight) for weight in weights)


def checked_meter_change(meter_change_prob: Any, beats_per_bar: tuple[int, ...]) -> float | None:
    """The probability that the bar length changes at a bar line; None instead of 0.

    Raises
    ------
    HintError
        If it is not from 0 to below 1, or there are no two bar lengths to change between.
    """
    if meter_change_prob is None:
        return None
    expected = "a probability from 0 to below 1, that the bar length changes at a bar line"
    _checked("meter_change_prob", meter_change_prob, expected, lambda v: v.ndim == 0 and 0 <= v < 1)
    if meter_change_prob > 0 and len(set(beats_per_bar)) < 2:
        raise HintError(
            f"meter_change_prob: {meter_change_prob:g} with beats_per_bar {list(beats_per_bar)}; expected bar lengths "
            "to change between"
        )
    return float(meter_change_prob) or None


def checked_anchors(
    anchors: Any, beats_per_bar: Sequence[int] | np.ndarray, fps: float = FRAMES_PER_SECOND
) -> Anchors:
    """Anchors as pairs of time and position, ascending.

    Parameters
    ----------
    anchors : sequence, optional
        Times in seconds, or pairs of time and position in the bar, or both.
    beats_per_bar : sequence of int
    fps : float
        Frames per second, to which times are rounded.

    Raises
    ------
    HintError
        If one is neither, a time is negative, a position is none of the bar, or two positions claim one frame.
    """
    is_list = np.iterable(anchors) and not isinstance(anchors, Mapping | str)
    given = anchors
    if is_list:
        given = anchors.tolist() if isinstance(anchors, np.ndarray) else list(anchors)
    if anchors is None or (is_list and not given):
        return ()
    rows = [one if np.iterable(one) else (one, 0) for one in given] if is_list else given
    longest = max(beats_per_bar)

    def are_anchors(rows: np.ndarray) -> bool:
        if rows.ndim != 2 or rows.shape[1] != 2:
            return False
        times, positions = rows.T
        return bool(
            np.all((times >= 0) & (times < MOST_FRAMES / fps))
            and np.isin(positions, range(longest + 1)).all()
        )

    expected = f"times in seconds, each alone or with its position in the bar, 1 to {longest} (0: any)"
    array = _checked("anchors", given, expected, are_anchors, rows)
    found = tuple(sorted({(float(time), int(position)) for time, position in array}))
    numbers: dict[int, int] = {}
    for time, position in found:
        frame = round(time * fps)
        other = numbers.setdefault(frame, position) if position else 0
        if other and other != position:
            raise HintError(
                f"anchors: positions {other} and {position} both at {frame / fps:g} s; expected one"
            )
    return found


def check_within(anchors: Anchors, seconds: float, fps: float = FRAMES_PER_SECOND) -> None:
    """Raise `HintError` if an anchor is not within a song of that length."""
    last = math.ceil(seconds * fps - 1e-6) - 1
    for time, _ in anchors:
        if round(time * fps) > last:
            raise HintError(f"anchors: {time:g} s; expected a time within the song, 0 to {last / fps:g} s")


def required_beats(
    anchors: Any, fps: float, num_frames: int, beats_per_bar: Sequence[int] | np.ndarray
) -> np.ndarray:
    """What the path must hold in each frame.

    Parameters
    ----------
    anchors : array_like
        Times in seconds, ``(num_anchors,)``, or times with the position of the beat in the bar, from 1,
        ``(num_anchors, 2)``; position 0 leaves it open. Times are rounded to frames.
    fps : float
        Frames per second.
    num_frames : int
        Frames of the activations.
    beats_per_bar : int (num_meters,)
        The bar lengths that a position may belong to.

    Returns
    -------
    int64 (num_frames,)
        0 where nothing is required, `ANY_BEAT` where a beat starts, the position in the bar where that is known.

    Raises
    ------
    HintError
        As `checked_anchors`, or if a time is not within the activations.
    """
    known = checked_anchors(anchors, beats_per_bar, fps)
    check_within(known, num_frames / fps, fps)
    required = np.zeros(num_frames, dtype=np.int64)
    for time, position in known:
        frame = round(time * fps)
        required[frame] = position or required[frame] or ANY_BEAT
    return required


def _checked(
    name: str, value: Any, expected: str, is_valid: Callable[[np.ndarray], Any], rows: Any = None
) -> np.ndarray:
    """`value`, or the `rows` that it stands for, as an array of valid numbers."""
    with contextlib.suppress(ValueError):  # numpy has no array of rows of different lengths
        array = np.asarray(value if rows is None else rows)
        if array.dtype.kind in "iuf" and is_valid(array):
            return array
    raise HintError(f"{name}: {repr(value)[:80]}; expected {expected}")
