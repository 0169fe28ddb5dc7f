"""Log-magnitude spectrograms of stems: one specification, and a backend each for the compiled kernels, numpy,
torch and MLX.

``log_spectrogram`` is the whole interface. ``select`` decides on a backend beforehand and says why, for callers who
record what ran.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import numpy.typing as npt

from allin1_core import backends
from allin1_core.errors import BackendError
from allin1_core.spectrogram.filterbank import filterbank, num_bands
from allin1_core.spectrogram.framing import num_frames
from allin1_core.spectrogram.protocol import LogSpectrogramBackend
from allin1_core.spectrogram.specification import SPECIFICATION, SpectrogramSpecification
from allin1_core.spectrogram.validation import validate_sample_rate, validate_stems

__all__ = [
    "SPECIFICATION",
    "LogSpectrogram",
    "LogSpectrogramBackend",
    "SpectrogramSpecification",
    "filterbank",
    "log_spectrogram",
    "num_bands",
    "num_frames",
    "select",
    "validate_stems",
]


@dataclasses.dataclass(frozen=True)
class LogSpectrogram:
    """The log spectrogram by one backend: call it with stems; `choice` says which backend runs and why."""

    choice: backends.Choice
    implementation: LogSpectrogramBackend

    def __post_init__(self) -> None:
        try:
            signature = inspect.signature(self.implementation)
        except ValueError:
            return  # compiled, without one
        try:
            signature.bind(None, 0, precision="", device="", return_native=False)
        except TypeError as error:
            raise BackendError(
                f"spectrogram backend {self.choice.backend!r}: takes {signature} ({error}); expected "
                "(stems, sample_rate, *, precision, device, return_native), see docs/adding-a-backend.md"
            ) from error

    def __call__(
        self,
        stems: npt.ArrayLike,
        sample_rate: int = SPECIFICATION.sample_rate,
        *,
        return_native: bool = False,
    ) -> Any:
        """See `log_spectrogram`."""
        return self.of_valid(
            validate_stems(stems), validate_sample_rate(sample_rate), return_native=return_native
        )

    def of_valid(self, samples: npt.NDArray, sample_rate: int, *, return_native: bool = False) -> Any:
        """As a call, of what `validate_stems` gave: of ``float32`` it looks at every sample, on the host."""
        stacked = np.atleast_2d(samples)
        output = self.implementation(
            stacked,
            sample_rate,
            precision=self.choice.precision,
            device=self.choice.device,
            return_native=return_native,
        )
        # Somebody else's backend may give another length, and beats at wrong times with it.
        found = (
            tuple(getattr(output, "shape", ())),
            str(getattr(output, "dtype", type(output).__name__)).rpartition(".")[2],
        )
        expected = (len(stacked), num_frames(stacked.shape[1], sample_rate), num_bands(sample_rate))
        if found != (expected, "float32"):
            raise BackendError(
                f"spectrogram backend {self.choice.backend!r}: gave {found[1]} {found[0]}; expected float32 {expected}"
            )
        return output[0] if samples.ndim == 1 else output


def select(backend: str = "auto", *, device: str | None = None, precision: str = "exact") -> LogSpectrogram:
    """Decide which backend computes log spectrograms, and load it.

    Parameters
    ----------
    backend : str
        ``auto``, ``fused``, ``numpy``, ``torch``, ``mlx``, the name of an installed entry point, or
        ``module:function``.
    device : str, optional
        ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``mlx``; by default the backend's best device here.
    precision : str
        ``exact`` or ``fast``; see `log_spectrogram`.

    Raises
    ------
    BackendError
        If the backend, device or precision is unknown or cannot be used here.
    """
    chosen, choice = backends.choose("spectrogram", backend, device=device, precision=precision)
    return LogSpectrogram(choice, chosen.load())


def log_spectrogram(
    stems: npt.ArrayLike,
    sample_rate: int = SPECIFICATION.sample_rate,
    *,
    backend: str = "auto",
    precision: str = "exact",
    device: str | None = None,
    return_native: bool = False,
) -> Any:
    """Magnitudes in semitone bands, 100 frames a second, on a logarithmic scale: ``log10(1 + magnitude)``.

    Parameters
    ----------
    stems : int16 or float32 (num_stems, num_samples) or (num_samples,)
        Mono signals; ``float32`` has full scale at 1.0.
    sample_rate : int
        Samples per second. The published models expect 44,100.
    backend, device : str
        See `select`.
    precision : str
        ``exact`` meets madmom within 1e-6 for samples within full scale (numpy to the bit, up to 33 minutes);
        ``fast`` computes in ``float32`` throughout. `allin1_core.backends.table` declares how close each comes.
    return_native : bool
        Return the backend's own array (``torch.Tensor``, ``mlx.core.array``) where it was computed, without a
        copy to the host.

    Returns
    -------
    float32 (num_stems, num_frames, num_bands) or (num_frames, num_bands)
        ``num_frames = ceil(num_samples / (sample_rate / 100))``, none for an empty signal; 81 bands at 44,100 Hz.

    Raises
    ------
    AudioError
        If the stems have another type or shape, a sample is not finite, or the sample rate leaves no band.
    BackendError
        If the backend, device or precision is unknown or cannot be used here; if it gives another shape or dtype.

    Notes
    -----
    Source: madmom's ``FramedSignalProcessor``, ``ShortTimeFourierTransformProcessor``,
    ``FilteredSpectrogramProcessor`` and ``LogarithmicSpectrogramProcessor``, as All-In-One (Kim and Nam, WASPAA
    2023) chains them.
    """
    return select(backend, device=device, precision=precision)(
        stems, sample_rate, return_native=return_native
    )
