"""Conversion of samples: mono, sample rate, 16 bits."""

from __future__ import annotations

import numpy as np

from allin1_core.audio.decoding import BLOCK_VALUES
from allin1_core.audio.sample_buffer import SampleBuffer


def remix_to_mono(samples: np.ndarray) -> np.ndarray:
    """Mean over the channels, cast back to the dtype: for ``int16`` that truncates toward zero.

    Parameters
    ----------
    samples : int16 or float32 (num_samples, num_channels)

    Returns
    -------
    int16 or float32 (num_samples,)
        Identical to ``madmom.audio.signal.remix(samples, 1)``.
    """
    if samples.shape[1] == 1:
        return samples[:, 0]
    if samples.shape[1] == 2:
        # The same to the bit, as sums of two int16 are exact in float32; `np.mean` makes a call for each pair.
        total = np.add(*samples.T, dtype=np.float32)
        total /= 2
        return total.astype(samples.dtype, copy=False)
    return np.mean(samples, axis=-1).astype(samples.dtype)


def as_float32(samples: np.ndarray) -> np.ndarray:
    """Samples with full scale at 1: ``int16`` divided by 32768, ``float32`` as it is."""
    return samples.astype(np.float32) / np.float32(32768) if samples.dtype == np.int16 else samples


def resample(samples: np.ndarray, sample_rate: int, to_sample_rate: int) -> np.ndarray:
    """Resample with soxr at its high quality; the dtype stays.

    Parameters
    ----------
    samples : int16 or float32 (num_samples,) or (num_samples, num_channels)
    sample_rate, to_sample_rate : int
        Samples per second.

    Returns
    -------
    int16 or float32, ``num_samples * to_sample_rate / sample_rate`` samples
        ``int16`` is resampled in float64, then rounded and clipped: without dither, so the same every time.
    """
    if sample_rate == to_sample_rate or len(samples) == 0:
        return samples
    import soxr

    if samples.dtype == np.int16:
        # Block by block, which gives the same: in float64 all of it would take eight times the memory, and again.
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        stream = soxr.ResampleStream(sample_rate, to_sample_rate, channels, dtype=np.float64)
        most = -(-len(samples) * to_sample_rate // sample_rate) + 1
        buffer = SampleBuffer(2 * most * channels, most, 2 * most * channels)
        step = max(1, BLOCK_VALUES // channels)
        for start in range(0, len(samples), step):
            block = samples[start : start + step].astype(np.float64)
            resampled = stream.resample_chunk(block, last=start + step >= len(samples))
            rounded = np.clip(np.rint(resampled), -32768, 32767).astype(np.int16)
            is_added = buffer.add(rounded.reshape(-1, channels))
            assert is_added, "soxr gave more samples than the ratio of the rates"
        resampled = buffer.samples("int16", channels)
        return resampled[:, 0] if samples.ndim == 1 else resampled
    return soxr.resample(samples, sample_rate, to_sample_rate)


def quantise(samples: np.ndarray) -> np.ndarray:
    """Float samples to ``int16`` exactly as Demucs writes them to a 16-bit WAV file.

    A stem whose peak would clip is scaled down so that the peak is at 1/1.01 (Demucs' ``clip="rescale"``), then
    rounded to the nearest of 2^15 steps, ties to even.

    Parameters
    ----------
    samples : float32, any shape
        One stem, all its channels: the peak is taken over all of them.

    Returns
    -------
    int16, same shape
    """
    if samples.size == 0:
        return samples.astype(np.int16)
    peak = np.float32(1.01) * np.abs(samples).max()
    if peak > 1:
        samples = samples / peak
    return np.clip(np.rint(samples.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)
