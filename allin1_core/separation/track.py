"""A track: its path, the name of its files, and the SHA-256 of the audio that it is made from."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from allin1_core.audio.reading import read_audio, stated_seconds
from allin1_core.audio.types import SAMPLE_RATE, STEM_NAMES, Audio, Stems
from allin1_core.backends.devices import Allocator
from allin1_core.errors import AudioError, StemsError
from allin1_core.files.reading import FileContent, file_digest, open_regular
from allin1_core.files.writing import expand_user
from allin1_core.separation import find_stems, read_stems, stems_folder, stems_from_separated
from allin1_core.separation.inputs import Given, Input, take
from allin1_core.threads import ThreadPool

Read = TypeVar("Read")


@dataclasses.dataclass(frozen=True)
class Track:
    """A track to analyse.

    Attributes
    ----------
    path : Path
        Audio file or folder of stems, absolute.
    name : str
        What its files are called, without suffix; no two tracks share one.
    given : Given, optional
        The track itself, if it came without a path; then `path` leads to no file.
    anchors : tuple of (float, int)
        Beats that are known: seconds, and position in the bar or 0.
    """

    path: Path
    name: str
    given: Given | None = None
    anchors: tuple[tuple[float, int], ...] = ()

    @classmethod
    def of(cls, given: Input, anchors: tuple[tuple[float, int], ...] = ()) -> Track:
        """A track by its path, or itself; see `allin1_core.analyze` for what is taken and raised."""
        if isinstance(given, str | os.PathLike):
            path = absolute(expand_user(given))
            return cls(path, track_name(path), anchors=anchors)
        taken = take(given)
        return cls(taken.path, taken.path.name, taken, anchors)

    def read_mix(self) -> Audio:
        """The audio of a track without ready stems.

        Raises
        ------
        AudioError
            If it cannot be read.
        """
        source = self.path if self.given is None else self.given.audio
        assert not isinstance(source, Stems), "stems are not separated"
        return source if isinstance(source, Audio) else read_audio(source)

    def stated_seconds(self, ready: ReadyStems | None) -> float:
        """Its length: that of its samples, or what the header of its first file states; see `stated_seconds`."""
        source = self.path if self.given is None else self.given.audio
        if ready is not None:
            source = ready if isinstance(ready, Stems) else next(iter(ready.values()))[0]
        return source.seconds if isinstance(source, Audio | Stems) else stated_seconds(source)

    def read_stems(self, ready: ReadyStems, allocate: Allocator = np.empty) -> tuple[Stems, dict[str, Any]]:
        """The ready stems of a track at 44.1 kHz, those from files in an array of `allocate`, and what a result says.

        Raises
        ------
        AudioError, StemsError
            See `read_stems`.
        """
        provenance: dict[str, Any] = {"backend": "stems", "reason": "ready stems were given"}
        if not isinstance(ready, Stems):
            if len({file for file, _ in ready.values()}) == 1:
                streams = {stem: stream for stem, (_, stream) in ready.items()}
                provenance |= {"reason": "the file holds its stems", "audio_streams": streams}
            return read_stems(ready, str(self.path), allocate), provenance
        if ready.sample_rate != SAMPLE_RATE:
            separated = dict(zip(STEM_NAMES, ready.samples[:, :, np.newaxis], strict=True))
            ready = stems_from_separated(separated, ready.sample_rate)
        return ready, provenance


def track_name(path: Path) -> str:
    """What a track's files are called: its file's name without suffix, its folder's name."""
    return path.name if os.path.isdir(path) else path.stem


def absolute(path: Path) -> Path:
    """The absolute path of a track, without links but for one that is the track itself.

    Such a link is a name of its own, by which the track's stems are looked for and its files are called. So a link and
    its target are two tracks.

    Raises
    ------
    AudioError
        If it cannot be a path.
    """
    try:
        if path.name in ("", ".."):
            return Path(os.path.realpath(path))
        return Path(os.path.realpath(path.parent), path.name)
    except ValueError as error:  # a NUL in the name
        raise AudioError(f"{path}: cannot be opened ({error}); check the path") from error


# As they were given, or file and audio stream of each.
ReadyStems: TypeAlias = Stems | Mapping[str, tuple[Path | FileContent, int]]


def find_ready_stems(track: Track, stems_dir: str | os.PathLike[str] | None) -> ReadyStems | None:
    """A track's ready stems, which can be opened but are not read; None if it is a mix, to be separated.

    Raises
    ------
    AudioError, StemsError
        If they are not there or not complete, or a file of the track cannot be opened.
    """
    source: Path | FileContent
    if track.given is None:
        is_in_stems_dir = stems_dir is not None and not os.path.isdir(track.path)
        source = stems_folder(stems_dir or "", track.path.stem) if is_in_stems_dir else track.path
    elif isinstance(track.given.audio, Stems):
        return track.given.audio
    elif stems_dir is not None:
        raise StemsError(
            f"stems_dir: {stems_dir}; expected none, because the track came without the name that its stems go by. "
            "Give its path, or Stems"
        )
    elif isinstance(track.given.audio, Audio):
        return None
    else:
        source = track.given.audio
    stems = find_stems(source)
    for path, _ in (stems or {}).values():
        if path != source and isinstance(path, Path):  # of a folder
            open_regular(path, AudioError).close()
    return stems


class AudioFiles:
    """What a run makes a track from, its ready stems or its mix: hashed once, and read only while it is unchanged.

    Parameters
    ----------
    track : Track
    stems_dir : path-like, optional
        As of `find_ready_stems`.
    """

    def __init__(self, track: Track, stems_dir: str | os.PathLike[str] | None) -> None:
        self._track, self._stems_dir = track, stems_dir
        self._digests: dict[str, str] | None = None

    @functools.cached_property
    def ready(self) -> ReadyStems | None:
        """From `find_ready_stems`, which also says what is raised."""
        return find_ready_stems(self._track, self._stems_dir)

    @functools.cached_property
    def _files(self) -> list[Path]:
        files = self.ready.values() if isinstance(self.ready, Mapping) else [(self._track.path, 0)]
        return [] if self._track.given else [path for path in dict(files) if isinstance(path, Path)]

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the files by their names.

        Of a track that came as samples or a file object it is that one's, by ``samples`` or ``file``.

        Raises
        ------
        AudioError, StemsError
            If one is missing or cannot be read.
        """
        # No `functools.cached_property`: Python 3.11 has one lock for it, so that tracks would wait for each other.
        if self._digests is None:
            self._before, given = self._states(), self._track.given
            if given is not None:
                kind = "file" if isinstance(given.audio, FileContent) else "samples"
                self._digests = {kind: given.sha256}
            else:
                with ThreadPool(name="stems") as pool:
                    digests = pool.map(file_digest, self._files)
                names = [path.name for path in self._files]
                self._digests = dict(zip(names, digests, strict=True))
        return self._digests

    def read(self, read: Callable[[], Read]) -> Read:
        """What a function reads of the files, which are what was hashed.

        Raises
        ------
        AudioError
            If one has changed since: what was read is then not what was hashed, and may not be all.
        """
        _ = self.digests
        found, now = read(), self._states()
        for path, state in self._before.items():
            if now.get(path) != state:
                raise AudioError(
                    f"{path}: changed while it was read; expected a file that is complete. Analyse it again when it is"
                )
        return found

    def _states(self) -> dict[Path, tuple[int, int]]:
        """Size and time of the last change of each file; without those that are not there."""
        states = {}
        for path in self._files:
            with contextlib.suppress(OSError):  # opening it says why
                entry = os.stat(path)
                states[path] = entry.st_size, entry.st_mtime_ns
        return states
