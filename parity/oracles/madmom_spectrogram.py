"""The oracle of the log spectrogram: madmom's own processors, built fresh for every signal.

Fresh, because madmom's transform keeps the window it scaled for the first signal's type, and on a signal of another
type it is then wrong by a factor of 32,767.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from parity.oracles.madmom_import import import_madmom

# What All-In-One was trained on, here once more: an oracle that asked the code under test would follow its mistakes.
_FRAME_SIZE = 2048  # samples
_FRAMES_PER_SECOND = 100  # a hop of 441 samples at 44.1 kHz
_FILTERBANK = {"num_bands": 12, "fmin": 30, "fmax": 17000, "norm_filters": True}  # bands per octave; Hz
_LOGARITHM = {"mul": 1, "add": 1}


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
    process = SequentialProcessor(
        [
            FramedSignalProcessor(frame_size=_FRAME_SIZE, fps=_FRAMES_PER_SECOND),
            ShortTimeFourierTransformProcessor(),
            FilteredSpectrogramProcessor(**_FILTERBANK),
            LogarithmicSpectrogramProcessor(**_LOGARITHM),
        ]
    )
    return np.asarray(process(Signal(signal, sample_rate=sample_rate)))


def madmom_logarithm(band_sums: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What madmom makes of band sums of any shape: log10(1 + x)."""
    import_madmom()
    from madmom.audio.spectrogram import LogarithmicSpectrogram, Spectrogram

    spectrogram = np.atleast_2d(band_sums).view(Spectrogram)
    return np.asarray(LogarithmicSpectrogram(spectrogram, **_LOGARITHM)).reshape(band_sums.shape)


def madmom_filterbank(sample_rate: int) -> npt.NDArray[np.float32]:
    """madmom's filterbank at a sample rate, ``float32 (1024, num_bands)``."""
    import_madmom()
    from madmom.audio.filters import LogarithmicFilterbank
    from madmom.audio.stft import fft_frequencies

    return np.asarray(LogarithmicFilterbank(fft_frequencies(_FRAME_SIZE // 2, sample_rate), **_FILTERBANK))


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
