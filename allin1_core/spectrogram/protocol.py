"""Protocol of a backend of the log spectrogram: one function from stems to bands."""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt


class LogSpectrogramBackend(Protocol):
    """One implementation of the log spectrogram, as `allin1_core.backends` loads it.

    Input is validated before the call (`allin1_core.spectrogram.validation`). A backend keeps no state between
    calls, gives the same output for the same input whatever ran before, and needs memory for a bounded number of
    frames beyond input and output.
    """

    def __call__(
        self, stems: npt.NDArray, sample_rate: int, *, precision: str, device: str, return_native: bool
    ) -> Any:
        """Log spectrogram of every stem.

        Parameters
        ----------
        stems : int16 or float32 (num_stems, num_samples)
            Contiguous along the last axis.
        sample_rate : int
            Samples per second.
        precision : str
            ``exact`` or ``fast``.
        device : str
            As `Choice.device` has it: ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``mlx``.
        return_native : bool
            True gives the backend's own array type where it was computed, False a numpy array.

        Returns
        -------
        float32 (num_stems, num_frames, num_bands)
        """
