"""Inputs of the log spectrogram's comparisons, in one table.

Music is every stem of every shared track, in both sample types, and one track resampled to other rates; without the
shared reference material, the four stems of the song that the distribution stempeg carries. The rest is made to be
hard: full-scale tones (whose loudest bin drowns the quietest), square waves, noise, clipping, impulses, silence, and
lengths around a hop and a frame.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from allin1_core.audio.conversion import remix_to_mono
from allin1_core.audio.reading import read_audio
from allin1_core.backends import Bound
from parity.inputs import edges
from parity.material import STEMS, read_stems, shared_folder, stempeg_track, tracks

SAMPLE_RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000, 88200, 96000)
# Where resampled music is compared in float32, too, outside the full form.
FLOAT32_RATES = (48000,)
# Tracks that are compared in int16 alone outside the full form; the short ones and `ten_minutes` are in both types.
LONG_IN_INT16 = ("boogi_marabi", "keep_on_rolling", "midnight_snow_run")
LENGTHS = (0, 1, 100, 440, 441, 442, 2047, 2048, 2049)
DTYPES = ("int16", "float32")
_SECONDS = 1.3


@dataclasses.dataclass(frozen=True)
class Case:
    """One input.

    Attributes
    ----------
    name : str
    kind : str
        ``music``, ``signal``, ``length``, ``edge``, ``stereo`` (mixed to mono from a file), or ``longer``: as if it
        were longer than `numpy_backend.PRODUCT_FRAMES`.
    dtype : str
        ``int16`` or ``float32``.
    sample_rate : int
        Samples per second.
    stems : tuple of str
        What each row is called in messages.
    make : callable
        Gives the input, ``(num_stems, num_samples)``.
    full : bool
        Whether it is left to the full form.
    """

    name: str
    kind: str
    dtype: str
    sample_rate: int
    stems: tuple[str, ...]
    make: Callable[[], npt.NDArray]
    full: bool = False

    def __str__(self) -> str:
        return f"{self.name}, {self.dtype}, {self.sample_rate} Hz"

    def samples(self) -> npt.NDArray:
        """The input in the case's type, read-only: an implementation that writes to it fails."""
        array = self.make()
        if self.dtype == "float32" and array.dtype == np.int16:
            array = (array / 32768.0).astype(np.float32)
        array = np.ascontiguousarray(array)
        array.setflags(write=False)
        return array

    def allowed(self, bound: Bound) -> float:
        """The part of a declared bound that this input is held to."""
        if self.kind == "longer" and bound.longer is not None:
            return bound.longer
        return bound.music if self.kind == "music" else bound.anything


def spectrogram_cases() -> list[Case]:
    """Every input, those that need the shared reference material only where it is."""
    return [*_music_cases(), *_signal_cases(), *_length_cases(), *_edge_cases()]


def music() -> dict[str, Callable[[], npt.NDArray[np.int16]]]:
    """Names of the tracks that are here, and what reads their stems, ``int16 (4, num_samples)`` at 44.1 kHz."""
    if shared_folder() is not None:
        return {track: functools.partial(read_stems, track) for track in tracks()}
    if importlib.util.find_spec("stempeg") is not None:
        return {"falcon69, from stempeg": lambda: stempeg_track().stems}
    return {}


def _music_cases() -> list[Case]:
    found = music()
    cases = [
        Case(
            track,
            "music",
            dtype,
            44100,
            STEMS,
            found[track],
            full=dtype == "float32" and track in LONG_IN_INT16,
        )
        for track in found
        for dtype in DTYPES
    ]
    resampled = "jaxius" if "jaxius" in found else next(iter(found), None)
    if resampled is not None:
        cases += [
            Case(
                f"{resampled}, resampled",
                "music",
                dtype,
                rate,
                STEMS,
                functools.partial(_resampled, found[resampled], rate),
                full=dtype == "float32" and rate not in FLOAT32_RATES,
            )
            for rate in SAMPLE_RATES
            for dtype in DTYPES
            if rate != 44100
        ]
    return cases


def _resampled(read: Callable[[], npt.NDArray], sample_rate: int) -> npt.NDArray:
    import soxr

    return soxr.resample(read().T, 44100, sample_rate).T


def _signal_cases() -> list[Case]:
    names = tuple(_SIGNALS)
    return [
        Case("signals", "signal", dtype, rate, names, functools.partial(_signals, rate))
        for rate in SAMPLE_RATES
        for dtype in DTYPES
    ]


