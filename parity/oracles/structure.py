"""Sections as All-In-One's postprocessing finds them, with its constants, frame by frame: the oracle of the structure.

A boundary is a local maximum of the probability within 97 frames, the highest of 12 s on either side, and stronger than
the mean of the two. Where neighbours are equal, the first of them counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from parity.agreement import Agreement, compare

ORACLE = "definition"
LABELS = ("start", "end", "intro", "outro", "break", "bridge", "inst", "solo", "verse", "chorus")

_FRAMES_PER_SECOND = 100
_WINDOW = 97
_SURROUNDINGS = 1200

# Start and end in seconds, and label.
Section = tuple[float, float, str]


def local_maxima(probability: np.ndarray, window: int = _WINDOW) -> np.ndarray:
    """The probability, ``float32 (T,)``, where it is the highest of the window around it; 0 elsewhere."""
    padded = np.pad(probability, window // 2, constant_values=-np.inf)
    highest = np.lib.stride_tricks.sliding_window_view(padded, window).max(axis=-1)
    return np.where(probability == highest, probability, np.float32(0))


def boundaries(maxima: np.ndarray) -> np.ndarray:
    """Frames at which a section starts, ``int64``, from what `local_maxima` gives."""
    padded = np.pad(maxima.astype(np.float64), _SURROUNDINGS)
    found = []
    for frame in np.flatnonzero(maxima > 0):
        past = padded[frame : frame + _SURROUNDINGS]
        future = padded[frame + _SURROUNDINGS + 1 : frame + 2 * _SURROUNDINGS + 1]
        is_highest = maxima[frame] >= max(past.max(), future.max())
        if is_highest and past[-1] != maxima[frame] and maxima[frame] > (past.mean() + future.mean()) / 2:
            found.append(frame)
    return np.array(found, dtype=np.int64)


def sections(starts: np.ndarray, label: np.ndarray) -> list[Section]:
    """Sections from 0 to the end, each with the label of the highest mean probability, ``label (10, T)``."""
    edges = [0, *(int(frame) for frame in starts if frame > 0), label.shape[1]]
    return [
        (
            start / _FRAMES_PER_SECOND,
            end / _FRAMES_PER_SECOND,
            LABELS[int(np.argmax(label[:, start:end].mean(axis=1)))],
        )
        for start, end in itertools.pairwise(edges)
    ]


def compare_sections(
    found: Sequence[Any], expected: Sequence[Section], allowed: float
) -> dict[str, Agreement]:
    """How close the ``boundaries`` of our sections came, in seconds, and whether the ``labels`` are the same."""
    edges = [np.array([(section.start, section.end) for section in found]).reshape(-1, 2)]
    edges += [np.array([(start, end) for start, end, _ in expected]).reshape(-1, 2)]
    codes = [np.array([_code(section.label) for section in found], dtype=np.int64)]
    codes += [np.array([_code(label) for _, _, label in expected], dtype=np.int64)]
    return {
        "boundaries": compare(edges[0], edges[1], allowed=allowed),
        "labels": compare(codes[0], codes[1]),
    }


def _code(label: Any) -> int:
    return LABELS.index(label) if label in LABELS else -1
