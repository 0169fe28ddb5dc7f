"""Boundaries and labelled sections from the probabilities of boundary and function.

The method is that of Ullrich, Schlueter and Grill ("Boundary Detection in Music Structure Analysis Using
Convolutional Neural Networks", ISMIR 2014) as All-In-One uses it: a boundary is a local maximum of the probability
within 12 s on either side, stronger than the mean of what surrounds it.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from allin1_core.errors import ActivationsError

# The ten functions of the Harmonix Set, in the order of the network's output.
LABELS = ("start", "end", "intro", "outro", "break", "bridge", "inst", "solo", "verse", "chorus")

# Four beats of at least 24 frames each (the shortest at 240 BPM, 100 frames a second), and the frame itself.
LOCAL_MAXIMA_WINDOW = 4 * 24 + 1

_FRAMES_PER_SECOND = 100
_SURROUNDINGS = 12 * _FRAMES_PER_SECOND
# Of probabilities that are means of float32.
_ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True)
class Segment:
    """A section of a track: `start` and `end` in seconds, `label` one of `LABELS`."""

    start: float
    end: float
    label: str


def pick_boundaries(maxima: np.ndarray) -> np.ndarray:
    """Frames at which a section starts.

    Parameters
    ----------
    maxima : float32 (T,)
        Boundary probability at its local maxima, 0 elsewhere.

    Returns
    -------
    int64 (num_boundaries,)
        Ascending frame indices; may be empty. A run of equal neighbours counts as its first frame, so that a
        constant probability (silence) gives one boundary, not many.

    Raises
    ------
    ActivationsError
        If the shape is another, or a value is no probability.
    """
    maxima = np.asarray(maxima)
    if maxima.ndim != 1:
        raise ActivationsError(f"maxima: shape {maxima.shape}; expected (num_frames,)")
    _check_probabilities("maxima", maxima)
    candidates = np.flatnonzero(maxima > 0)
    if candidates.size == 0:
        return candidates
    values = maxima[candidates]
    is_new = (candidates == 0) | (maxima[candidates - 1] != values)

    # Candidates are few (about one a second), so each looks at its neighbours rather than every frame at 2,401.
    first = np.searchsorted(candidates, candidates - _SURROUNDINGS)
    last = np.searchsorted(candidates, candidates + _SURROUNDINGS, side="right")
    # Every other one is from a `first` to its `last`, which may be behind the values.
    greatest = np.maximum.reduceat(np.append(values, 0), np.stack([first, last], axis=1).ravel())[::2]

    # It is also stronger than the mean of what surrounds it: they are equal only where all of that equals it, the frame
    # before as well, and then the run is not new.
    return candidates[is_new & (values >= greatest)]


def sections(boundaries: np.ndarray, label: np.ndarray) -> list[Segment]:
    """Sections between boundaries, each with the label that is the most probable over its frames.

    Parameters
    ----------
    boundaries : int64 (num_boundaries,)
        Ascending frame indices; the start of the track need not be among them.
    label : float32 (10, T)
        Probability of each of `LABELS`; T is at least 1.

    Returns
    -------
    list of Segment
        They cover the track from 0 to its end without a gap; at least one.

    Raises
    ------
    ActivationsError
        If a shape is another, boundaries do not ascend within the track, or labels have what is no probability.
    """
    label, boundaries = np.asarray(label), np.asarray(boundaries)
    if label.ndim != 2 or len(label) != len(LABELS) or not label.size:
        raise ActivationsError(f"label: shape {label.shape}; expected ({len(LABELS)}, num_frames)")
    _check_probabilities("label", label)
    num_frames = label.shape[1]
    are_frames = boundaries.ndim == 1 and (boundaries.dtype.kind in "iu" or not boundaries.size)
    if not are_frames or not (np.diff(boundaries, prepend=-1, append=num_frames) > 0).all():
        raise ActivationsError(
            f"boundaries: {boundaries.dtype} {str(boundaries)[:80]}; expected frames that ascend, from 0 to "
            f"{num_frames - 1}"
        )
    spans = list(itertools.pairwise([0, *boundaries[boundaries > 0].tolist(), num_frames]))
    # What numpy's mean computes, without a quarter of its time, which it takes before it begins.
    precision = np.result_type(label, np.float32)
    means = np.array([np.add.reduce(label[:, a:b], axis=1, dtype=precision) / (b - a) for a, b in spans])
    return [
        Segment(start / _FRAMES_PER_SECOND, end / _FRAMES_PER_SECOND, LABELS[best])
        for (start, end), best in zip(spans, means.argmax(axis=1).tolist(), strict=True)
    ]


def _check_probabilities(name: str, values: np.ndarray) -> None:
    if values.dtype.kind not in "buif":
        raise ActivationsError(f"{name}: dtype {values.dtype}; expected probabilities")
    if values.size and not (
        values.min() >= -_ROUNDING and values.max() <= 1 + _ROUNDING
    ):  # NaN is not, either
        raise ActivationsError(
            f"{name}: values from {values.min()} to {values.max()}; expected probabilities from 0 to 1: apply the "
            "sigmoid or softmax first, and replace what is not finite"
        )


def section_confidences(
    segments: list[Segment], boundary: np.ndarray, label: np.ndarray
) -> tuple[list[float], list[float]]:
    """What the network says of sections.

    Parameters
    ----------
    segments : list of Segment
    boundary : float32 (T,)
        Probability of a boundary.
    label : float32 (10, T)
        Probability of each of `LABELS`.

    Returns
    -------
    boundaries : list of float
        Probability of a boundary in the first frame of each section but the first.
    labels : list of float
        Mean probability of each section's label over its frames.
    """
    frames = [
        (round(one.start * _FRAMES_PER_SECOND), round(one.end * _FRAMES_PER_SECOND)) for one in segments
    ]
    return (
        [float(boundary[start]) for start, _ in frames[1:]],
        [
            float(label[LABELS.index(one.label), start:end].mean())
            for one, (start, end) in zip(segments, frames, strict=True)
        ],
    )