def _signals(sample_rate: int) -> npt.NDArray[np.int16]:
    times = np.arange(int(_SECONDS * sample_rate)) / sample_rate
    rows = [np.clip(np.rint(32767 * make(times)), -32768, 32767) for make in _SIGNALS.values()]
    return np.stack(rows).astype(np.int16)


def _impulses(times: npt.NDArray) -> npt.NDArray:
    signal = np.zeros(times.size)
    signal[:: times.size // 7] = 1.0
    signal[-1] = -1.0
    return signal


_SIGNALS: dict[str, Callable[[npt.NDArray], npt.NDArray]] = {
    "silence": np.zeros_like,
    "full-scale sine, 1 kHz": lambda t: np.sin(2 * np.pi * 1000 * t),
    "full-scale sine, 55 Hz": lambda t: np.sin(2 * np.pi * 55 * t),
    "full-scale square, 441 Hz": lambda t: np.where(np.sin(2 * np.pi * 441 * t + 0.1) >= 0, 1.0, -1.0),
    "full-scale sweep": lambda t: np.sin(2 * np.pi * (20 * t + 3000 * t**2 / 2)),
    "white noise": lambda t: np.random.default_rng(0).uniform(-1, 1, t.size),
    "faint noise": lambda t: np.random.default_rng(1).uniform(-3, 3, t.size) / 32767,
    "impulses": _impulses,
    "clipped sine": lambda t: 4 * np.sin(2 * np.pi * 220 * t),
    "largest negative value": lambda t: np.full(t.size, -32768 / 32767),
}


def _length_cases() -> list[Case]:
    return [
        Case(
            f"{length} samples",
            "length",
            dtype,
            44100,
            ("noise", "constant"),
            functools.partial(_short, length),
        )
        for length in LENGTHS
        for dtype in DTYPES
    ]


def _short(length: int) -> npt.NDArray[np.int16]:
    noise = np.random.default_rng(2).integers(-32768, 32768, length, dtype=np.int16)
    return np.stack([noise, np.full(length, 32767, np.int16)])


def _edge_cases() -> list[Case]:
    return [
        Case(
            "values beside a tie of float32",
            "edge",
            dtype,
            44100,
            edges.ROUNDING_STEPS,
            functools.partial(edges.signals, dtype),
        )
        for dtype in DTYPES
    ]


def ten_minutes(dtype: str) -> Case:
    """Ten minutes of one loud stem: real drums where there are any, else noise with a beat, which is no music."""
    found = music()
    track = "keep_on_rolling" if "keep_on_rolling" in found else next(iter(found), None)

    def make() -> npt.NDArray:
        drums = _beating_noise() if track is None else found[track]()[STEMS.index("drums")]
        return np.resize(drums, (1, 600 * 44100))

    kind, stem = ("signal", "noise with a beat") if track is None else ("music", "drums")
    return Case("10 minutes", kind, dtype, 44100, (stem,), make)


def _beating_noise() -> npt.NDArray[np.int16]:
    times = np.arange(20 * 44100) / 44100
    noise = np.random.default_rng(3).uniform(-32767, 32767, times.size)
    return (np.exp(-8 * (times % 0.5)) * noise).astype(np.int16)


def stereo_file(dtype: str, sample_rate: int, path: Path) -> Case:
    """Two channels of noise, as an audio file that is written now and read and mixed to mono by us."""
    rows = np.random.default_rng(4).integers(-32768, 32768, (2 * sample_rate, 2), dtype=np.int16)
    samples, subtype = (rows, "PCM_16") if dtype == "int16" else (rows / np.float32(32768), "FLOAT")
    soundfile.write(path, samples, sample_rate, subtype=subtype)

    def make() -> npt.NDArray:
        return remix_to_mono(read_audio(path).samples)[np.newaxis]

    return Case("stereo file, mixed to mono", "stereo", dtype, sample_rate, ("noise",), make)


def longer_cases(frames: int) -> list[Case]:
    """Some signals, and five seconds of music, to be computed with numpy's products cut to so many frames."""
    cases = [case for case in _signal_cases() if case.sample_rate in (8000, 44100)]
    for read in list(music().values())[:1]:
        cases += [
            Case("music", "music", dtype, 44100, STEMS, functools.partial(_five_seconds, read))
            for dtype in DTYPES
        ]
    return [
        dataclasses.replace(case, kind="longer", name=f"{case.name}, in products of {frames} frames")
        for case in cases
    ]


def _five_seconds(read: Callable[[], npt.NDArray]) -> npt.NDArray:
    return read()[:, : 5 * 44100]
