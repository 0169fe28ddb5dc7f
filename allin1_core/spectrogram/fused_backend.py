"""The log spectrogram in the compiled kernels: from samples to bands in one pass, needing nothing but numpy.

``exact`` computes in ``float64`` from the window to the sums of the bands, and rounds to ``float32`` where the oracle's
result does: before the offset is added, after it, and after the logarithm. What is left of the difference is the
oracle's own rounding. ``fast`` computes in ``float32`` up to the bands.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from allin1_core.spectrogram import framing, transform
from allin1_core.spectrogram.filterbank import num_bands

CHUNK_FRAMES = transform.CHUNK_FRAMES


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

    def run(stem: int, first: int, last: int) -> None:
        transform.bands(output[stem, first:last], stems[stem], first, last, sample_rate, precision)

    transform.for_each_chunk(run, len(stems), total, CHUNK_FRAMES)
    return output
