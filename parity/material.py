"""Material that everything runs on: the shared tracks, or the song that stempeg carries."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import os
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 44100
DEFAULT_TRACK = "keep_on_rolling"
_FALLBACK_SECONDS = 194.8

STEMS = ("bass", "drums", "other", "vocals")
# An .stem.mp4 carries the mix and then the stems in MUSDB18's order.
_STEM_MP4_STREAMS = {"drums": 1, "bass": 2, "other": 3, "vocals": 4}


@dataclasses.dataclass(frozen=True)
class Track:
    """Four stems, and where they come from.

    Attributes
    ----------
    name : str
    stems : int16 (4, num_samples)
        In the order bass, drums, other, vocals, at 44.1 kHz.
    source : str
        In words, for the report.
    """

    name: str
    stems: np.ndarray
    source: str

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.stems.shape[-1] / SAMPLE_RATE

    def lasting(self, seconds: float | None) -> Track:
        """The same music cut, or repeated from its start, to a length in seconds; None leaves it as it is."""
        if seconds is None:
            return self
        return dataclasses.replace(self, stems=_repeat(self.stems, round(seconds * SAMPLE_RATE)))


@functools.cache
def default_track() -> Track:
    """The track that every benchmark runs on; read once.

    Raises
    ------
    FileNotFoundError
        If neither the shared reference material nor stempeg is here.
    """
    if shared_folder() is not None:
        return Track(DEFAULT_TRACK, _frozen(read_stems(DEFAULT_TRACK)), "shared reference material")
    return stempeg_track().lasting(_FALLBACK_SECONDS)


def stempeg_track() -> Track:
    """The 6.1 s that stempeg carries, as it carries them.

    Raises
    ------
    FileNotFoundError
        If stempeg is not installed, or carries no ``.stem.mp4``.
    """
    path = _stempeg_file()
    stems = [_read_stream(path, _STEM_MP4_STREAMS[stem]) for stem in STEMS]
    version = importlib.metadata.version("stempeg")
    return Track("falcon69_repeated", _frozen(np.stack(stems)), f"package data of stempeg {version}")


def _stempeg_file() -> Path:
    try:
        files = importlib.metadata.files("stempeg") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise FileNotFoundError(
            "no track to measure on: the shared reference material is not here (ALLIN1_SHARED) and stempeg is not "
            "installed; pip install 'allin1-core[bench]'"
        ) from error
    for file in files:
        if file.name.endswith(".stem.mp4"):
            return Path(str(file.locate()))
    raise FileNotFoundError(
        "the installed stempeg carries no .stem.mp4; pip install 'allin1-core[bench]', or set ALLIN1_SHARED"
    )


def _read_stream(path: Path, stream: int) -> np.ndarray:
    """One audio stream of a file as mono ``int16 (num_samples,)``: mean over channels, rounded."""
    import av

    with av.open(str(path)) as container:
        audio = container.streams.audio[stream]
        if audio.rate != SAMPLE_RATE:
            raise ValueError(f"{path.name}, stream {stream}: {audio.rate} Hz; expected {SAMPLE_RATE}")
        blocks = [frame.to_ndarray() for frame in container.decode(audio)]  # float32 (channels, samples)
    mono = np.concatenate(blocks, axis=-1).mean(axis=0)
    return np.clip(np.rint(mono * 32768), -32768, 32767).astype(np.int16)


def _repeat(stems: np.ndarray, num_samples: int) -> np.ndarray:
    times = -(-num_samples // stems.shape[-1])
    return _frozen(np.ascontiguousarray(np.tile(stems, times)[:, :num_samples]))


def _frozen(array: np.ndarray) -> np.ndarray:
    """The array, read-only: it is shared by everything that is measured."""
    array.setflags(write=False)
    return array


def shared_folder() -> Path | None:
    """The folder named by ``ALLIN1_SHARED``, else ``../shared`` beside the checkout, else None.

    Raises
    ------
    FileNotFoundError
        If ``ALLIN1_SHARED`` is set but names no folder: a typo must not skip the tests.
    """
    named = os.environ.get("ALLIN1_SHARED")
    if named:
        folder = Path(named)
        if not folder.is_dir():
            raise FileNotFoundError(f"ALLIN1_SHARED: no folder at {named!r}; correct it or unset it")
        return folder
    folder = Path(__file__).resolve().parents[2] / "shared"
    return folder if (folder / "audio").is_dir() else None


def needed_folder() -> Path:
    """As `shared_folder`; `FileNotFoundError` where it is absent."""
    folder = shared_folder()
    if folder is None:
        raise FileNotFoundError("the shared reference material is not here; set ALLIN1_SHARED")
    return folder


def tracks() -> list[str]:
    """Names of the shared tracks, sorted; empty where the folder is absent."""
    folder = shared_folder()
    return sorted(path.name for path in (folder / "audio").iterdir()) if folder else []


def read_stems(track: str) -> np.ndarray:
    """The stems of a shared track, ``int16 (4, num_samples)`` in the order of `STEMS`, at 44.1 kHz."""
    stems = []
    for stem in STEMS:
        samples, sample_rate = soundfile.read(
            needed_folder() / "audio" / track / f"{stem}.flac", dtype="int16"
        )
        assert sample_rate == 44100, (track, stem, sample_rate)
        stems.append(samples)
    return np.stack(stems)


def write_stems(folder: Path, stems: np.ndarray, suffix: str = "flac") -> Path:
    """Write stems ``int16 (4, num_samples)``, or with channels behind, as 16 bits or MP3; returns the folder, made."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, samples in zip(STEMS, stems, strict=True):
        soundfile.write(folder / f"{stem}.{suffix}", samples, SAMPLE_RATE)
    return folder


def read_score(track: str) -> tuple[np.ndarray, np.ndarray]:
    """Beats and downbeats of a track's score, in seconds.

    Raises
    ------
    FileNotFoundError
        If the shared reference material is not here.
    """
    rows = np.loadtxt(needed_folder() / "audio" / track / "beats.tsv", ndmin=2)
    return rows[:, 0], rows[rows[:, 1] == 1, 0]
