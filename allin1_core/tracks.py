"""Which tracks a call means, and what their files are called."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from allin1_core.errors import AudioError
from allin1_core.files import expand_user

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


def track_name(path: Path) -> str:
    """What a track's files are called: its file's name without suffix, its folder's name."""
    return path.name if os.path.isdir(path) else path.stem


def name_with_hash(path: Path) -> str:
    """The same with a short hash of the whole path, for a track whose name another one has."""
    return f"{track_name(path)}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


def absolute(path: Path) -> Path:
    """The absolute path of a track, without links but for one that is the track itself.

    Such a link is a name of its own, by which the track's stems are looked for and its files are called. So a link and
    its target are two tracks.
    """
    if path.name in ("", ".."):
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent), path.name)


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Whether a path stands for others; what is there as it is written does not, whatever characters it has."""
    path = expand_user(path)
    return glob.has_magic(str(path)) and not os.path.lexists(path)


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
        path = expand_user(given)
        matches = [path]
        if is_pattern(given):
            matches = [Path(match) for match in sorted(glob.glob(_escape_folder(path), recursive=True))]
            if not matches:
                raise AudioError(f"{given}: no file matches this pattern; check it")
        expanded.update((absolute(match), None) for match in matches)
    return list(expanded)


def _escape_folder(pattern: Path) -> str:
    """A pattern with its folder, as far as that is there as it is written, escaped: ``albums [2020]/*.mp3``."""
    folder = next(parent for parent in pattern.parents if os.path.lexists(parent))
    return os.path.join(glob.escape(str(folder)), pattern.relative_to(folder))
