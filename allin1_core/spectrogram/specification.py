"""The constants of the log spectrogram that All-In-One was trained on, once, with their meaning and unit.

Source: T. Kim and J. Nam, "All-In-One Metrical and Functional Structure Analysis with Neighborhood Attentions on
Demixed Audio", WASPAA 2023, and madmom's processors with the arguments the published model was trained with.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import SupportsIndex

from allin1_core.errors import AudioError


@dataclasses.dataclass(frozen=True)
class SpectrogramSpecification:
    """What turns samples into log magnitudes per band.

    Attributes
    ----------
    sample_rate : int
        Samples per second that the published models were trained at; others work, as in madmom.
    frame_size : int
        Samples per frame, and length of the transform.
    frames_per_second : int
        Frames per second; at 44,100 Hz the hop size is 441 samples.
    bands_per_octave : int
        Triangular bands per octave: 12 is one per semitone.
    minimum_frequency, maximum_frequency : float
        Band centres lie between these, in Hz.
    tuning_frequency : float
        Frequency of A4 in Hz, to which the band centres are tuned.
    multiplier, offset : float
        The output is ``log10(multiplier * magnitude + offset)``.
    """

    sample_rate: int = 44100
    frame_size: int = 2048
    frames_per_second: int = 100
    bands_per_octave: int = 12
    minimum_frequency: float = 30.0
    maximum_frequency: float = 17000.0
    tuning_frequency: float = 440.0
    multiplier: float = 1.0
    offset: float = 1.0

    @property
    def num_bins(self) -> int:
        """Bins of the transform that are used: 0 Hz up to, and without, half the sample rate."""
        return self.frame_size // 2


SPECIFICATION = SpectrogramSpecification()


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
