"""The log spectrogram in numpy and scipy, on one machine bit-identical to the oracle when ``exact``, up to 33 minutes.

``exact`` takes the oracle's arithmetic step by step: samples times window in ``float64``, a ``float64`` transform
rounded to ``complex64``, its absolute value, the dense product with the filterbank, and the logarithm, the last
three in ``float32``. What differs is the order of the work: many frames at a time, so that the transform runs
across frames with vector instructions; chunks small enough to stay in the cache; a thread per core, since all of
these calls release the interpreter lock.

Only the product is not cut into chunks. A BLAS sums in an order that depends on the number of rows and on how it
shares them among its threads, so the last bit is the oracle's only if the shape is: one product per stem. Its
magnitudes take 4 kB a frame, 1.5 GB an hour. Beyond `PRODUCT_FRAMES` (33 minutes) the product is cut, to bound memory;
there the last bits may differ, by what its row of the table of backends declares. No size of the pieces avoids that,
because BLAS chooses the order of a row's sum by the number of all rows.

``fast`` computes in ``float32`` throughout and sums the bands block by block within a chunk.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft

from allin1_core.spectrogram import framing
from allin1_core.spectrogram.decimation import EIGHTH, HALF, QUARTER, twiddles
from allin1_core.spectrogram.filterbank import band_groups, filterbank, num_bands, window
from allin1_core.spectrogram.specification import SPECIFICATION
from allin1_core.threads import ThreadPool

CHUNK_FRAMES = 64
PRODUCT_FRAMES = 200_000
# OpenBLAS shares a product of more than 2**18 multiplications among threads of its own, which then wait for ours. The
# largest block of ten bands has 344 bins: 64 * 344 * 10 is below that.
GROUP_BANDS = 10


def log_spectrogram(
    stems: npt.NDArray, sample_rate: int, *, precision: str, device: str = "cpu", return_native: bool = False
) -> npt.NDArray[np.float32]:
    """See `allin1_core.spectrogram.protocol.LogSpectrogramBackend`."""
    total = framing.num_frames(stems.shape[-1], sample_rate)
    output = np.empty((len(stems), total, num_bands(sample_rate)), np.float32)
    if output.size == 0:
        return output
    with ThreadPool(name="log_spectrogram") as pool:
        compute = _exact if precision == "exact" else _fast
        compute(stems, sample_rate, output, pool)
    return output


def _windowed(
    signal: npt.NDArray, first: int, last: int, sample_rate: int, taper: npt.NDArray
) -> npt.NDArray:
    """Frames ``first`` to ``last`` (excluded) times the window, of its type, ``(last - first, 2048)``."""
    windowed = framing.frames(signal, first, last, sample_rate).astype(taper.dtype)
    windowed *= taper
    return windowed


def _exact_magnitudes(out: npt.NDArray[np.float32], windowed: npt.NDArray[np.float64]) -> None:
    """Magnitudes of frames, ``float32 (num_frames, 1024)``."""
    spectrum = scipy.fft.rfft(windowed, axis=-1, overwrite_x=True)
    np.abs(np.ascontiguousarray(spectrum[:, : SPECIFICATION.num_bins], np.complex64), out=out)


def _fast_magnitudes(out: npt.NDArray[np.float32], windowed: npt.NDArray[np.float32]) -> None:
    """As `_exact_magnitudes` in ``float32``, by the step derived in `decimation`."""
    first_half, second_half = windowed[:, :HALF], windowed[:, HALF:]
    even = scipy.fft.rfft(first_half + second_half, axis=-1, overwrite_x=True)
    difference = np.subtract(first_half, second_half, out=first_half)
    folded = np.empty((len(windowed), QUARTER), np.complex64)
    folded.real = difference[:, :QUARTER]
    np.negative(difference[:, QUARTER:], out=folded.imag)
    folded *= twiddles()
    odd = np.abs(scipy.fft.fft(folded, axis=-1, overwrite_x=True))
    np.abs(even[:, :QUARTER], out=out[:, 0::2])
    out[:, 1::4] = odd[:, :EIGHTH]
    out[:, 3::4] = odd[:, : EIGHTH - 1 : -1]


def _logarithm_in_place(bands: npt.NDArray[np.float32]) -> None:
    if SPECIFICATION.multiplier != 1.0:
        bands *= SPECIFICATION.multiplier
    bands += SPECIFICATION.offset
    np.log10(bands, out=bands)


def _exact(stems: npt.NDArray, sample_rate: int, output: npt.NDArray[np.float32], pool: ThreadPool) -> None:
    weights = filterbank(sample_rate)
    taper = window(stems.dtype.name, "exact")
    total = output.shape[1]
    size = -(-total // -(-total // PRODUCT_FRAMES))
    buffer = np.empty((size, SPECIFICATION.num_bins), np.float32)
    for signal, bands in zip(stems, output, strict=True):
        for start in range(0, total, size):
            stop = min(start + size, total)
            magnitudes = buffer[: stop - start]
            tasks = [
                (magnitudes[first:last], signal, start + first, start + last)
                for first, last in framing.chunks(stop - start, CHUNK_FRAMES)
            ]
            pool.map(lambda task: _exact_magnitudes(task[0], _windowed(*task[1:], sample_rate, taper)), tasks)
            np.dot(magnitudes, weights, out=bands[start:stop])
        _logarithm_in_place(bands)


def _fast(stems: npt.NDArray, sample_rate: int, output: npt.NDArray[np.float32], pool: ThreadPool) -> None:
    groups = band_groups(sample_rate, GROUP_BANDS)
    taper = window(stems.dtype.name, "fast")

    def run(task: tuple[int, int, int]) -> None:
        stem, first, last = task
        magnitudes = np.empty((last - first, SPECIFICATION.num_bins), np.float32)
        _fast_magnitudes(magnitudes, _windowed(stems[stem], first, last, sample_rate, taper))
        bands = output[stem, first:last]
        for group in groups:
            bands[:, group.bands] = magnitudes[:, group.bins] @ group.weights
        _logarithm_in_place(bands)

    chunks = list(framing.chunks(output.shape[1], CHUNK_FRAMES))
    pool.map(run, [(stem, *chunk) for stem in range(len(stems)) for chunk in chunks])
