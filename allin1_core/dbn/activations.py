"""Thresholding of activations to the span that is decoded, and beats at the peaks within regions."""

from __future__ import annotations

import numpy as np


def threshold_activations(activations: np.ndarray, threshold: float) -> tuple[np.ndarray, int]:
    """Cut activations to the span from the first to the last that reach a threshold.

    Parameters
    ----------
    activations : float (num_frames, ...)
    threshold : float

    Returns
    -------
    activations : float (num_kept, ...)
        A view. Empty if none reaches the threshold, and, as with madmom, if only the very first frame does.
    start : int
        Frame that the view starts at; 0 if it is empty.
    """
    frames = np.nonzero(activations >= threshold)[0]
    if not frames.any():
        return activations[:0], 0
    first, last = int(frames[0]), int(frames[-1])
    return activations[first : last + 1], first


def regions(inside: np.ndarray) -> np.ndarray:
    """First frame and frame after the last of each run of True, ``int64 (num_runs, 2)``."""
    edges = np.diff(inside.astype(np.int8), prepend=0, append=0)
    return np.nonzero(edges)[0].reshape(-1, 2)


def beats_at_peaks(activations: np.ndarray, beat_regions: np.ndarray) -> np.ndarray:
    """Frame of the highest activation in each region, the first of equals, ``int64 (num_regions,)``.

    With two columns both count: a beat is put where either its own activation or the downbeat's is highest.
    """
    columns = activations.shape[1] if activations.ndim == 2 else 1
    peaks = [start + int(np.argmax(activations[start:stop])) // columns for start, stop in beat_regions]
    return np.array(peaks, dtype=np.int64)
