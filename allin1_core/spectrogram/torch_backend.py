"""The log spectrogram as torch tensors, on CPU, CUDA and Metal (mps).

On the CPU the tensor holds what the kernels of `fused_backend` compute: torch's own operations pass over their arrays
seven times for what the kernels do in the cache. On a GPU everything is torch (`in_torch`), all stems of a stretch of
frames at a time. Its row of `allin1_core.backends.table` says which of the two it is.

In `in_torch`, ``exact`` multiplies and transforms in ``float64`` and rounds the spectrum, as the oracle does; it sums
the bands in another order, and so differs by the last bits of a ``float32``. Metal has no ``float64``: for it,
``exact`` runs on the CPU and moves the result. ``fast`` is ``float32`` throughout. The absolute value of a complex
tensor guards against overflow, which costs Metal more than the transform; magnitudes of audio need no such guard, so
that in ``fast`` they are the root of the sum of squares. Bands are summed as a few dense blocks, since 98 % of the
filterbank is zero.

To a CUDA device the samples go as they are, a piece at a time through pinned memory, while the device computes on the
piece before (`_Staging`). From memory that is not pinned the driver copies at a sixth of the bus's rate, and takes
three times as long as all the arithmetic.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
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
    where = torch.device(device)
    if where.type == "cuda" and where.index is None:
        where = torch.device("cuda", torch.cuda.current_device())
    with torch.inference_mode():
        output = _compute(stems, sample_rate, precision, where)
    return output if return_native else output.cpu().numpy()


def _on_host(array: npt.NDArray) -> torch.Tensor:
    # The arrays handed over are only read, and may be read-only, of which torch would warn.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


class _Staging:
    """Copies samples to a CUDA device, each piece while the device computes on the piece before.

    Two pinned buffers take turns; each is free again when its copy to the device has ended. torch reuses pinned memory
    that was freed, so that only the first call allocates it. It reuses a device's memory for the same stream only, so
    that all calls copy on one stream.

    Parameters
    ----------
    stems : int16 or float32 (num_stems, num_samples)
    longest : int
        Samples of a stem in the longest piece.
    device : torch.device
    """

    def __init__(self, stems: npt.NDArray, longest: int, device: torch.device) -> None:
        self._samples = _on_host(stems)
        self._device = device
        self._stream = _copying_stream(device)
        size, dtype = len(stems) * longest, self._samples.dtype
        self._turns = itertools.cycle(
            [
                (torch.empty(size, dtype=dtype, pin_memory=True), torch.cuda.Event(), torch.cuda.Event())
                for _ in range(2)
            ]
        )

    def __call__(self, start: int, stop: int) -> torch.Tensor:
        """As `framing.section`, on the device for what its current stream computes next."""
        num_stems, num_samples = self._samples.shape
        buffer, copied, computed = next(self._turns)
        copied.synchronize()
        piece = buffer[: num_stems * (stop - start)].view(num_stems, stop - start)
        first, last = min(max(start, 0), num_samples), min(max(stop, 0), num_samples)
        piece[:, : first - start].zero_()
        piece[:, first - start : last - start].copy_(self._samples[:, first:last])
        piece[:, last - start :].zero_()
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            # Bounds the device's memory: by then the piece of three calls ago was computed on.
            self._stream.wait_event(computed)
            found = piece.to(self._device, non_blocking=True)
            copied.record()
        computed.record(computing)
        computing.wait_event(copied)
        found.record_stream(computing)
        return found


@functools.cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


@functools.cache
def _constants(
    dtype: str, precision: str, sample_rate: int, device: torch.device
) -> tuple[torch.Tensor, list[tuple[slice, torch.Tensor]]]:
    """Taper and groups of the filterbank, on a device."""
    taper = _on_host(window(dtype, precision)).to(device)
    groups = band_groups(sample_rate, GROUP_BANDS)
    return taper, [(group.bins, _on_host(group.weights).to(device)) for group in groups]


def _compute(stems: npt.NDArray, sample_rate: int, precision: str, device: torch.device) -> torch.Tensor:
    real = torch.float64 if precision == "exact" else torch.float32
    total = framing.num_frames(stems.shape[-1], sample_rate)
    output = torch.empty((len(stems), total, num_bands(sample_rate)), dtype=torch.float32, device=device)
    if output.numel() == 0:
        return output
    taper, groups = _constants(stems.dtype.name, precision, sample_rate, device)
    used = slice(groups[0][0].start, groups[-1][0].stop)
    size = min(total, max(1, (CPU_FRAMES if device.type == "cpu" else GPU_FRAMES) // len(stems)))
    section = _sections(stems, size, sample_rate, device)
    for first in range(0, total, size):
        last = min(first + size, total)
        windowed = _frames(section, first, last, sample_rate) * taper
        magnitudes = _magnitudes(torch.fft.rfft(windowed)[..., used])
        bands = torch.cat(
            [magnitudes[..., bins.start - used.start : bins.stop - used.start] @ w for bins, w in groups],
            dim=-1,
        )
        if SPECIFICATION.multiplier != 1.0:
            bands.mul_(SPECIFICATION.multiplier)
        # The oracle adds in float32; in float64 our logarithm then adds no error of its own to the oracle's.
        output[:, first:last] = bands.add_(SPECIFICATION.offset).to(real).log10_()
    return output


def _magnitudes(spectrum: torch.Tensor) -> torch.Tensor:
    if spectrum.dtype == torch.complex128:
        return spectrum.to(torch.complex64).abs()
    parts = torch.view_as_real(spectrum)
    squares = parts * parts
    return torch.add(squares[..., 0], squares[..., 1]).sqrt_()


def _sections(
    stems: npt.NDArray, num_frames: int, sample_rate: int, device: torch.device
) -> Callable[[int, int], torch.Tensor]:
    """A function that gives samples ``start`` to ``stop`` on the device, with zeros where there are none."""
    if device.type == "cuda":
        starts = framing.frame_starts(0, num_frames, sample_rate)
        # Where the hop is no whole number of samples, the same number of frames may be a sample longer.
        longest = int(starts[-1] - starts[0]) + SPECIFICATION.frame_size + 1
        return _Staging(stems, longest, device)
    return lambda start, stop: _on_host(framing.section(stems, start, stop)).to(device)


def _frames(
    section: Callable[[int, int], torch.Tensor], first: int, last: int, sample_rate: int
) -> torch.Tensor:
    """Frames ``first`` to ``last`` (excluded) of every stem, ``(num_stems, last - first, 2048)``; read-only."""
    starts = framing.frame_starts(first, last, sample_rate)
    stretch = section(int(starts[0]), int(starts[-1]) + SPECIFICATION.frame_size)
    hop = framing.hop_size(sample_rate)
    if hop.is_integer():
        return stretch.unfold(-1, SPECIFICATION.frame_size, int(hop))
    offsets = torch.from_numpy(starts - starts[0]).to(stretch.device)
    return stretch.unfold(-1, SPECIFICATION.frame_size, 1)[..., offsets, :]
