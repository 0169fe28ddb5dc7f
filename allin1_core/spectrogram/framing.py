"""Framing of the signal: one frame every 1/100 s, centred on its time, padded with zeros at both ends.

Frame ``t`` is centred on sample ``int(t * r / 100)``, ``r`` samples per second, so it begins half a frame before
that. There are as many frames as have their centre inside the signal, ``ceil(num_samples / (r / 100))``: none for
an empty signal. The products are ``float64`` and truncated, as in the oracle, which matters only where the step is
not a whole number of samples (110.25 at 11,025 Hz).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from allin1_core.spectrogram.specification import SPECIFICATION


def hop_size(sample_rate: int) -> float:
    """Samples between the centres of neighbouring frames."""
    return sample_rate / float(SPECIFICATION.frames_per_second)


def num_frames(num_samples: int, sample_rate: int = SPECIFICATION.sample_rate) -> int:
    """Number of frames of a signal of ``num_samples`` samples."""
    return math.ceil(num_samples / hop_size(sample_rate))


def frame_starts(first: int, last: int, sample_rate: int) -> npt.NDArray[np.int64]:
    """Index of the first sample of frames ``first`` to ``last`` (excluded); negative before the signal."""
    centres = (np.arange(first, last) * hop_size(sample_rate)).astype(np.int64)
    return centres - SPECIFICATION.frame_size // 2


def section(signal: npt.NDArray, start: int, stop: int) -> npt.NDArray:
    """Samples ``start`` to ``stop`` along the last axis, with zeros where the signal has none.

    A view of ``signal`` where it covers the range, which is everywhere but at the two ends.
    """
    num_samples = signal.shape[-1]
    if start >= 0 and stop <= num_samples:
        return signal[..., start:stop]
    padded = np.zeros((*signal.shape[:-1], stop - start), signal.dtype)
    inside = slice(max(start, 0), min(stop, num_samples))
    if inside.start < inside.stop:
        padded[..., inside.start - start : inside.stop - start] = signal[..., inside]
    return padded


def frames(signal: npt.NDArray, first: int, last: int, sample_rate: int) -> npt.NDArray:
    """Frames ``first`` to ``last`` (excluded) of a signal.

    Parameters
    ----------
    signal : (..., num_samples)

    Returns
    -------
    (..., last - first, 2048)
        Not to be written to: a view of the signal where the hop size is a whole number of samples.
    """
    starts = frame_starts(first, last, sample_rate)
    stretch = section(signal, int(starts[0]), int(starts[-1]) + SPECIFICATION.frame_size)
    windows = sliding_window_view(stretch, SPECIFICATION.frame_size, axis=-1)
    hop = hop_size(sample_rate)
    if hop.is_integer():
        return windows[..., :: int(hop), :]
    return windows[..., starts - starts[0], :]


def chunks(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Split ``total`` frames into ranges of ``size``; the last takes the remainder and has up to twice as many.

    There is thus never a range smaller than ``size`` unless ``total`` itself is.
    """
    count = max(total // size, 1) if total else 0
    for index in range(count):
        yield index * size, total if index == count - 1 else (index + 1) * size
