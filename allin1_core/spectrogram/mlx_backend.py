"""The log spectrogram as MLX arrays, on its default device.

MLX transforms in ``float32`` only, which cannot meet the oracle within 1e-6. ``exact`` is therefore computed on the
CPU, by the kernels of `fused_backend`, and so is ``fast`` where MLX's device is the CPU. On Metal ``fast`` is MLX from
samples to bands (`in_mlx`). Its row of `allin1_core.backends.table` says which of the two it is.

In `in_mlx`, bands are summed in small dense blocks along the filterbank's diagonal, since 98 % of it is zero.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from allin1_core.backends.devices import computation
from allin1_core.spectrogram import framing, fused_backend
from allin1_core.spectrogram.decimation import EIGHTH, HALF, QUARTER, twiddles
from allin1_core.spectrogram.filterbank import band_groups, filterbank, num_bands, window
from allin1_core.spectrogram.specification import SPECIFICATION

GROUP_BANDS = 3
# Frames of all stems together in one pass: what fills a GPU.
PASS_FRAMES = 8192


def log_spectrogram(
    stems: npt.NDArray, sample_rate: int, *, precision: str, device: str = "mlx", return_native: bool = False
) -> Any:
    """See `allin1_core.spectrogram.protocol.LogSpectrogramBackend`; native arrays are ``mlx.core.array``."""
    if computation("spectrogram", "mlx", device, precision).by == "mlx":
        return in_mlx(stems, sample_rate, precision=precision, return_native=return_native)
    output = fused_backend.log_spectrogram(stems, sample_rate, precision=precision)
    return mx.array(output) if return_native else output


def in_mlx(
    stems: npt.NDArray, sample_rate: int, *, precision: str, device: str = "mlx", return_native: bool = False
) -> Any:
    """As `log_spectrogram`, in MLX's own operations on any of its devices; always ``float32``."""
    total = framing.num_frames(stems.shape[-1], sample_rate)
    if total == 0 or len(stems) == 0:
        output = mx.zeros((len(stems), total, num_bands(sample_rate)), mx.float32)
    else:
        output = _compute(stems, sample_rate, total)
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


def _compute(stems: npt.NDArray, sample_rate: int, total: int) -> mx.array:
    bands_of = _Bands(sample_rate)
    taper = mx.array(window(stems.dtype.name, "fast"))
    pieces: list[mx.array] = []
    for first, last in framing.chunks(total, max(1, PASS_FRAMES // len(stems))):
        magnitudes = _magnitudes(_frames(stems, first, last, sample_rate) * taper)[..., bands_of.bins]
        if pieces:
            mx.eval(pieces[-1])  # bounds memory: at most one pass is in flight
        pieces.append(bands_of(magnitudes))
        mx.async_eval(pieces[-1])
    return mx.concatenate(pieces, axis=1)


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
