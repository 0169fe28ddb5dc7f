"""Audio and stems as arrays."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from allin1_core.audio.decoding import BLOCK_VALUES, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from allin1_core.errors import Allin1Error, AudioError, StemsError

STEM_NAMES = ("bass", "drums", "other", "vocals")
SAMPLE_RATE = 44100
# What 32-bit integers reach that were stored as float without scaling. Larger values are no sound; their sums and
# spectra would overflow.
LARGEST_SAMPLE = np.float32(2**31)
# As libsndfile. More are samples along the wrong axis.
_MOST_CHANNELS = 1024


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class Audio:
    """Samples as a file holds them.

    Attributes
    ----------
    samples : int16 or float32 (num_samples, num_channels)
        float32 in [-1, 1].
    sample_rate : int
        Samples per second.

    Raises
    ------
    AudioError
        If they have another shape or dtype, or the rate is no whole number from 1,000 to 1,000,000.
    """

    samples: np.ndarray
    sample_rate: int

    def __post_init__(self) -> None:
        samples = self.samples
        if (
            not isinstance(samples, np.ndarray)
            or samples.ndim != 2
            or not 1 <= samples.shape[1] <= _MOST_CHANNELS
        ):
            raise AudioError(
                f"samples: {type(samples).__name__} of shape {tuple(np.shape(samples))}; expected a numpy array of "
                f"shape (num_samples, num_channels) with at most {_MOST_CHANNELS} channels. Mono samples are "
                "samples[:, np.newaxis], samples with channels first samples.T"
            )
        check_sample_type(samples.dtype, "samples", AudioError)
        check_sample_rate(self.sample_rate, AudioError)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class Stems:
    """The four stems of a track, in the order of `STEM_NAMES`.

    Attributes
    ----------
    samples : int16 or float32 (4, num_samples)
        Mono.
    sample_rate : int
        Samples per second.

    Raises
    ------
    StemsError
        If they have another shape or dtype, or the rate is no whole number from 1,000 to 1,000,000.
    """

    samples: np.ndarray
    sample_rate: int = SAMPLE_RATE

    def __post_init__(self) -> None:
        samples = self.samples
        if not isinstance(samples, np.ndarray) or samples.ndim != 2 or samples.shape[0] != len(STEM_NAMES):
            raise StemsError(
                f"stems: {type(samples).__name__} of shape {tuple(np.shape(samples))}; expected a numpy array of shape "
                f"({len(STEM_NAMES)}, num_samples), mono, in the order {', '.join(STEM_NAMES)}"
            )
        check_sample_type(samples.dtype, "stems", StemsError)
        check_sample_rate(self.sample_rate, StemsError)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples.shape[1] / self.sample_rate


def check_sample_type(dtype: np.dtype, name: str, error: type[Allin1Error]) -> None:
    """Refuse what is neither int16 nor float32 in this machine's byte order, and say how samples become so.

    Integers of other widths need their full scale: ``astype`` alone wraps them, or takes them for a noise of 90 dB.
    """
    if dtype in (np.int16, np.float32):
        return
    native, bits = dtype.newbyteorder("="), 8 * dtype.itemsize
    how = {
        "f": f"{name}.astype(np.float32)",
        "i": f"({name} / 2**{bits - 1}).astype(np.float32), if full scale is 2**{bits - 1}",
        "u": f"({name} / 2**{bits - 1} - 1).astype(np.float32), if silence is {2 ** (bits - 1)}",
    }
    if native in (np.int16, np.float32):
        how[dtype.kind] = f"{name}.astype(np.{native})"
    convert = f". Convert with {how[dtype.kind]}" if dtype.kind in how else ""
    raise error(f"{name}: dtype {dtype}; expected int16, or float32 with full scale at 1{convert}")


def check_sample_rate(sample_rate: int, error: type[Allin1Error]) -> None:
    if not isinstance(sample_rate, int | np.integer) or not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise error(
            f"sample_rate: {sample_rate!r}; expected a whole number from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz"
        )


def samples_digest(audio: Audio | Stems) -> str:
    """SHA-256 of the samples, their type, shape and rate."""
    digest = hashlib.sha256(f"{audio.samples.dtype} {audio.samples.shape} {audio.sample_rate}".encode())
    digest.update(np.ascontiguousarray(audio.samples).data)
    return digest.hexdigest()


def check_finite(samples: np.ndarray, name: str) -> None:
    """Refuse samples that are NaN, infinite, or beyond `LARGEST_SAMPLE`.

    Parameters
    ----------
    samples : int16 or float32, any shape
    name : str
        What the message calls them: the file or argument.

    Raises
    ------
    AudioError
        With the number of such samples and where the first one is.
    """
    if samples.dtype.kind != "f":
        return
    number, first = 0, 0
    step = max(1, BLOCK_VALUES * len(samples) // max(1, samples.size))
    for start in range(0, len(samples), step):
        block = samples[start : start + step]
        if block.min() >= -LARGEST_SAMPLE and block.max() <= LARGEST_SAMPLE:  # neither, if there is a NaN
            continue
        bad = ~(np.abs(block) <= LARGEST_SAMPLE)
        first = first if number else start + int(np.argwhere(bad)[0][0])
        number += int(bad.sum())
    if number:
        is_finite = np.isfinite(samples[first]).all()
        found = f"beyond {LARGEST_SAMPLE:.0f}, where full scale is 1" if is_finite else "NaN or infinite"
        raise AudioError(
            f"{name}: {number} samples are {found}, the first at sample {first}; expected finite numbers in [-1, 1]. "
            "Repair or re-export the audio"
        )
