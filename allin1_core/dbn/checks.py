"""Validation of the decoder's input: numbers, intervals of values, activations."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

# Beyond these, float64 has no longer every whole number.
MOST_FRAMES = 2.0**53
# Seconds between two beats, at least.
_CLOSEST = 1e-9


def frozen(array: np.ndarray) -> np.ndarray:
    """The array, made read-only: models are cached and shared between threads."""
    array.setflags(write=False)
    return array


def positive_integer(name: str, value: Any) -> int:
    """`value` as an int.

    Raises
    ------
    ValueError
        If it is not a whole number of at least 1.
    """
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1 or number != value:
        raise ValueError(f"{name}: {value!r}; expected a whole number of at least 1")
    return number


def bar_lengths(beats_per_bar: Any) -> list[int]:
    """Bar lengths in beats, from one or several.

    Raises
    ------
    ValueError
        If there is none, or one is not a whole number of at least 1.
    """
    meters = [positive_integer("beats_per_bar", value) for value in np.atleast_1d(beats_per_bar)]
    if not meters:
        raise ValueError("beats_per_bar: empty; expected at least one bar length")
    return meters


def positive_number(name: str, value: Any, unit: str) -> float:
    """`value` as it is, if it is a finite number above 0.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    return real_number(name, value, f"a positive number of {unit}", lambda number: number > 0)


def real_number(name: str, value: Any, expected: str, is_valid: Callable[[Any], bool]) -> Any:
    """`value` as it is.

    Raises
    ------
    ValueError
        If it is no real number, not finite as a float64, or not valid.
    """
    with contextlib.suppress(OverflowError):
        is_number = isinstance(value, (int, float, np.integer, np.floating))
        if is_number and math.isfinite(value) and is_valid(value):
            return value
    raise ValueError(f"{name}: {value!r}; expected {expected}")


def check_activations(activations: Any, num_columns: int | None) -> np.ndarray:
    """Activations as a numpy array of the dtype they came in.

    Parameters
    ----------
    activations : array_like
        Probabilities, ``(num_frames, num_columns)``; ``(num_frames,)`` where `num_columns` is None.

    Raises
    ------
    ValueError
        If the shape is another, or a value is not a finite number from 0 to 1.
    """
    array = np.asarray(activations)
    expected = "(num_frames,)" if num_columns is None else f"(num_frames, {num_columns})"
    if array.dtype.kind not in "buif":
        raise ValueError(f"activations: dtype {array.dtype}; expected real numbers of shape {expected}")
    if array.ndim != (1 if num_columns is None else 2) or array.shape[1:] != (num_columns,)[: array.ndim - 1]:
        raise ValueError(f"activations: shape {array.shape}; expected {expected}")
    # A comparison with NaN is false, so this finds NaN too.
    inside = (array >= 0) & (array <= 1)
    if not inside.all():
        where = np.argwhere(~inside)[0]
        frame = int(where[0])
        raise ValueError(
            f"activations: {array[tuple(where)]} in frame {frame} ({np.count_nonzero(~inside)} such values); "
            "expected probabilities from 0 to 1: apply the sigmoid first, and replace what is not finite"
        )
    return array


def check_times(beats: Any) -> np.ndarray:
    """Times of beats as ``float64 (num_beats,)``.

    Raises
    ------
    ValueError
        If they are not finite and strictly ascending by a nanosecond or more, of which a tempo can be told, or the
        shape is another.
    """
    array = np.asarray(beats)
    if array.dtype.kind not in "buif" or array.ndim != 1:
        raise ValueError(
            f"beats: {array.dtype} of shape {array.shape}; expected seconds of shape (num_beats,)"
        )
    times = array.astype(np.float64)
    if not np.isfinite(times).all():
        where = int(np.argmin(np.isfinite(times)))
        raise ValueError(f"beats: {times[where]} at index {where}; expected finite times in seconds")
    follows = np.diff(times) >= _CLOSEST
    if not follows.all():
        where = int(np.argmin(follows))
        raise ValueError(
            f"beats: {times[where]:g} s is followed by {times[where + 1]:g} s; expected ascending times, a "
            "nanosecond apart or more"
        )
    return times


def nearest_frames(times: np.ndarray, fps: float) -> np.ndarray:
    """Frame nearest to each time in seconds, ``int64``; of times too far for one, a frame further than any there is."""
    limit = MOST_FRAMES / fps
    return np.rint(np.clip(times, -limit, limit) * fps).astype(np.int64)


def probability(name: str, value: Any) -> Any:
    """A probability as it is (the type of a threshold decides the precision of comparisons); None counts as 0.

    Raises
    ------
    ValueError
        If it is not a number from 0 to 1.
    """
    if value is None:
        return 0
    return real_number(name, value, "a probability from 0 to 1, or None", lambda number: 0 <= number <= 1)
