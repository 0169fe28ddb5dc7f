"""File names of tracks, reserved by locks between processes that share a folder."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from allin1_core.byproducts import SPECTROGRAM_SUFFIXES
from allin1_core.errors import AudioError, OptionError, ResultError
from allin1_core.files.writing import CLAIM, check_names, expand_user, is_deleted, try_lock
from allin1_core.results.clicks import SOUND_SUFFIX
from allin1_core.results.exports import FORMATS
from allin1_core.results.figures import FIGURE_SUFFIXES
from allin1_core.results.result import ACTIVATIONS, EMBEDDINGS, SUFFIXES, read_json_result
from allin1_core.separation.folder import ALL_STEMS, audio_files
from allin1_core.separation.track import Track, absolute, track_name
from allin1_core.session import Session
from allin1_core.settings import Outputs

_SUFFIXES = (
    ".json",
    *FORMATS.values(),
    *SUFFIXES.values(),
    *FIGURE_SUFFIXES,
    SOUND_SUFFIX,
    *SPECTROGRAM_SUFFIXES,
)
# File systems take 255 bytes; whatever is asked for, a track's name with a hash is the same.
_MOST_BYTES = 255 - max(map(len, _SUFFIXES))


@contextlib.contextmanager
def named(path: Path, outputs: Outputs, taken: set[str]) -> Iterator[Track]:
    """Give a track a name for its files, which no track of another process gets while the block runs.

    That is `track_name`, unless another track has it: an earlier one in this call, one whose result is already
    in the output folder, or one that another process is at work on. Then it is `name_with_hash`, which is the
    same in every run.

    Parameters
    ----------
    path : Path
        Absolute, or `Given.path`.
    outputs : Outputs
    taken : set of str
        Names that this call has given, to which this one is added.

    Raises
    ------
    OutputError
        If a file could not be called so because it is too long.
    """
    name = track_name(path)
    check_names(files(name, outputs))
    with contextlib.ExitStack() as claims:
        # Some file systems do not tell upper from lower case.
        if name.casefold() in taken or not _is_free(name, path, outputs, claims):
            claims.close()
            name = name_with_hash(path)
            check_names(files(name, outputs))
        taken.add(name.casefold())
        yield Track(path, name)


def _is_free(name: str, path: Path, outputs: Outputs, claims: contextlib.ExitStack) -> bool:
    if outputs.out_dir is None:
        return True
    is_ours = claims.enter_context(claimed(Path(outputs.out_dir), name, path))
    return is_ours and owner(name, outputs) in (None, path)


def owner(name: str, outputs: Outputs) -> Path | None:
    """The track whose result of that name is there."""
    path = outputs.result_path(name)
    if path is None or not path.is_file():
        return None
    try:
        return read_json_result(path)[0].path
    except ResultError:
        return None  # `existing` says what is wrong with it, or it is overwritten


def files(name: str, outputs: Outputs) -> list[Path]:
    """What is written for a track of that name; with kept stems, their folder."""
    arrays = [SUFFIXES[ACTIVATIONS]] * outputs.include_activations
    arrays += [SUFFIXES[EMBEDDINGS]] * outputs.include_embeddings
    suffixes = [
        (outputs.out_dir, [".json", *(FORMATS[file_format] for file_format in outputs.exports)]),
        (outputs.out_dir and (outputs.array_dir or outputs.out_dir), arrays),
        (outputs.figures_dir, FIGURE_SUFFIXES[: 1 + outputs.include_activations]),
        (outputs.sounds_dir, [SOUND_SUFFIX]),
        (outputs.keep_byproducts and outputs.demix_dir, [""]),
        (outputs.keep_byproducts and outputs.spec_dir, SPECTROGRAM_SUFFIXES),
    ]
    return [
        Path(folder, f"{name}{suffix}") for folder, of_folder in suffixes if folder for suffix in of_folder
    ]


def kept_stems(name: str, outputs: Outputs, session: Session) -> list[Path]:
    """What may be written for a mix of that name besides `files` where byproducts are kept: its stems."""
    folder = Path(outputs.demix_dir, session.settings.demix_model, name)
    return [folder / f"{stem}.wav" for stem in ALL_STEMS]


def input_files(paths: Iterable[Path], stems_dir: str | os.PathLike[str] | None) -> Iterator[Path]:
    """What tracks may be read from: each itself, the stems in it, and those that `stems_dir` has for it."""
    for path in paths:
        yield from audio_files(path)
        if stems_dir is not None and os.path.isdir(folder := expand_user(stems_dir) / path.stem):
            yield from audio_files(folder)


@contextlib.contextmanager
def claimed(folder: Path, name: str, path: Path) -> Iterator[bool]:
    """Hold a name for a track while the block runs, unless another track has it.

    Parameters
    ----------
    folder : Path
        Where the results go.
    name : str
        What the track's files are to be called. Upper and lower case do not differ.
    path : Path
        The track.

    Yields
    ------
    bool
        Whether the name is this track's. True where the file system has no locks, on which this rests.
    """
    # A hash, because the name with anything added may be too long for a file.
    claim = folder / f".{hashlib.sha256(os.fsencode(name.casefold())).hexdigest()[:32]}{CLAIM}"
    try:
        descriptor = _take(claim, os.fsencode(path))
        is_ours = descriptor is not None
    except OSError:
        descriptor, is_ours = None, True
        with contextlib.suppress(OSError):
            claim.unlink(missing_ok=True)
    try:
        yield is_ours
    finally:
        if descriptor is not None:
            _give_back(descriptor, claim)


def _take(claim: Path, track: bytes) -> int | None:
    """Descriptor of the claim, locked for the track; None if another track has it, `OSError` if there are no locks."""
    while True:
        with contextlib.ExitStack() as opened:
            descriptor = _open(claim)
            opened.callback(os.close, descriptor)
            if try_lock(descriptor):  # nobody has the name
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, track, 0)
            # One lock is given up before the other is had, so that another track may come between: what counts is
            # what the file says now.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if is_deleted(descriptor):
                continue  # given back meanwhile
            if os.pread(descriptor, len(track) + 1, 0) != track:
                return None
            opened.pop_all()
            return descriptor


def _open(claim: Path) -> int:
    try:
        return os.open(claim, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        return os.open(claim, os.O_RDONLY)  # another user's


def _give_back(descriptor: int, claim: Path) -> None:
    try:
        if try_lock(descriptor) and not is_deleted(descriptor):
            claim.unlink()
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child made by fork may have it open, too
    except OSError:
        pass  # the folder is gone, or may no longer be written to; a claim without a lock means nothing
    finally:
        os.close(descriptor)


def name_with_hash(path: Path) -> str:
    """`track_name` with a short hash of the whole path, for a track whose name another one has."""
    return with_hash(track_name(path), path)


def with_hash(name: str, path: str | os.PathLike[str], digits: int = 8) -> str:
    """A name with the first digits of the SHA-256 of its track's path; cut short where a file's would be too long."""
    added = f"-{hashlib.sha256(os.fsencode(path)).hexdigest()[:digits]}"
    while len(os.fsencode(name + added)) > _MOST_BYTES:
        name = name[:-1]
    return name + added


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Whether a path stands for others; what is there as it is written does not, whatever characters it has."""
    path = expand_user(path)
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def expand_path(given: str | os.PathLike[str]) -> list[Path]:
    """The absolute path, or of a pattern those of its matches in alphabetical order.

    Raises
    ------
    AudioError
        If a pattern matches nothing.
    OptionError
        If the path is empty.
    """
    if not os.fspath(given):  # as a path that would be the working folder
        raise OptionError("paths: found ''; expected a path; '.' for the working folder")
    path = expand_user(given)
    if not is_pattern(given):
        return [absolute(path)]
    matches = sorted(glob.glob(_escape_folder(path), recursive=True))
    if not matches:
        raise AudioError(f"{given}: no file matches this pattern; check it")
    return [absolute(Path(match)) for match in matches]


def _escape_folder(pattern: Path) -> str:
    """A pattern with its folder, as far as that is there as it is written, escaped: ``albums [2020]/*.mp3``."""
    folder = next(parent for parent in pattern.parents if os.path.lexists(parent))
    return os.path.join(glob.escape(str(folder)), pattern.relative_to(folder))
