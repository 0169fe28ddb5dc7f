"""Anchors: beats known beforehand, as constraints on the path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from allin1_core.errors import HintError

ANY_BEAT = -1


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
        If the shape is another, a time is not within the activations, a position is not one of the bar's, or two
        anchors give one frame two positions.
    """
    array = np.asarray(anchors, dtype=np.float64)
    if array.size == 0:
        return np.zeros(num_frames, dtype=np.int64)
    if array.ndim == 1:
        array = np.stack([array, np.zeros(len(array))], axis=1)
    if array.ndim != 2 or array.shape[1] != 2:
        raise HintError(
            f"anchors: shape {np.shape(anchors)}; expected times (num_anchors,) or times with positions "
            "(num_anchors, 2)"
        )
    duration = num_frames / fps
    required = np.zeros(num_frames, dtype=np.int64)
    longest_bar = max(beats_per_bar)
    for time, position in array:
        frame = int(np.round(time * fps)) if np.isfinite(time) else -1
        if not 0 <= frame < num_frames:
            raise HintError(
                f"anchors: time {time:g} s; expected a time within the activations, 0 to {duration:g} s"
            )
        if not np.isfinite(position) or position != int(position) or not 0 <= position <= longest_bar:
            raise HintError(
                f"anchors: position {position:g} at {time:g} s; expected a beat of the bar, 1 to {longest_bar}, "
                "or 0 for any"
            )
        number = int(position) or ANY_BEAT
        required[frame] = max(required[frame], number) if required[frame] else number
    check_agreement(array.tolist(), fps)
    return required


def check_agreement(anchors: Iterable[Sequence[float]], fps: float) -> None:
    """Raise `HintError` if two anchors, of time and position, give one frame two positions."""
    found: dict[int, int] = {}
    for time, position in sorted((float(time), int(position)) for time, position in anchors):
        frame = round(time * fps)
        other = found.setdefault(frame, position) if position else 0
        if other and other != position:
            raise HintError(
                f"anchors: positions {other} and {position} both at {frame / fps:g} s; expected one"
            )
