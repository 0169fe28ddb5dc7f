"""Validation of the log spectrogram's input, before a backend is called."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from allin1_core.audio.types import LARGEST_SAMPLE, check_sample_type
from allin1_core.errors import AudioError

_FINITE_BLOCK = 1 << 20


def validate_stems(stems: npt.ArrayLike) -> npt.NDArray:
    """The stems as ``(num_stems, num_samples)`` or ``(num_samples,)``, contiguous along the last axis.

    Raises
    ------
    AudioError
        If the type is neither ``int16`` nor ``float32``, there are not one or two axes, or a sample is not finite
        or beyond `LARGEST_SAMPLE`.
    """
    array = np.asarray(stems)
    dtype = array.dtype.newbyteorder("=")
    check_sample_type(dtype, "stems", AudioError)
    if array.ndim not in (1, 2):
        raise AudioError(
            f"stems: found shape {array.shape}; expected (num_stems, num_samples) or (num_samples,); "
            "mix channels to mono first"
        )
    if dtype == np.float32:
        _validate_finite(array)
    # A copy only where byte order or strides are not those of plain memory.
    return np.ascontiguousarray(array, dtype=dtype)


def _validate_finite(array: npt.NDArray) -> None:
    for stem, signal in enumerate(np.atleast_2d(array)):
        for start in range(0, signal.size, _FINITE_BLOCK):
            sound = np.abs(signal[start : start + _FINITE_BLOCK]) <= LARGEST_SAMPLE  # False for NaN
            if not sound.all():
                sample = start + int(np.argmin(sound))
                index = f"[{stem}, {sample}]" if array.ndim == 2 else f"[{sample}]"
                raise AudioError(
                    f"stems{index}: found {signal[sample]}; expected finite samples, full scale at 1.0; "
                    "repair or re-export the audio"
                )
