"""Stems from a folder of files, found by the stem's name in the file's name, and how files become stems."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

import numpy as np

from allin1_core.audio.conversion import as_float32, resample
from allin1_core.audio.reading import MOST_BYTES, read_mono
from allin1_core.audio.types import SAMPLE_RATE, STEM_NAMES, Stems
from allin1_core.backends.devices import Allocator
from allin1_core.errors import StemsError
from allin1_core.files.reading import FileContent
from allin1_core.files.writing import expand_user
from allin1_core.separation.protocol import FOLDED_INTO_OTHER, fold_into_four
from allin1_core.threads import Lock, ThreadPool, readers

AUDIO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("wav", "wave", "bwf", "w64", "rf64", "bw64", "aif", "aiff", "aifc", "caf", "au", "snd", "flac"),
        *("mp3", "mp2", "mpga", "aac", "adts", "ac3", "eac3", "dts", "amr", "ogg", "oga", "ogx", "opus"),
        *("spx", "m4a", "m4b", "mp4", "m4v", "mov", "3gp", "3g2", "mka", "mkv", "webm", "weba", "wma", "wmv"),
        *("asf", "wv", "tta", "ape", "mpc", "tak", "ts", "m2ts", "mts", "mpg", "mpeg", "vob", "ogv", "avi"),
        "flv",
    )
)

AnyPath = TypeVar("AnyPath", bound=PurePath)

ALL_STEMS = (*STEM_NAMES, *FOLDED_INTO_OTHER)

# Mono at 44.1 kHz, all together: as much time as `read_audio` takes of a stereo file.
MOST_BYTES_OF_STEMS = 2 * MOST_BYTES

# Lossy codecs pad and exports trim trailing silence by fractions of a second; more is another recording.
_LONGEST_DIFFERENCE = 1.0


def stems_folder(stems_dir: str | os.PathLike[str], track: str) -> Path:
    """The folder with the stems of a track below a folder of many.

    Raises
    ------
    StemsError
        If it is not there.
    """
    folder = expand_user(stems_dir) / track
    if not os.path.isdir(folder):
        raise StemsError(
            f"{folder}: no such folder; expected the stems of {track!r} there: {', '.join(STEM_NAMES)}"
        )
    return folder


def find_stem_files(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The files of a folder that are stems.

    A file is the stem whose name is its own (``bass.wav``), else the last one that its name has as a word
    (``Song - Bass.flac``, ``03_vocals_(song).mp3``). A file named by the stem alone goes before others.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    dict of Path
        By stem: ``bass``, ``drums``, ``other``, ``vocals``, and where they are ``guitar`` and ``piano``.

    Raises
    ------
    StemsError
        If the folder cannot be read, one of the four is missing, or two files claim to be the same stem.
    """
    folder = expand_user(folder)
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES)
    except OSError as error:
        raise StemsError(
            f"{folder}: cannot be read ({error.strerror}); expected a folder of stems"
        ) from error
    return stems_among(files, folder)


def audio_files(path: Path) -> Iterator[Path]:
    """The files that a track is read from: of a folder its stems, and else the path itself."""
    if not os.path.isdir(path):
        yield path
    else:
        with contextlib.suppress(StemsError):  # reading it says why
            yield from find_stem_files(path).values()


def stems_among(files: Sequence[AnyPath], folder: PurePath) -> dict[str, AnyPath]:
    """Those of a folder's audio files that are stems; see `find_stem_files`. Nothing is opened."""
    files = [path for path in files if not path.name.startswith(".")]
    claims: dict[str, list[AnyPath]] = {}
    for path in files:
        words = [word for word in re.split(r"[^a-z]+", path.stem.lower()) if word in ALL_STEMS]
        if words:
            claims.setdefault(words[-1], []).append(path)
    # Each stem is there at most once, and files that are none, such as the mix, do not matter.
    suffixes = sorted({path.suffix for path in files})
    patterns = " and ".join(str(folder / f"*{suffix}") for suffix in suffixes)
    if_songs = f". To analyse each file as a song, give {patterns}" if files else ""
    found = {}
    for stem in ALL_STEMS:
        claimants = claims.get(stem, [])
        exact = [path for path in claimants if path.stem.lower() == stem]
        if len(exact or claimants) > 1:
            names = ", ".join(path.name for path in exact or claimants)
            raise StemsError(
                f"{folder}: {names} all name the stem {stem!r}; expected one file for each stem{if_songs}"
            )
        if claimants:
            found[stem] = (exact or claimants)[0]
    missing = [stem for stem in STEM_NAMES if stem not in found]
    if missing:
        names = ", ".join(path.name for path in files) or "no audio files"
        raise StemsError(
            f"{folder}: no file for the stem {', '.join(missing)}; found {names}; "
            f"expected names with the words {', '.join(STEM_NAMES)}{if_songs}"
        )
    return found


