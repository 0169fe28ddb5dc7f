"""The log spectrogram in MLX, on its default device.

MLX transforms in ``float32`` only, which cannot meet the oracle within 1e-6. ``exact`` therefore takes windowed
frames to magnitudes on the CPU in ``float64``, in the compiled kernels of `transform`, and sums bands and takes
logarithms in MLX; while MLX works on one stretch of frames, the CPU transforms the next. ``fast`` on Metal stays on
the device from samples to bands; on the CPU it takes the kernels too, in ``float32``.

Bands are summed in small dense blocks along the filterbank's diagonal: MLX's dense product is slow on Linux, and
98 % of the filterbank is zero.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from allin1_core.spectrogram import framing, transform
from allin1_core.spectrogram.decimation import EIGHTH, HALF, QUARTER, twiddles
from allin1_core.spectrogram.filterbank import band_groups, filterbank, num_bands, window
from allin1_core.spectrogram.specification import SPECIFICATION

GROUP_BANDS = 3
# Frames of all stems together in one pass: on the CPU what the cache holds, on a GPU what fills it.
CPU_FRAMES = 1024
GPU_FRAMES = 8192


def log_spectrogram(
    stems: npt.NDArray,
    sample_rate: int,
    *,
    precision: str,
    device: str = "mlx",
    return_native: bool = False,
) -> Any:
    """See `allin1_core.spectrogram.protocol.LogSpectrogramBackend`; native arrays are ``mlx.core.array``."""
    total = framing.num_frames(stems.shape[-1], sample_rate)
    if total == 0 or len(stems) == 0:
        output = mx.zeros((len(stems), total, num_bands(sample_rate)), mx.float32)
    elif precision == "exact" or mx.default_device().type == mx.DeviceType.cpu:
        output = _with_kernels(stems, sample_rate, total, precision)
    else:
        output = _on_device(stems, sample_rate, total)
    return output if return_native else np.array(output)


class _Bands:
    """From magnitudes of the bins that the filterbank uses to the logarithm of its bands."""

    def __init__(self, sample_rate: int) -> None:
        used = np.flatnonzero(filterbank(sample_rate).any(axis=1))
        self.bins = slice(int(used[0]), int(used[-1]) + 1)
        # Transposed twice: MLX's product is faster on a right side that lies in memory by columns.
        self._groups = [
            (
                slice(group.bins.start - self.bins.start, group.bins.stop - self.bins.start),
                mx.array(np.ascontiguousarray(group.weights.T)).T,
            )
            for group in band_groups(sample_rate, GROUP_BANDS)
        ]

    def __call__(self, magnitudes: mx.array) -> mx.array:
        bands = mx.concatenate([magnitudes[..., bins] @ weights for bins, weights in self._groups], axis=-1)
        if SPECIFICATION.multiplier != 1.0:
            bands = bands * SPECIFICATION.multiplier
        return mx.log10(bands + SPECIFICATION.offset)


def _passes(num_stems: int, total: int) -> list[tuple[int, int]]:
    frames = CPU_FRAMES if mx.default_device().type == mx.DeviceType.cpu else GPU_FRAMES
    return list(framing.chunks(total, max(1, frames // num_stems)))


def _with_kernels(stems: npt.NDArray, sample_rate: int, total: int, precision: str) -> mx.array:
    bands_of = _Bands(sample_rate)
    pieces: list[mx.array] = []
    for first, last in _passes(len(stems), total):
        magnitudes = np.empty(
            (len(stems), last - first, bands_of.bins.stop - bands_of.bins.start), np.float32
        )

        def run(stem: int, start: int, stop: int, first: int = first, out: npt.NDArray = magnitudes) -> None:
            transform.magnitudes(
                out[stem, start:stop],
                stems[stem],
                first + start,
                first + stop,
                sample_rate,
                precision,
                bands_of.bins,
            )

        transform.for_each_chunk(run, len(stems), last - first)
        _append(pieces, bands_of(mx.array(magnitudes)))
    return mx.concatenate(pieces, axis=1)


def _on_device(stems: npt.NDArray, sample_rate: int, total: int) -> mx.array:
    bands_of = _Bands(sample_rate)
    taper = mx.array(window(stems.dtype.name, "fast"))
    pieces: list[mx.array] = []
    for first, last in _passes(len(stems), total):
        _append(
            pieces,
            bands_of(_magnitudes(_frames(stems, first, last, sample_rate) * taper)[..., bands_of.bins]),
        )
    return mx.concatenate(pieces, axis=1)


def _append(pieces: list[mx.array], piece: mx.array) -> None:
    """Start on a piece; to bound memory, only when the one before is done."""
    if pieces:
        mx.eval(pieces[-1])
    pieces.append(piece)
    mx.async_eval(piece)


def _magnitudes(windowed: mx.array) -> mx.array:
    """Magnitudes of the first 1024 bins in ``float32``, by the step derived in `decimation`."""
    real, imaginary = mx.array(twiddles().real), mx.array(twiddles().imag)
    first_half, second_half = windowed[..., :HALF], windowed[..., HALF:]
    even = mx.abs(mx.fft.rfft(first_half + second_half)[..., :QUARTER])
    difference = first_half - second_half
    p, q = difference[..., :QUARTER], difference[..., QUARTER:]
    # (p - iq) times the twiddles, written out: MLX multiplies complex numbers slowly on the CPU.
    folded = mx.stack([p * real + q * imaginary, p * imaginary - q * real], axis=-1)
    odd = mx.abs(mx.fft.fft(mx.view(folded.reshape(*p.shape[:-1], HALF), mx.complex64)))
    odd = mx.stack([odd[..., :EIGHTH], odd[..., : EIGHTH - 1 : -1]], axis=-1).reshape(*odd.shape)
    return mx.stack([even, odd], axis=-1).reshape(*odd.shape[:-1], HALF)


def _frames(stems: npt.NDArray, first: int, last: int, sample_rate: int) -> mx.array:
    """Frames ``first`` to ``last`` (excluded) of every stem, ``float32 (num_stems, last - first, 2048)``."""
    starts = framing.frame_starts(first, last, sample_rate)
    stretch = framing.section(stems, int(starts[0]), int(starts[-1]) + SPECIFICATION.frame_size)
    # MLX copies slowly from what is not contiguous.
    signals = mx.array(np.ascontiguousarray(stretch)).astype(mx.float32)
    hop = framing.hop_size(sample_rate)
    if hop.is_integer():
        shape = (len(stems), last - first, SPECIFICATION.frame_size)
        return mx.as_strided(signals, shape, (signals.shape[-1], int(hop), 1))
    index = (starts - starts[0])[:, None] + np.arange(SPECIFICATION.frame_size)
    return mx.take(signals, mx.array(index.astype(np.uint32)), axis=-1)
