"""Window and filterbank: the weights of a frame before and after the transform.

**Window.** A symmetric Hann window of ``L`` samples, ``w[n] = 0.5 - 0.5 cos(2 pi n / (L - 1))``. Integer samples
are scaled to [-1, 1] by dividing the window, not the signal, by the largest value of their type (32,767), so that
``int16`` audio is read as it lies in memory.

**Filterbank.** Band centres are the semitones ``440 * 2 ** (k / 12)`` Hz, ``k`` a whole number, that lie between
30 and 17,000 Hz. Bin ``b`` of an ``L``-point transform at ``r`` samples per second stands for ``b * r / L`` Hz.
Each centre moves to its nearest bin; low semitones are closer together than bins, so several may fall on the same
bin and count once. What remains are bins ``c[0] < c[1] < ... < c[m + 1]``, and band ``j`` is the triangle that
rises from 0 at ``c[j]`` to 1 at ``c[j + 1]`` and falls to 0 at ``c[j + 2]``, divided by the sum of its weights.
Hence ``m`` bands, 81 at 44,100 Hz, each bin in two of them at most, all else zero.

Rounding is part of the definition, because the oracle is met to the bit: centres and triangles are ``float64``, a
triangle is rounded to ``float32`` before it is summed, and both sum and quotient are ``float32``.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpy.typing as npt

from allin1_core.errors import AudioError
from allin1_core.spectrogram.specification import SPECIFICATION


@functools.cache
def window(dtype: str, precision: str = "exact") -> npt.NDArray[np.floating]:
    """The Hann window for samples of a type, scaled so that full scale is 1.

    Parameters
    ----------
    dtype : str
        ``int16`` or ``float32``: the type of the samples.
    precision : str
        ``exact`` gives ``float64``, ``fast`` that window rounded to ``float32``.

    Returns
    -------
    floating (2048,)
        Read-only; the same array for every call.
    """
    values = np.hanning(SPECIFICATION.frame_size)
    if np.issubdtype(np.dtype(dtype), np.integer):
        values = values / float(np.iinfo(dtype).max)
    if precision == "fast":
        values = values.astype(np.float32)
    values.setflags(write=False)
    return values


def _band_centres(sample_rate: int) -> npt.NDArray[np.intp]:
    """Bins that the semitones fall on, ascending and distinct, ``intp (num_bands + 2,)``."""
    spec = SPECIFICATION
    lowest = np.ceil(spec.bands_per_octave * np.log2(spec.minimum_frequency / spec.tuning_frequency))
    highest = np.floor(spec.bands_per_octave * np.log2(spec.maximum_frequency / spec.tuning_frequency))
    semitones = spec.tuning_frequency * 2.0 ** (np.arange(lowest, highest + 1) / spec.bands_per_octave)
    # Half a bin rounds up, and what lies above the last bin falls on the last bin.
    nearest = np.floor(semitones * spec.frame_size / sample_rate + 0.5)
    return np.unique(np.clip(nearest, 0, spec.num_bins - 1).astype(np.intp))


def _triangle(rise: int, fall: int) -> npt.NDArray[np.float32]:
    weights = np.concatenate(
        [np.linspace(0.0, 1.0, rise, endpoint=False), np.linspace(1.0, 0.0, fall, endpoint=False)]
    ).astype(np.float32)
    return weights / weights.sum()


@functools.cache
def filterbank(sample_rate: int) -> npt.NDArray[np.float32]:
    """Weight of every bin in every band.

    Parameters
    ----------
    sample_rate : int
        Samples per second.

    Returns
    -------
    float32 (1024, num_bands)
        Read-only; the same array for every call with this sample rate.

    Raises
    ------
    AudioError
        If the sample rate leaves no band: all semitones fall on fewer than three bins.
    """
    centres = _band_centres(sample_rate)
    if centres.size < 3:
        raise AudioError(
            f"sample_rate: {sample_rate} Hz leaves no band between {SPECIFICATION.minimum_frequency:g} and "
            f"{SPECIFICATION.maximum_frequency:g} Hz; resample to {SPECIFICATION.sample_rate} Hz"
        )
    weights = np.zeros((SPECIFICATION.num_bins, centres.size - 2), np.float32)
    for band, (start, centre, stop) in enumerate(zip(centres[:-2], centres[1:-1], centres[2:], strict=True)):
        weights[start:stop, band] = _triangle(int(centre - start), int(stop - centre))
    weights.setflags(write=False)
    return weights


@dataclasses.dataclass(frozen=True)
class BandGroup:
    """Neighbouring bands and the bins that they weigh: a small dense block of the sparse filterbank.

    Attributes
    ----------
    bins, bands : slice
    weights : float32 (bins, bands)
        Contiguous and read-only.
    """

    bins: slice
    bands: slice
    weights: npt.NDArray[np.float32]


@functools.cache
def band_groups(sample_rate: int, bands_per_group: int) -> tuple[BandGroup, ...]:
    """The filterbank as dense blocks along its diagonal; what lies outside them is zero."""
    weights = filterbank(sample_rate)
    groups = []
    for first in range(0, weights.shape[1], bands_per_group):
        bands = slice(first, min(first + bands_per_group, weights.shape[1]))
        used = np.flatnonzero(weights[:, bands].any(axis=1))
        bins = slice(int(used[0]), int(used[-1]) + 1)
        block = np.ascontiguousarray(weights[bins, bands])
        block.setflags(write=False)
        groups.append(BandGroup(bins, bands, block))
    return tuple(groups)


def num_bands(sample_rate: int) -> int:
    """Number of bands at a sample rate, which decides how many semitones share a bin: 81 at 44,100 Hz."""
    return int(filterbank(sample_rate).shape[1])
