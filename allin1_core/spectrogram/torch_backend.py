"""The log spectrogram as torch tensors, on CPU, CUDA and Metal (mps).

On the CPU the tensor holds what the kernels of `fused_backend` compute: torch's own operations pass over their arrays
six times for what the kernels do in the cache. On a GPU everything is torch (`in_torch`), a stem or several at a time,
or a piece of one. Its row of `allin1_core.backends.table` says which of the two it is.

In `in_torch`, ``exact`` multiplies, transforms and takes magnitudes in ``float64`` and rounds those; the oracle rounds
the spectrum, and sums the bands in another order, so that the two differ by the last bits of a ``float32``. Metal has
no ``float64``: for it, ``exact`` runs on the CPU and moves the result. ``fast`` is ``float32`` throughout, but on CUDA
it is ``exact``: of a song of three minutes that takes 3.5 ms on an H100 instead of 2.9, and cuFFT's transforms in
``float32`` gave one value of 650,000 that was 1.54e-6 off, where 1.5e-6 is promised.

Each call of torch gives the interpreter's lock away, for which other tracks' threads compete, and on CUDA launches a
kernel: there are as few as may be. The filterbank, of which 98 % is zero, is one dense product, as fast on a GPU as
its blocks; and results are converted as they are stored (``out=``).

To a CUDA device the samples go as they are, a piece at a time from pinned memory, while the device computes on the
piece before (`_copied_to_cuda`). From memory that is not pinned the driver copies at a sixth of the bus's rate, and
takes three times as long as all the arithmetic; such samples are copied through pinned memory on the host.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from allin1_core.backends.devices import computation, products_in_tf32
from allin1_core.spectrogram import framing, fused_backend
from allin1_core.spectrogram.filterbank import filterbank, num_bands, window
from allin1_core.spectrogram.specification import SPECIFICATION

# Frames in one pass, about: on the CPU what the cache holds, on a GPU what takes 1.5 GB there, two stems of a song.
CPU_FRAMES = 256
GPU_FRAMES = 40960


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
    # Rounded to TF32, as a caller may have set, the sums of the bands would be a thousand times as far off.
    with torch.inference_mode(), products_in_tf32(False):
        output = _compute(stems, sample_rate, "exact" if where.type == "cuda" else precision, where)
    return output if return_native else output.cpu().numpy()


def _on_host(array: npt.NDArray) -> torch.Tensor:
    # The arrays handed over are only read, and may be read-only, of which torch would warn.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


@functools.cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


class _Constants(NamedTuple):
    """What every piece is multiplied by, on a device; of the spectrum and the filterbank only the bins with weights."""

    taper: torch.Tensor
    used: slice
    weights: torch.Tensor


@functools.cache
def _constants(dtype: str, precision: str, sample_rate: int, device: torch.device) -> _Constants:
    weights = filterbank(sample_rate)
    bins = np.flatnonzero(weights.any(axis=1))
    used = slice(int(bins[0]), int(bins[-1]) + 1)
    taper = _on_host(window(dtype, precision)).to(device)
    return _Constants(taper, used, _on_host(weights[used]).to(device))


class _Piece(NamedTuple):
    """Frames ``first`` to ``last`` (excluded) of stems, and where their samples start and stop."""

    stems: slice
    first: int
    last: int
    start: int
    stop: int


def _pieces(num_stems: int, total: int, most: int, sample_rate: int) -> list[_Piece]:
    """All frames of all stems, in pieces of about `most`, and never of half as many again: whole stems, or of one."""
    size = math.ceil(total / max(1, round(total / most)))
    together = max(1, most // total)
    pieces = []
    for stem in range(0, num_stems, together):
        stems = slice(stem, min(stem + together, num_stems))
        for first in range(0, total, size):
            last = min(first + size, total)
            starts = framing.frame_starts(first, last, sample_rate)
            stop = int(starts[-1]) + SPECIFICATION.frame_size
            pieces.append(_Piece(stems, first, last, int(starts[0]), stop))
    return pieces


def _compute(stems: npt.NDArray, sample_rate: int, precision: str, device: torch.device) -> torch.Tensor:
    total = framing.num_frames(stems.shape[-1], sample_rate)
    output = torch.empty((len(stems), total, num_bands(sample_rate)), dtype=torch.float32, device=device)
    if output.numel() == 0:
        return output
    constants = _constants(stems.dtype.name, precision, sample_rate, device)
    most = CPU_FRAMES if device.type == "cpu" else GPU_FRAMES
    pieces = _pieces(len(stems), total, most, sample_rate)
    copied = _copied_to_cuda if device.type == "cuda" else _copied
    with contextlib.closing(copied(stems, pieces, device)) as stretches:
        for piece, stretch in zip(pieces, stretches, strict=True):
            frames = _frames(stretch, piece, sample_rate)
            _log_bands(frames, constants, output[piece.stems, piece.first : piece.last])
    return output


def _log_bands(frames: torch.Tensor, constants: _Constants, out: torch.Tensor) -> None:
    """The log spectrogram of frames, ``(num_stems, num_frames, 2048)``, into ``float32 (..., num_bands)``."""
    magnitudes = _magnitudes(torch.fft.rfft(frames * constants.taper)[..., constants.used])
    bands = magnitudes @ constants.weights
    if SPECIFICATION.multiplier != 1.0:
        bands.mul_(SPECIFICATION.multiplier)
    # The oracle adds in float32; in float64 our logarithm then adds no error of its own to the oracle's.
    sums = torch.empty_like(bands, dtype=constants.taper.dtype)
    torch.log10(torch.add(bands, SPECIFICATION.offset, out=sums), out=out)


def _magnitudes(spectrum: torch.Tensor) -> torch.Tensor:
    """Magnitudes in ``float32``; `torch.abs` of complex numbers takes two kernels on CUDA, and writes twice as much."""
    parts = torch.view_as_real(spectrum)
    real, imaginary = parts[..., 0], parts[..., 1]
    if spectrum.device.type == "mps":
        return _unguarded_hypot(real, imaginary)
    return torch.hypot(real, imaginary, out=torch.empty_like(real, dtype=torch.float32))


def _unguarded_hypot(real: torch.Tensor, imaginary: torch.Tensor) -> torch.Tensor:
    """To guard against overflow costs Metal more than the transform, and magnitudes of audio need no such guard."""
    return torch.addcmul(real * real, imaginary, imaginary).sqrt_()


def _frames(stretch: torch.Tensor, piece: _Piece, sample_rate: int) -> torch.Tensor:
    """The frames of a piece, ``(num_stems, num_frames, 2048)``, of its samples; read-only."""
    hop = framing.hop_size(sample_rate)
    if hop.is_integer():
        return stretch.unfold(-1, SPECIFICATION.frame_size, int(hop))
    offsets = torch.from_numpy(framing.frame_starts(piece.first, piece.last, sample_rate) - piece.start)
    return stretch.unfold(-1, SPECIFICATION.frame_size, 1)[..., offsets.to(stretch.device), :]


def _copied(
    stems: npt.NDArray, pieces: list[_Piece], device: torch.device
) -> Generator[torch.Tensor, None, None]:
    """The samples of each piece on a device, ``(num_stems, stop - start)``, with zeros where the stems have none."""
    for piece in pieces:
        yield _on_host(framing.section(stems[piece.stems], piece.start, piece.stop)).to(device)


class _Turn(NamedTuple):
    """What every second piece is copied through."""

    samples: torch.Tensor  # on the device
    staging: torch.Tensor | None  # pinned; None where the samples are
    copied: torch.cuda.Event
    computed: torch.cuda.Event


def _copied_to_cuda(
    stems: npt.NDArray, pieces: list[_Piece], device: torch.device
) -> Generator[torch.Tensor, None, None]:
    """As `_copied`, each piece copied while the device computes on the piece before.

    A piece is one copy of contiguous samples on a stream of its own, and two of the device's buffers take turns.
    Samples that are pinned are copied from where they are, and the host waits for nothing before the end. Others go
    through two pinned buffers, each of which is free again when its copy to the device has ended; torch reuses pinned
    memory that was freed, so that only the first call allocates them.

    A piece is valid, for work on the stream that was current at the beginning, until the next is asked for. When this
    ends or is closed, all copies have ended: torch does not know that they read the caller's pinned array, which may
    be freed or overwritten as soon as the call returns.
    """
    samples = _on_host(stems)
    is_pinned = samples.is_pinned()
    num_stems, num_samples = samples.shape
    shapes = [(len(range(*piece.stems.indices(num_stems))), piece.stop - piece.start) for piece in pieces]
    longest = max(map(math.prod, shapes))
    computing, copying = torch.cuda.current_stream(device), _copying_stream(device)
    turns = [
        _Turn(
            torch.empty(longest, dtype=samples.dtype, device=device),
            None if is_pinned else torch.empty(longest, dtype=samples.dtype, pin_memory=True),
            torch.cuda.Event(),
            torch.cuda.Event(),
        )
        for _ in pieces[:2]
    ]
    # What had the memory of these buffers before was computed on this stream.
    copying.wait_stream(computing)
    try:
        for piece, shape, turn in zip(pieces, shapes, itertools.cycle(turns), strict=False):
            start, stop = piece.start, piece.stop
            first, last = max(start, 0), min(stop, num_samples)
            source = samples[piece.stems, first:last]
            stretch = turn.samples[: math.prod(shape)].view(shape)
            if turn.staging is not None:
                turn.copied.synchronize()
                source = turn.staging[: source.numel()].view(source.shape).copy_(source)
            with torch.cuda.stream(copying):
                copying.wait_event(turn.computed)
                stretch[:, : first - start].zero_()
                stretch[:, first - start : last - start].copy_(source, non_blocking=True)
                stretch[:, last - start :].zero_()
                turn.copied.record()
            computing.wait_event(turn.copied)
            yield stretch
            turn.computed.record(computing)
    finally:
        for turn in turns:
            turn.copied.synchronize()
