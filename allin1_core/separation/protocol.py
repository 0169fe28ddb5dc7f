"""Protocol of a separation backend, and conversion of its output to `Stems`."""

from __future__ import annotations

import hashlib
import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from allin1_core import backends
from allin1_core.audio import conversion
from allin1_core.audio.conversion import as_float32, resample
from allin1_core.audio.types import SAMPLE_RATE, STEM_NAMES, Audio, Stems, check_finite
from allin1_core.backends.devices import Allocator, to_host
from allin1_core.errors import AudioError, BackendError, OptionError, StemsError, WeightsError
from allin1_core.files.writing import expand_user

# Stems that a six-stem model gives beside the four; they are played together with `other`.
FOLDED_INTO_OTHER = ("guitar", "piano")
# Of segments: at this one every sample is separated ten times.
LARGEST_OVERLAP = 0.9


class Separator(Protocol):
    """A loaded separation model. The module a backend's row names has a class `Separator` with this constructor.

    It may have a static method ``model_names()``; then a name that is not among them is refused before any work. It may
    have an attribute ``takes_int16``, true if it takes mixes in ``int16`` too, in C or Fortran order.

    Attributes
    ----------
    sample_rate : int
        Of the samples it takes and gives.
    num_channels : int
    provenance : dict
        JSON-ready: model name and SHA-256 of its weights.
    """

    sample_rate: int
    num_channels: int
    provenance: dict[str, object]

    def __init__(
        self, model: str, *, device: str, precision: str, repository: str | os.PathLike[str] | None
    ) -> None: ...

    def __call__(
        self,
        mix: np.ndarray,
        *,
        seed: int,
        overlap: float,
        progress: Callable[[float], None] | None = None,
    ) -> dict[str, Any]:
        """Separate a mix.

        Parameters
        ----------
        mix : float32 (num_channels, num_samples)
            Or int16, where it says so.
        seed : int
            Of the random time shift that Demucs averages over; the same seed gives the same stems.
        overlap : float
            What part of a segment the next one repeats.
        progress : callable, optional
            Called with the part that is done, from 0 to 1.

        Returns
        -------
        dict of float32 (num_channels, num_samples)
            By stem name: numpy arrays, or torch tensors on the model's device.
        """
        ...


def load_separator(
    model: str = "htdemucs",
    *,
    backend: str = "auto",
    device: str | None = None,
    precision: str = "exact",
    repository: str | os.PathLike[str] | None = None,
) -> Separator:
    """Load a separation model.

    Parameters
    ----------
    model, backend, repository
        As `demix_model`, `demix_backend` and `demix_repository` of `allin1_core.analyze`.
    device : str, optional
        By default the best one here.
    precision : str
        ``exact`` or ``fast``.

    Raises
    ------
    BackendError
        If the backend, device or precision is unknown or not installed.
    WeightsError
        If the weights cannot be had.
    """
    implementation, choice = backends.choose("separation", backend, device=device, precision=precision)
    folder = None if repository is None else expand_user(repository)
    loaded: Separator = implementation.load()(
        model, device=choice.device, precision=precision, repository=folder
    )
    return loaded


def check_own_model(model: str, folder: Path) -> None:
    """Raise `WeightsError` unless a folder has a separation model of that name, by itself or as a bag."""
    expected = f"the separation model {model}.safetensors or {model}.th"
    if not os.path.isdir(folder):
        raise WeightsError(f"{folder}: no such folder; expected one with {expected}")
    # Demucs calls a file NAME-CHECKSUM.th.
    found = {path.stem.partition("-")[0] for path in folder.glob("*.th")}
    found |= {path.stem for suffix in ("safetensors", "yaml") for path in folder.glob(f"*.{suffix}")}
    if model not in found:
        raise WeightsError(
            f"{folder}: expected {expected}; found models {', '.join(sorted(found)) or 'none'}"
        )


