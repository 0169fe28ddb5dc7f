"""The oracle of the log spectrogram: madmom's own processors, built fresh for every signal.

Fresh, because madmom's transform keeps the window it scaled for the first signal's type, and on a signal of another
type it is then wrong by a factor of 32,767.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from allin1_core.spectrogram.specification import SPECIFICATION
from parity.oracles.madmom_import import import_madmom


def madmom_spectrogram(signal: npt.NDArray, sample_rate: int) -> npt.NDArray[np.float32]:
    """madmom's log spectrogram of one signal.

    Parameters
    ----------
    signal : int16 or float32 (num_samples,)

    Returns
    -------
    float32 (num_frames, num_bands)
        ``(0, num_bands)`` for an empty signal, for which madmom itself has no defined result: it fails or returns
        an array without bands, by version of numpy.
    """
    import_madmom()
    from madmom.audio.signal import FramedSignalProcessor, Signal
    from madmom.audio.spectrogram import FilteredSpectrogramProcessor, LogarithmicSpectrogramProcessor
    from madmom.audio.stft import ShortTimeFourierTransformProcessor
    from madmom.processors import SequentialProcessor

    if signal.size == 0:
        return np.zeros((0, madmom_filterbank(sample_rate).shape[1]), np.float32)
    spec = SPECIFICATION
    process = SequentialProcessor(
        [
            FramedSignalProcessor(frame_size=spec.frame_size, fps=spec.frames_per_second),
            ShortTimeFourierTransformProcessor(),
            FilteredSpectrogramProcessor(
                num_bands=spec.bands_per_octave,
                fmin=spec.minimum_frequency,
                fmax=spec.maximum_frequency,
                norm_filters=True,
            ),
            LogarithmicSpectrogramProcessor(mul=spec.multiplier, add=spec.offset),
        ]
    )
    return np.asarray(process(Signal(signal, sample_rate=sample_rate)))


def madmom_filterbank(sample_rate: int) -> npt.NDArray[np.float32]:
    """madmom's filterbank at a sample rate, ``float32 (1024, num_bands)``."""
    import_madmom()
    from madmom.audio.filters import LogarithmicFilterbank
    from madmom.audio.stft import fft_frequencies

    spec = SPECIFICATION
    return np.asarray(
        LogarithmicFilterbank(
            fft_frequencies(spec.num_bins, sample_rate),
            num_bands=spec.bands_per_octave,
            fmin=spec.minimum_frequency,
            fmax=spec.maximum_frequency,
            norm_filters=True,
        )
    )


def backend(
    stems: npt.NDArray,
    sample_rate: int,
    *,
    precision: str = "exact",
    device: str = "cpu",
    return_native: bool = False,
) -> npt.NDArray[np.float32]:
    """The oracle behind the protocol of a spectrogram backend: stems one after another."""
    return np.stack([madmom_spectrogram(signal, sample_rate) for signal in stems])
