"""Anchors: beats known beforehand, as constraints on the path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from allin1_core.dbn.hints import check_within, checked_anchors

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
        As `checked_anchors`, or if a time is not within the activations.
    """
    known = checked_anchors(anchors, beats_per_bar, fps)
    check_within(known, num_frames / fps, fps)
    required = np.zeros(num_frames, dtype=np.int64)
    for time, position in known:
        frame = round(time * fps)
        required[frame] = position or required[frame] or ANY_BEAT
    return required
