"""Times of the log spectrogram on a device: `rows` for the report.

From four stems on the host to a tensor on the device, as the pipeline has it: for CUDA they are in pinned memory, into
which it reads them. Beside it the same from memory that is not pinned, as of samples that a caller gives; the same in
torch's operations from such memory, without pieces and without overlap; and the copy of the samples alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allin1_core import backends
from allin1_core.backends.devices import allocator_for, to_host
from allin1_core.spectrogram import SPECIFICATION, filterbank, numpy_backend, select
from allin1_core.spectrogram.filterbank import window
from bench.device.timing import times_by_turns
from parity.agreement import largest_difference
from parity.material import SAMPLE_RATE, default_track

# Frames of a stem in one piece of the plain form, which has 64 kB for each.
_PLAIN_FRAMES = 4096
# Of `exact` from int16 samples, in seconds, for a track of three minutes on one of this year's cards.
_AIM = 5e-3


def rows(*, device: str = "cuda", seconds: float | None = None, rounds: int = 7) -> list[dict[str, object]]:
    """Measure the torch backend on a device.

    Parameters
    ----------
    device : str
    seconds : float, optional
        Length of the track's stems; by default all of it.
    rounds : int

    Returns
    -------
    list of dict
        As `bench.device.timing.Times.as_row`, with the largest ``difference`` from the numpy backend and its ``bound``.
    """
    track = default_track().lasting(seconds)
    stems = np.array(track.stems)
    held = _held(stems, device)
    full_scale = _held((stems / np.float32(32768)).astype(np.float32), device)
    cases: dict[str, Callable[[], Any]] = {}
    for precision in backends.PRECISIONS:
        run = select("torch", device=device, precision=precision)
        cases[f"torch, {precision}"] = functools.partial(run, held, return_native=True)
        cases[f"plain torch, {precision}"] = functools.partial(plain, stems, precision, device)
    run = select("torch", device=device)
    cases["torch, exact, from float32"] = functools.partial(run, full_scale, return_native=True)
    cases["torch, exact, from memory that is not pinned"] = functools.partial(run, stems, return_native=True)
    cases["the copy of the samples alone, not pinned"] = functools.partial(torch.from_numpy(stems).to, device)
    if device.startswith("cuda"):
        cases["the copy of the samples alone, pinned"] = functools.partial(torch.from_numpy(held).to, device)
    times = times_by_turns(cases, device, rounds)
    expected = numpy_backend.log_spectrogram(stems, SAMPLE_RATE, precision="exact")
    found = []
    for name, taken in times.items():
        what, _, source = name.partition(", from ")
        reference = times.get(f"plain {what}") if "float32" not in source else None
        row: dict[str, object] = {**taken.as_row(name, reference), "device": device}
        if "torch" in name and "float32" not in name:
            precision = what.rpartition(", ")[2]
            row["difference"] = largest_difference(to_host(taken.output), expected)
            row["bound"] = backends.get("spectrogram", "torch").bounds[precision].music
        if name == "torch, exact" and device.startswith("cuda"):
            row["aim_seconds"] = _AIM
        found.append(row)
    return found


def _held(samples: np.ndarray, device: str) -> np.ndarray:
    """The samples where the pipeline reads them to for a device."""
    held = allocator_for(device)(samples.shape, samples.dtype)
    held[:] = samples
    return held


def plain(stems: np.ndarray, precision: str, device: str) -> Tensor:
    """The log spectrogram in as few of torch's operations as it takes, ``float32 (stems, frames, bands)``."""
    taper = torch.from_numpy(np.array(window(stems.dtype.name, precision))).to(device)
    weights = torch.from_numpy(np.array(filterbank(SAMPLE_RATE))).to(device)
    size, hop = SPECIFICATION.frame_size, SAMPLE_RATE // SPECIFICATION.frames_per_second
    with torch.inference_mode():
        samples = torch.from_numpy(stems).to(device)
        padded = torch.nn.functional.pad(samples, (size // 2, size))
        framed = padded.unfold(-1, size, hop)[:, : -(-stems.shape[-1] // hop)]
        pieces = []
        for first in range(0, framed.shape[1], _PLAIN_FRAMES):
            spectrum = torch.fft.rfft(framed[:, first : first + _PLAIN_FRAMES] * taper)
            bands = spectrum[..., : SPECIFICATION.num_bins].abs().to(torch.float32) @ weights
            pieces.append(torch.log10(bands + 1))
        return torch.cat(pieces, dim=1)
