"""Which tracks a call means, and what their files are called."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from allin1_core.errors import AudioError

if TYPE_CHECKING:
    from allin1_core.inputs import Given


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
    """

    path: Path
    name: str
    given: Given | None = None


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Whether a path stands for others; what is there as it is written does not, whatever characters it has."""
    path = Path(path).expanduser()
    return glob.has_magic(str(path)) and not path.exists()


def expand_paths(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Absolute paths in the order given; a pattern stands for its matches in alphabetical order.

    A path that comes up again is dropped.

    Raises
    ------
    AudioError
        If a pattern matches nothing.
    """
    expanded: dict[Path, None] = {}
    for given in paths:
        path = Path(given).expanduser()
        matches = [path]
        if is_pattern(path):
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            if not matches:
                raise AudioError(f"{given}: no file matches this pattern; check it")
        expanded.update((match.resolve(), None) for match in matches)
    return list(expanded)


def name_tracks(paths: Iterable[Path], take_name: Callable[[str, Path], bool]) -> list[Track]:
    """Give each path a name of its own for its files.

    That is the file's name without suffix (a folder's name), unless another track has it: one earlier in this call,
    one whose result is already in the output folder, or one that another process is at work on. Then a short hash of
    the whole path is added, which is the same in every run.

    Parameters
    ----------
    paths : iterable of Path
        Absolute, without duplicates.
    take_name : callable
        Asked whether a path may have a name.
    """
    tracks = []
    taken: set[str] = set()
    for path in paths:
        name = path.name if path.is_dir() else path.stem
        # Some file systems do not tell upper from lower case.
        if name.casefold() in taken or not take_name(name, path):
            name = f"{name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        taken.add(name.casefold())
        tracks.append(Track(path, name))
    return tracks
