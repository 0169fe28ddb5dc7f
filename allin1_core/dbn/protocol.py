"""Protocol of a backend of the decoder: a callable that makes a decoder from its parameters."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Decoder(Protocol):
    """A decoder for one set of parameters.

    One that also has `hmms`, a model for each bar length with ``viterbi(observations) -> (path, log_probability)``,
    and `threshold`, is held to the oracle's paths and log probabilities too.
    """

    def __call__(self, activations: np.ndarray, /) -> np.ndarray:
        """Beats of activations.

        Parameters
        ----------
        activations : float (num_frames, 2)
            Probabilities of a beat that is no downbeat, and of a downbeat; only to be read.

        Returns
        -------
        float64 (num_beats, 2)
            Time in seconds and position in the bar, from 1.
        """


class DecoderBackend(Protocol):
    """One implementation of the decoder, as `allin1_core.backends` loads it."""

    def __call__(self, **parameters: Any) -> Decoder:
        """A decoder; the parameters are those of `DBNDownBeatTrackingProcessor`, of which any may be left out."""
