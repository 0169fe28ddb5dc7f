"""The constants of the log spectrogram that All-In-One was trained on, once, with their meaning and unit.

Source: T. Kim and J. Nam, "All-In-One Metrical and Functional Structure Analysis with Neighborhood Attentions on
Demixed Audio", WASPAA 2023, and madmom's processors with the arguments the published model was trained with.
"""

from __future__ import annotations

import dataclasses


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
