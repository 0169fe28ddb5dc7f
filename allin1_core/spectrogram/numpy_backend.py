"""The log spectrogram in numpy and scipy, bit-identical to the oracle when ``exact``.

``exact`` takes the oracle's arithmetic step by step: samples times window in ``float64``, a ``float64`` transform
rounded to ``complex64``, its absolute value, the dense product with the filterbank in numpy's own BLAS (summing
the bands in another order moves the last bit), and the logarithm, all three in ``float32``. What differs is the
order of the work: all frames of a chunk at a time, so that the transform runs across frames with vector
instructions, chunks small enough to stay in the cache, and one thread per core, since each of these calls releases
the interpreter lock.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from allin1_core.spectrogram import framing
from allin1_core.spectrogram.filterbank import filterbank, num_bands, window
from allin1_core.spectrogram.specification import SPECIFICATION

CHUNK_FRAMES = 128


def num_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def magnitudes_into(
    windowed: npt.NDArray, transform: npt.NDArray[np.complex64], magnitudes: npt.NDArray[np.float32]
) -> None:
    """Magnitudes of windowed frames: transform, round to ``complex64``, absolute value."""
    transform[...] = scipy.fft.rfft(windowed, axis=-1, overwrite_x=True)[:, : SPECIFICATION.num_bins]
    np.abs(transform, out=magnitudes)


def log_spectrogram(
    stems: npt.NDArray,
    sample_rate: int,
    *,
    precision: str,
    device: str = "cpu",
    return_native: bool = False,
) -> npt.NDArray[np.float32]:
    """See `allin1_core.spectrogram.protocol.LogSpectrogramBackend`."""
    total = framing.num_frames(stems.shape[-1], sample_rate)
    output = np.empty((len(stems), total, num_bands(sample_rate)), np.float32)
    weights = filterbank(sample_rate)
    taper = window(stems.dtype.name, precision)

    def run(stem: int, first: int, last: int) -> None:
        windowed = np.empty((last - first, SPECIFICATION.frame_size), taper.dtype)
        transform = np.empty((last - first, SPECIFICATION.num_bins), np.complex64)
        magnitudes = np.empty(transform.shape, np.float32)
        np.multiply(framing.frames(stems[stem], first, last, sample_rate), taper, out=windowed)
        magnitudes_into(windowed, transform, magnitudes)
        bands = output[stem, first:last]
        np.dot(magnitudes, weights, out=bands)
        if SPECIFICATION.multiplier != 1.0:
            bands *= SPECIFICATION.multiplier
        bands += SPECIFICATION.offset
        np.log10(bands, out=bands)

    tasks = [(stem, *chunk) for stem in range(len(stems)) for chunk in framing.chunks(total, CHUNK_FRAMES)]
    run_all(run, tasks)
    return output


def run_all(run: Any, tasks: list[tuple[int, int, int]]) -> None:
    """Run every task, on as many threads as there are cores; the first error is raised."""
    workers = min(num_threads(), len(tasks))
    if workers <= 1:
        for task in tasks:
            run(*task)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="log_spectrogram") as pool:
        for _ in pool.map(lambda task: run(*task), tasks):
            pass
