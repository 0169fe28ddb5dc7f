"""The log spectrogram in torch, on CPU, CUDA and Metal (mps): all stems of a stretch of frames at a time.

``exact`` multiplies, transforms and takes magnitudes in ``float64`` and rounds to ``float32`` before the bands are
summed. It differs from the oracle, which rounds the spectrum instead and sums in another order, by the last bits of
a ``float32``. Metal has no ``float64``: there, ``exact`` runs on the CPU and moves the result. ``fast`` is
``float32`` throughout.

On a GPU everything is torch. There the absolute value of a complex tensor guards against overflow and costs more
than the transform; magnitudes of audio need no such guard, so they are the root of the sum of squares. On the CPU
frames become magnitudes in the compiled kernels of `transform`, which write into torch's memory: torch would pass
over its arrays seven times for what they do in the cache. Bands and logarithms are torch everywhere; bands are
summed as a few dense blocks, since 98 % of the filterbank is zero.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch

from allin1_core.spectrogram import framing, transform
from allin1_core.spectrogram.filterbank import band_groups, num_bands, window
from allin1_core.spectrogram.specification import SPECIFICATION

GROUP_BANDS = 20
# Frames of all stems together in one pass, 52 MB of magnitudes: fills a GPU, and on the CPU changes seldom between
# the kernels' threads and torch's, which go on spinning for a while.
PASS_FRAMES = 16384


def log_spectrogram(
    stems: npt.NDArray,
    sample_rate: int,
    *,
    precision: str,
    device: str = "cpu",
    return_native: bool = False,
) -> Any:
    """See `allin1_core.spectrogram.protocol.LogSpectrogramBackend`; native arrays are ``torch.Tensor``."""
    target = torch.device(device)
    runs_on = torch.device("cpu") if target.type == "mps" and precision == "exact" else target
    with torch.inference_mode():
        output = _compute(stems, sample_rate, precision, runs_on).to(target)
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
    groups = [(group.bins, _tensor(group.weights, device)) for group in band_groups(sample_rate, GROUP_BANDS)]
    used = slice(groups[0][0].start, groups[-1][0].stop)
    magnitudes_of = _magnitudes_in_kernels if device.type == "cpu" else _magnitudes
    size = min(total, max(1, PASS_FRAMES // len(stems)))
    # One piece of memory for all passes: what the system hands out anew costs more than what is computed in it.
    buffer = torch.empty((len(stems), size, used.stop - used.start), device=device)
    for first in range(0, total, size):
        last = min(first + size, total)
        magnitudes = buffer[:, : last - first]
        magnitudes_of(magnitudes, stems, first, last, sample_rate, precision, used)
        bands = torch.cat(
            [magnitudes[..., bins.start - used.start : bins.stop - used.start] @ w for bins, w in groups],
            dim=-1,
        )
        if SPECIFICATION.multiplier != 1.0:
            bands.mul_(SPECIFICATION.multiplier)
        # The oracle adds in float32; in float64 our logarithm then adds no error of its own to the oracle's.
        output[:, first:last] = bands.add_(SPECIFICATION.offset).to(real).log10_()
    return output


def _magnitudes_in_kernels(
    out: torch.Tensor,
    stems: npt.NDArray,
    first: int,
    last: int,
    sample_rate: int,
    precision: str,
    bins: slice,
) -> None:
    """As `_magnitudes`, by the compiled kernels."""
    rows = out.numpy()

    def run(stem: int, start: int, stop: int) -> None:
        transform.magnitudes(
            rows[stem, start:stop], stems[stem], first + start, first + stop, sample_rate, precision, bins
        )

    transform.for_each_chunk(run, len(stems), last - first)


def _magnitudes(
    out: torch.Tensor,
    stems: npt.NDArray,
    first: int,
    last: int,
    sample_rate: int,
    precision: str,
    bins: slice,
) -> None:
    """Magnitudes of frames ``first`` to ``last`` (excluded) in ``bins``: ``out`` is ``(num_stems, frames, bins)``."""
    taper = _tensor(window(stems.dtype.name, precision), out.device)
    windowed = _frames(stems, first, last, sample_rate, out.device) * taper
    spectrum = torch.view_as_real(torch.fft.rfft(windowed))[..., bins, :]
    squares = spectrum * spectrum
    out.copy_(torch.add(squares[..., 0], squares[..., 1]).sqrt_())


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
