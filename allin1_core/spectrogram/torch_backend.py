"""The log spectrogram as torch tensors, on CPU, CUDA and Metal (mps).

On the CPU the tensor holds what the kernels of `fused_backend` compute: torch's own operations pass over their arrays
seven times for what the kernels do in the cache. On a GPU everything is torch (`in_torch`), all stems of a stretch of
frames at a time. Its row of `allin1_core.backends.table` says which of the two it is.

In `in_torch`, ``exact`` multiplies, transforms and takes magnitudes in ``float64`` and rounds to ``float32`` before the
bands are summed. It differs from the oracle, which rounds the spectrum instead and sums in another order, by the last
bits of a ``float32``. Metal has no ``float64``: for it, ``exact`` runs on the CPU and moves the result. ``fast`` is
``float32`` throughout. The absolute value of a complex tensor guards against overflow and costs more than the
transform; magnitudes of audio need no such guard, so they are the root of the sum of squares. Bands are summed as a few
dense blocks, since 98 % of the filterbank is zero.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch

from allin1_core.backends.devices import computation
from allin1_core.spectrogram import framing, fused_backend
from allin1_core.spectrogram.filterbank import band_groups, num_bands, window
from allin1_core.spectrogram.specification import SPECIFICATION

GROUP_BANDS = 20
# Frames of all stems together in one pass: on the CPU what the cache holds, on a GPU what fills it.
CPU_FRAMES = 256
GPU_FRAMES = 16384


def log_spectrogram(
    stems: npt.NDArray, sample_rate: int, *, precision: str, device: str = "cpu", return_native: bool = False
) -> Any:
    """See `allin1_core.spectrogram.protocol.LogSpectrogramBackend`; native arrays are ``torch.Tensor``."""
    if computation("spectrogram", "torch", device, precision).by == "torch":
        return in_torch(stems, sample_rate, precision=precision, device=device, return_native=return_native)
    output = fused_backend.log_spectrogram(stems, sample_rate, precision=precision)
    return torch.from_numpy(output).to(torch.device(device)) if return_native else output


def in_torch(
    stems: npt.NDArray, sample_rate: int, *, precision: str, device: str = "cpu", return_native: bool = False
) -> Any:
    """As `log_spectrogram`, in torch's own operations on any device that has the precision's type."""
    with torch.inference_mode():
        output = _compute(stems, sample_rate, precision, torch.device(device))
    return output if return_native else output.cpu().numpy()


def _tensor(array: npt.NDArray, device: torch.device) -> torch.Tensor:
    # The arrays handed over are only read, and may be read-only, of which torch would warn.
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)


def _compute(stems: npt.NDArray, sample_rate: int, precision: str, device: torch.device) -> torch.Tensor:
    real = torch.float64 if precision == "exact" else torch.float32
    total = framing.num_frames(stems.shape[-1], sample_rate)
    output = torch.empty((len(stems), total, num_bands(sample_rate)), dtype=torch.float32, device=device)
    if output.numel() == 0:
        return output
    taper = _tensor(window(stems.dtype.name, precision), device)
    groups = [(group.bins, _tensor(group.weights, device)) for group in band_groups(sample_rate, GROUP_BANDS)]
    used = slice(groups[0][0].start, groups[-1][0].stop)
    size = max(1, (CPU_FRAMES if device.type == "cpu" else GPU_FRAMES) // len(stems))
    for first in range(0, total, size):
        last = min(first + size, total)
        windowed = _frames(stems, first, last, sample_rate, device) * taper
        spectrum = torch.view_as_real(torch.fft.rfft(windowed))[..., used, :]
        squares = spectrum * spectrum
        magnitudes = torch.add(squares[..., 0], squares[..., 1]).sqrt_().to(torch.float32)
        bands = torch.cat(
            [magnitudes[..., bins.start - used.start : bins.stop - used.start] @ w for bins, w in groups],
            dim=-1,
        )
        if SPECIFICATION.multiplier != 1.0:
            bands.mul_(SPECIFICATION.multiplier)
        # The oracle adds in float32; in float64 our logarithm then adds no error of its own to the oracle's.
        output[:, first:last] = bands.add_(SPECIFICATION.offset).to(real).log10_()
    return output


def _frames(
    stems: npt.NDArray, first: int, last: int, sample_rate: int, device: torch.device
) -> torch.Tensor:
    """Frames ``first`` to ``last`` (excluded) of every stem, ``(num_stems, last - first, 2048)``; read-only."""
    starts = framing.frame_starts(first, last, sample_rate)
    stretch = _tensor(
        framing.section(stems, int(starts[0]), int(starts[-1]) + SPECIFICATION.frame_size), device
    )
    hop = framing.hop_size(sample_rate)
    if hop.is_integer():
        return stretch.unfold(-1, SPECIFICATION.frame_size, int(hop))
    offsets = torch.from_numpy(starts - starts[0]).to(device)
    return stretch.unfold(-1, SPECIFICATION.frame_size, 1).index_select(-2, offsets)
