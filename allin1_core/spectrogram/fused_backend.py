"""The log spectrogram in the compiled kernels: from samples to bands in one pass, needing nothing but numpy.

``exact`` computes in ``float64`` from the window to the sums of the bands, and rounds to ``float32`` where the oracle's
result does: before the offset is added, after it, and after the logarithm. What is left of the difference is the
oracle's own rounding. ``fast`` computes in ``float32`` up to the bands.

The derivation is in ``transform.h``. This module makes its tables, cuts the work into chunks of frames for a thread
per core, and checks what the kernels do not. A frame's result does not depend on the chunk it lies in.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from allin1_core.spectrogram import _transform, framing
from allin1_core.spectrogram.filterbank import filterbank, num_bands, window
from allin1_core.spectrogram.specification import SPECIFICATION
from allin1_core.threads import ThreadPool

CHUNK_FRAMES = 256
_POINTS = SPECIFICATION.frame_size // 2
_STEPS = (1024, 256, 64, 16)


@dataclasses.dataclass(frozen=True)
class _Tables:
    """What the kernel reads, in the precision it computes in."""

    twiddles: npt.NDArray[np.floating]
    turns: npt.NDArray[np.floating]
    positions: npt.NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class _Bands:
    """The filterbank, a run of weights for each band."""

    starts: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int32]
    weights: npt.NDArray[np.floating]
    num_bins: int


def _real(precision: str) -> type[np.floating]:
    return np.float64 if precision == "exact" else np.float32


def _frozen(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The table, read-only: it is the same array for every call."""
    table.setflags(write=False)
    return table


def _interleaved(values: npt.NDArray[np.complex128], precision: str) -> npt.NDArray[np.floating]:
    return _frozen(np.stack([values.real, values.imag], axis=-1).ravel().astype(_real(precision)))


@functools.cache
def _tables(precision: str) -> _Tables:
    twiddles = [
        np.exp(-2j * np.pi * np.outer(np.arange(length // 4), (1, 2, 3)) / length).ravel()
        for length in _STEPS
    ]
    turns = np.exp(-1j * np.pi * np.arange(_POINTS // 2 + 1) / _POINTS)
    positions = np.arange(_POINTS).reshape(4, 4, 4, 4, 4).transpose(4, 3, 2, 1, 0).ravel().astype(np.int32)
    return _Tables(
        _interleaved(np.concatenate(twiddles), precision), _interleaved(turns, precision), _frozen(positions)
    )


@functools.cache
def _taper(dtype: str, precision: str) -> npt.NDArray[np.floating]:
    """Half of the window: the kernel's formula for real frames halves its terms."""
    return _frozen(window(dtype, precision) / 2)


@functools.cache
def _bands(sample_rate: int, precision: str) -> _Bands:
    rows = filterbank(sample_rate).T
    spans = [np.flatnonzero(row)[[0, -1]] + (0, 1) for row in rows]
    weights = np.concatenate([row[start:stop] for row, (start, stop) in zip(rows, spans, strict=True)])
    return _Bands(
        _frozen(np.array([start for start, _ in spans], np.int32)),
        _frozen(np.array([stop - start for start, stop in spans], np.int32)),
        _frozen(weights.astype(_real(precision))),
        int(max(stop for _, stop in spans)),
    )


def log_spectrogram(
    stems: npt.NDArray, sample_rate: int, *, precision: str, device: str = "cpu", return_native: bool = False
) -> npt.NDArray[np.float32]:
    """See `allin1_core.spectrogram.protocol.LogSpectrogramBackend`."""
    total = framing.num_frames(stems.shape[-1], sample_rate)
    output = np.empty((len(stems), total, num_bands(sample_rate)), np.float32)

    def run(task: tuple[int, int, int]) -> None:
        stem, first, last = task
        log_bands(output[stem, first:last], stems[stem], first, last, sample_rate, precision)

    chunks = list(framing.chunks(total, CHUNK_FRAMES))
    with ThreadPool(name="log_spectrogram") as pool:
        pool.map(run, [(stem, *chunk) for stem in range(len(stems)) for chunk in chunks])
    return output


def log_bands(
    out: npt.NDArray[np.float32],
    signal: npt.NDArray,
    first: int,
    last: int,
    sample_rate: int,
    precision: str,
    *,
    instruction_set: str | None = None,
) -> None:
    """Log bands of frames ``first`` to ``last`` (excluded) of a signal.

    Parameters
    ----------
    out : float32 (last - first, num_bands)
        Contiguous; written to.
    signal : int16 or float32 (num_samples,)
    sample_rate : int
        Samples per second.
    precision : str
        ``exact`` computes in ``float64``, ``fast`` in ``float32``.
    instruction_set : str, optional
        The instruction set to run, by default the best one of this machine; for tests.

    Raises
    ------
    ValueError
        If `out` has another shape or type, or the instruction set has no kernels here.
    """
    if out.shape != (last - first, num_bands(sample_rate)) or out.dtype != np.float32:
        raise ValueError(
            f"out: {out.dtype} {out.shape}; expected float32 {(last - first, num_bands(sample_rate))}"
        )
    starts = framing.frame_starts(first, last, sample_rate)
    stretch = framing.section(signal, int(starts[0]), int(starts[-1]) + SPECIFICATION.frame_size)
    tables, bands = _tables(precision), _bands(sample_rate, precision)
    _transform.run(
        instruction_set,
        np.ascontiguousarray(stretch),
        starts - starts[0],
        _taper(signal.dtype.name, precision),
        tables.twiddles,
        tables.turns,
        tables.positions,
        bands.num_bins,
        bands.starts,
        bands.sizes,
        bands.weights,
        SPECIFICATION.multiplier,
        SPECIFICATION.offset,
        out,
        np.empty(_transform.SCRATCH_SIZE, np.uint8),
    )