def read_stems_folder(folder: str | os.PathLike[str], allocate: Allocator = np.empty) -> Stems:
    """Read the stems of a folder; see `find_stem_files` and `read_stems`."""
    files = find_stem_files(folder)
    return read_stems({stem: (path, 0) for stem, path in files.items()}, str(folder), allocate)


def read_stems(
    files: Mapping[str, tuple[Path | FileContent, int]], name: str, allocate: Allocator = np.empty
) -> Stems:
    """Read, mix to mono, resample and align stems.

    Each stem is mixed to mono and, where its rate is another, resampled to 44.1 kHz. Stems that end up to one
    second early are filled with silence. ``int16`` stays if all stems have it, else all become ``float32``.

    Parameters
    ----------
    files : dict of (Path or FileContent, int)
        File and audio stream of each stem, guitar and piano among them where they are. Mono at 44.1 kHz, they may take
        `MOST_BYTES_OF_STEMS`, 4 GiB, together: 3.4 hours of four stems in 16 bits, half of that in ``float32``.
        Reading takes a quarter more.
    name : str
        What messages call them together.
    allocate : callable
        Makes the array that they come in, from its shape and dtype. Stems that are mono at 44.1 kHz are decoded into it
        where they are as long as the header of the first of them says; otherwise it may be asked for another.

    Returns
    -------
    Stems
        At 44.1 kHz.

    Raises
    ------
    StemsError
        If a stem is missing, or their lengths differ by more than a second.
    AudioError
        If a file cannot be used.
    """
    most_bytes = MOST_BYTES_OF_STEMS // max(1, len(files))
    joined = _JoinedStems(allocate)

    def read(stem: str) -> np.ndarray:
        source, stream = files[stem]
        audio = read_mono(source, most_bytes, stream, functools.partial(joined.row, stem))
        return resample(audio.samples[:, 0], audio.sample_rate, SAMPLE_RATE)

    # Decoding releases the interpreter's lock.
    with readers(len(files) or 1), ThreadPool(name="stems") as pool:
        stems = dict(zip(files, pool.map(read, files), strict=True))
    if len({samples.dtype for samples in stems.values()}) > 1:
        stems = {stem: as_float32(samples) for stem, samples in stems.items()}
    longest = max((len(samples) for samples in stems.values()), default=0)
    for stem, samples in stems.items():
        if (longest - len(samples)) / SAMPLE_RATE > _LONGEST_DIFFERENCE:
            raise StemsError(
                f"{files[stem][0]}: {stem} is {len(samples) / SAMPLE_RATE:.2f} s long, where the longest stem has "
                f"{longest / SAMPLE_RATE:.2f} s; expected stems of one recording. If it is, export all to one length"
            )
        if len(samples) < longest:
            stems[stem] = np.pad(samples, (0, longest - len(samples)))
    four = fold_into_four(stems, name)
    stems.clear()
    samples = joined.of_size(longest, four[STEM_NAMES[0]].dtype)

    def put(row: np.ndarray, stem: str) -> None:
        stem_samples = four.pop(stem)  # so that no stem is held twice for long
        if not np.may_share_memory(row, stem_samples):
            row[:] = stem_samples

    with ThreadPool(name="stems") as pool:
        pool.map(lambda place: put(*place), zip(samples, STEM_NAMES, strict=True))
    return Stems(samples)


class _JoinedStems:
    """The array that stems come in, made when the first of them is read; those that are as long are read into it."""

    def __init__(self, allocate: Allocator) -> None:
        self._allocate = allocate
        self._lock = Lock()
        self._samples: np.ndarray | None = None

    def row(self, stem: str, size: int, dtype: np.dtype) -> np.ndarray:
        """An array for so many samples of a stem: its row, if they fill it."""
        if stem not in STEM_NAMES:
            return np.empty(size, dtype)
        with self._lock:
            if self._samples is None:
                self._samples = self._allocate((len(STEM_NAMES), size), dtype)
        if self._samples.shape[1] != size or self._samples.dtype != dtype:
            return np.empty(size, dtype)
        return self._samples[STEM_NAMES.index(stem)]

    def of_size(self, size: int, dtype: np.dtype) -> np.ndarray:
        """The whole array if its rows are that long, or another."""
        samples, self._samples = self._samples, None
        if samples is not None and samples.shape[1] == size and samples.dtype == dtype:
            return samples
        return self._allocate((len(STEM_NAMES), size), dtype)
