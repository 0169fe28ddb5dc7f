"""Validation of the log spectrogram's input, before a backend is called."""

from __future__ import annotations

import operator
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from allin1_core.audio.types import check_finite, check_sample_type
from allin1_core.errors import AudioError
from allin1_core.spectrogram.specification import SPECIFICATION


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
    for stem, signal in enumerate(np.atleast_2d(array)):
        check_finite(signal, f"stems[{stem}]" if array.ndim == 2 else "stems")
    # A copy only where byte order or strides are not those of plain memory.
    return np.ascontiguousarray(array, dtype=dtype)


def validate_sample_rate(sample_rate: SupportsIndex) -> int:
    """The sample rate in Hz as an ``int``.

    Raises
    ------
    AudioError
        If it is not a whole number, or leaves less than one sample per frame step.
    """
    if isinstance(sample_rate, float) and sample_rate.is_integer():
        sample_rate = int(sample_rate)
    try:
        rate = operator.index(sample_rate)
    except TypeError as error:
        raise AudioError(
            f"sample_rate: found {sample_rate!r}; expected a whole number of samples per second, such as 44100"
        ) from error
    if isinstance(sample_rate, bool) or rate < SPECIFICATION.frames_per_second:
        raise AudioError(
            f"sample_rate: found {sample_rate!r} Hz; expected at least {SPECIFICATION.frames_per_second}, "
            "so that a frame step is a sample or more; 44100 is what the models were trained with"
        )
    return rate
