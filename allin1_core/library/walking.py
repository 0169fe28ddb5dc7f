"""Songs below a folder or URL, and the states by which a change of their files is seen without reading them."""

from __future__ import annotations

import collections
import hashlib
import logging
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from allin1_core.errors import LibraryError, StemsError, printable
from allin1_core.library.places import errors_as, filesystem, reason
from allin1_core.separation.folder import ALL_STEMS, AUDIO_SUFFIXES, find_stem_files, stems_among

_LOG = logging.getLogger(__name__)
REACH = "check the path or URL, its rights and the connection"

# Whether it is a folder of stems, and its state as far as the listing told it.
Found = tuple[bool, str | None]


def walk(folder: Path) -> Iterator[tuple[str, Found]]:
    """Songs below a folder of this machine, links to folders followed, each folder once."""
    unreadable: list[str] = []

    def pass_over(error: OSError) -> None:
        if error.filename == str(folder):
            raise LibraryError(f"{folder}: cannot be read ({error.strerror}); {REACH}") from error
        _warn(error.filename, error)
        unreadable.append(error.filename)

    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, onerror=pass_over, followlinks=True):
        try:
            entry = os.stat(parent)
        except OSError as error:  # gone since it was listed
            pass_over(error)
            continue
        if (entry.st_dev, entry.st_ino) in seen:
            folders.clear()
            continue
        seen.add((entry.st_dev, entry.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        songs = sorted(name for name in files if _is_audio(name))
        if _are_stems([PurePath(parent, name) for name in songs], PurePath(parent)):
            folders.clear()
            yield parent, (True, None)
        else:
            yield from ((os.path.join(parent, name), (False, None)) for name in songs)
    yield from ((path, (True, None)) for path in unreadable)


def walk_url(url: str) -> Iterator[tuple[str, Found]]:
    """Songs below a URL, as its file system lists them."""
    files, root = filesystem(url)
    files.invalidate_cache()
    unreadable: list[str] = []
    with errors_as(url, LibraryError, "cannot be listed", REACH):
        found = _find(files, root, unreadable)
        if not found and not files.exists(root):
            raise FileNotFoundError("nothing is there")
    folders: dict[str, list[str]] = collections.defaultdict(list)
    for path in sorted(found):
        is_hidden = "/." in path.removeprefix(root)
        if not is_hidden and _is_audio(posixpath.basename(path)):
            folders[posixpath.dirname(path)].append(path)
    for parent, songs in folders.items():
        states = [_state_of_info(found[path]) for path in songs]
        if _are_stems([PurePosixPath(path) for path in songs], PurePosixPath(parent)):
            yield files.unstrip_protocol(parent), (True, _joined(states))
        else:
            yield from (
                (files.unstrip_protocol(path), (False, state))
                for path, state in zip(songs, states, strict=True)
            )
    yield from ((files.unstrip_protocol(path), (True, "")) for path in unreadable)


def _find(files: Any, root: str, unreadable: list[str]) -> Mapping[str, Mapping[str, Any]]:
    """What `files.find` gives, but for folders that cannot be listed: fsspec leaves some out, or raises."""
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem

    kind = type(files)
    of_fsspec = (None, AbstractFileSystem.find, AsyncFileSystem._find)
    if kind.find not in of_fsspec or getattr(kind, "_find", None) not in of_fsspec:
        # A store's own asks for all together, and not for each folder.
        return dict(files.find(root, detail=True))
    found: dict[str, Mapping[str, Any]] = {}
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = files.ls(folder, detail=True)
        except Exception as error:  # each library has classes of its own
            if folder == root:
                raise
            _warn(files.unstrip_protocol(folder), error)
            unreadable.append(folder)
            continue
        for entry in entries:
            path = entry["name"].rstrip("/")
            if entry["type"] != "directory":
                found[path] = entry
            elif path != folder and not posixpath.basename(path).startswith("."):
                folders.append(path)
    return found


def _warn(folder: str, error: Exception) -> None:
    _LOG.warning("%s", printable(f"{folder}: cannot be read ({reason(error)}); {REACH}"))


def _is_audio(name: str) -> bool:
    return not name.startswith(".") and posixpath.splitext(name)[1].lower() in AUDIO_SUFFIXES


def _are_stems(files: Sequence[PurePath], folder: PurePath) -> bool:
    try:
        return bool(stems_among(files, folder))
    except StemsError:
        # Stems alone, of which one is missing or twice there, are a song that fails, and not a song each.
        return len(files) > 1 and {file.stem.lower() for file in files} <= set(ALL_STEMS)


def is_folder_of_stems(folder: Path) -> bool:
    """Whether a folder of this machine holds the stems of a track, and can be read."""
    try:
        return bool(find_stem_files(folder))
    except StemsError:
        return False


def state_of(location: str) -> str:
    """The state of what is on this machine (`Song.state`); empty if it is not there, which the analysis will say."""
    path = Path(location)
    try:
        files: Iterable[Path] = find_stem_files(path).values() if os.path.isdir(path) else [path]
        return _joined([_state_of_entry(os.stat(file)) for file in files])
    except (OSError, StemsError):
        return ""


def _state_of_entry(entry: os.stat_result) -> str:
    return f"{entry.st_size}-{entry.st_mtime_ns}"


def _state_of_info(info: Mapping[str, Any]) -> str:
    keys = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated", "last_modified", "created")
    changed = next((info[key] for key in keys if info.get(key)), "")
    return f"{info.get('size')}-{changed}"


def _joined(states: Sequence[str]) -> str:
    if len(states) == 1:
        return states[0]
    return hashlib.sha256("\n".join(states).encode()).hexdigest()[:32]