def not_loaded(model: str, error: Exception, whence: str = "") -> WeightsError:
    """What a backend raises whose package cannot load a model."""
    return WeightsError(
        f"separation model {model!r}: cannot be loaded{whence} ({type(error).__name__}: {error}). "
        "Check the name and the connection, or give ready stems"
    )


def weights_digest(arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    """SHA-256 of the names and the values of a model's weights, in their order."""
    digest = hashlib.sha256()
    for name, array in arrays:
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def separate(
    separator: Separator,
    mix: Audio,
    *,
    seed: int = 0,
    overlap: float = 0.25,
    as_int16: bool = True,
    progress: Callable[[float], None] | None = None,
    on_host: bool = True,
) -> dict[str, Any]:
    """Stems of a mix, as files would hold them; see `stems_from_separated` for what the spectrogram takes.

    Parameters
    ----------
    separator : Separator
    mix : Audio
    seed, overlap, progress
        See `Separator`.
    as_int16 : bool
        Whether they are quantised as 16-bit files are.
    on_host : bool
        Whether they come to the host, as numpy arrays; otherwise they stay where the separator left them.

    Returns
    -------
    dict of int16 or float32 (num_samples, num_channels)
        By stem name, at the separator's sample rate.

    Raises
    ------
    OptionError
        If `seed` is no whole number, or `overlap` is out of its range.
    BackendError
        If stems hold NaN or infinity, as where 16 bits do not hold what the weights make of this mix.
    """
    check_seed(seed)
    check_overlap(overlap)
    stems = separator(mix_for(separator, mix), seed=seed, overlap=overlap, progress=progress)
    sums = to_host(_stack([samples.sum() for samples in stems.values()])) if stems else ()
    damaged = [stem for stem, total in zip(stems, sums, strict=True) if not math.isfinite(total)]
    if damaged:
        raise BackendError(
            f"separation gave NaN or infinity in {', '.join(damaged)}; expected finite samples. Check the mix and the "
            "weights, or use precision 'exact'"
        )
    if as_int16:
        stems = {stem: _converter(samples).quantise(samples) for stem, samples in stems.items()}
    stems = {stem: samples.T for stem, samples in stems.items()}
    return (
        {stem: np.ascontiguousarray(to_host(samples)) for stem, samples in stems.items()}
        if on_host
        else stems
    )


def check_seed(seed: int) -> None:
    """Raise `OptionError` unless the seed is a whole number: of None each run would draw another shift."""
    if not isinstance(seed, numbers.Integral):
        raise OptionError(f"demix_seed: {seed!r}; expected a whole number")


def check_overlap(overlap: float) -> None:
    """Raise `OptionError` unless an overlap of segments is in its range."""
    if not (isinstance(overlap, numbers.Real) and 0 <= overlap <= LARGEST_OVERLAP):
        raise OptionError(
            f"demix_overlap: {overlap!r}; expected from 0 to {LARGEST_OVERLAP}, the part of a segment that the next "
            "repeats"
        )


def _converter(samples: Any) -> ModuleType:
    """The module with `quantise` and `remix_to_mono` for arrays of this library."""
    if isinstance(samples, np.ndarray):
        return conversion
    from allin1_core.separation import tensors

    return tensors


def _stack(arrays: Sequence[Any]) -> Any:
    """Arrays or sums as one array of their library: what is on a device then comes from it, and is waited for, once."""
    if isinstance(arrays[0], np.ndarray | np.generic):
        return np.stack(arrays)
    import torch

    return torch.stack(list(arrays))


def _brought(tensor: Any, allocate: Allocator) -> np.ndarray:
    """An int16 or float32 tensor's values in an array of the host."""
    import torch

    array = allocate(tuple(tensor.shape), np.dtype(str(tensor.dtype).removeprefix("torch.")))
    torch.from_numpy(array).copy_(tensor)
    return array


def mix_for(separator: Separator, audio: Audio) -> np.ndarray:
    """An audio file's samples as a separator takes them.

    Returns
    -------
    float32 (num_channels, num_samples)
        At the separator's sample rate; mono is repeated, and of more channels than it takes the first are used
        (as Demucs does). Or int16, in C or Fortran order, if the separator takes it and nothing is computed here.

    Raises
    ------
    AudioError
        If there is no sample, or one is NaN, infinite or far beyond full scale.
    StemsError
        If there are fewer channels than it takes, and more than one.
    """
    if len(audio.samples) == 0:
        raise AudioError("mix: holds no samples; expected at least one")
    check_finite(audio.samples, "mix")
    samples, channels = audio.samples, separator.num_channels
    is_mean = channels == 1 < samples.shape[1]
    as_it_is = (
        samples.dtype == np.int16
        and getattr(separator, "takes_int16", False)
        and audio.sample_rate == separator.sample_rate
        and not is_mean
    )
    if not as_it_is:
        samples = resample(as_float32(samples), audio.sample_rate, separator.sample_rate)
    if samples.shape[1] == 1:
        samples = np.repeat(samples, channels, axis=1)
    elif is_mean:
        samples = samples.mean(axis=1, keepdims=True)
    elif samples.shape[1] < channels:
        raise StemsError(f"mix: {samples.shape[1]} channels; the separation model takes {channels}")
    found = samples[:, :channels].T
    # torch warns of what is read-only, and refuses what is reversed.
    return np.require(found, requirements=["W"] if as_it_is and found.flags.forc else ["C", "W"])


def fold_into_four(stems: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The four stems, with guitar and piano added to `other` where they are.

    Parameters
    ----------
    stems : dict of int16 or float32 arrays of one shape and dtype
    name : str
        What an error message calls them.

    Returns
    -------
    dict of arrays
        In the order of `STEM_NAMES`. Sums of ``int16`` are clipped to its range.

    Raises
    ------
    StemsError
        If one of the four is missing.
    """
    missing = [stem for stem in STEM_NAMES if stem not in stems]
    if missing:
        found = ", ".join(stems) or "none"
        raise StemsError(
            f"{name}: no stem {', '.join(missing)}; found {found}; expected {', '.join(STEM_NAMES)}"
        )
    four = {stem: stems[stem] for stem in STEM_NAMES}
    folded = [stems[stem] for stem in FOLDED_INTO_OTHER if stem in stems]
    if folded:
        other = four["other"]
        if other.dtype == np.int16:
            total = np.sum([other, *folded], axis=0, dtype=np.int32)
            four["other"] = np.clip(total, -32768, 32767).astype(np.int16)
        else:
            four["other"] = np.asarray(np.sum([other, *folded], axis=0), dtype=np.float32)
    return four


def stems_from_separated(
    separated: Mapping[str, Any], sample_rate: int, allocate: Allocator = np.empty
) -> Stems:
    """What a separator gives, as the spectrogram takes it: mono, four, at 44.1 kHz.

    The same as writing the stems to files and reading those with `read_stems_folder`.

    Parameters
    ----------
    separated : dict of int16 or float32 (num_samples, num_channels)
        By stem name; four, or six with guitar and piano. ``int16`` as `allin1_core.audio.conversion.quantise` gives it.
        Of torch tensors only the mono stems leave their device.
    sample_rate : int
    allocate : callable
        Makes the array that tensors at 44.1 kHz come to, from its shape and dtype.
    """
    mono = {stem: _converter(samples).remix_to_mono(samples) for stem, samples in separated.items()}
    if sample_rate == SAMPLE_RATE and set(mono) == set(STEM_NAMES):
        stacked = _stack([mono[stem] for stem in STEM_NAMES])
        return Stems(stacked if isinstance(stacked, np.ndarray) else _brought(stacked, allocate))
    resampled = {stem: resample(to_host(samples), sample_rate, SAMPLE_RATE) for stem, samples in mono.items()}
    return Stems(np.stack(list(fold_into_four(resampled, "separation").values())))
