"""Tempo of a track by plain least squares, as a line that all beats of a steady track lie close to.

Of a track that is not steady a plain line says nothing: there the tempo is only held to the rate of the typical
interval, so that half and double of it are seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from parity.agreement import Agreement, compare

_FEWEST_BEATS = 8
_LOCAL_BEATS = 16
# Of a period: what beats of a steady track lie beside the line, the root of the mean square and the farthest.
_STEADY, _FARTHEST = 0.03, 0.2
# Tempo and spread are rounded to hundredths.
_ROUNDING = 0.006
# A robust line leaves beats out that the plain one takes.
_STANDARD_ERRORS = 4
_ROUGHLY = 0.45


def compare_tempo(tempo: Any, spread: Any, beats: Sequence[float]) -> dict[str, Agreement]:
    """How close ``tempo`` and ``tempo_spread``, in beats per minute, came to those of the oracle's beats."""
    found = {"tempo": tempo, "tempo_spread": spread}
    if len(beats) < _FEWEST_BEATS:
        return {name: compare(_array(value), np.array([])) for name, value in found.items()}
    times = np.array(beats)
    intervals = np.diff(times)
    typical = np.median(intervals)
    numbers = np.concatenate([[0], np.cumsum(np.rint(intervals / typical))])
    period, start = np.polyfit(numbers, times, 1)
    beside = times - period * numbers - start
    root_mean_square = np.sqrt(np.mean(beside**2))
    step = min(_LOCAL_BEATS, len(times) // 2)
    local = 60 * (numbers[step:] - numbers[:-step]) / (times[step:] - times[:-step])
    expected = {"tempo": 60 / period, "tempo_spread": np.diff(np.percentile(local, [5, 95]))[0] / 2}
    standard_error = root_mean_square / np.sqrt(np.sum((numbers - numbers.mean()) ** 2))
    allowed = {
        "tempo": _ROUNDING + _STANDARD_ERRORS * standard_error * 60 / period**2,
        "tempo_spread": _ROUNDING,
    }
    if root_mean_square > _STEADY * period or np.abs(beside).max() > _FARTHEST * period:
        expected["tempo"] = 60 / typical
        allowed = dict.fromkeys(found, _ROUGHLY * 60 / typical)
    return {
        name: compare(_array(value), np.array([expected[name]]), allowed=float(allowed[name]))
        for name, value in found.items()
    }


def _array(value: Any) -> np.ndarray:
    return np.array([] if value is None else [value])
