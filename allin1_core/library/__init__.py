"""A library of songs: found, divided among workers, analysed once each, and kept in tables."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from allin1_core.analysis import Analyzer, check_files, check_separation, check_settings
from allin1_core.batch.progress import is_hidden
from allin1_core.errors import BackendError, LibraryError, OptionError
from allin1_core.files.writing import (
    check_no_input,
    check_writable,
    expand_user,
    identities,
    remove_abandoned,
)
from allin1_core.library import record
from allin1_core.library.places import Place, is_url, plain
from allin1_core.library.sources import Shard, Song, find_songs
from allin1_core.library.tables import (
    FAILURES,
    RESULTS,
    SONGS,
    SOURCES,
    Row,
    TableWriter,
    column_text,
    done_songs,
    need_pyarrow,
    read_outcomes,
    read_source,
    write_source,
)
from allin1_core.library.worker import Job, Worker
from allin1_core.separation.folder import audio_files
from allin1_core.separation.inputs import PathLike
from allin1_core.separation.track import Track
from allin1_core.settings import Outputs, Settings, documented
from allin1_core.threads import Lock, ThreadPool, check_count

ENGINES = ("local", "ray")
# Of the local engine: songs on this machine go through one batch after another; what is fetched or put goes in small
# batches, two at a time, so that one waits for the network while the other one computes.
_SONGS_A_BATCH, _STAGED_SONGS_A_BATCH, _STAGED_BATCHES = 256, 4, 2


@dataclasses.dataclass(frozen=True)
class LibraryStatus:
    """How far a library is, by its tables: without the last rows of a run that is at work or was killed.

    Attributes
    ----------
    songs : int
        Of what a run had to do, its source or shard of it; of `library_status`, of the source that was begun last.
    done, failed : int
        Those of them with a result; those that failed when they were last tried as they are now.
    failures : dict of int
        How many of them failed for each class of error.
    in_all : int
        Songs of any source with a result in the library.
    """

    songs: int
    done: int
    failed: int
    failures: dict[str, int]
    in_all: int

    @property
    def remaining(self) -> int:
        """Songs that were not tried yet."""
        return max(0, self.songs - self.done - self.failed)


@documented(Settings)
def analyze_library(
    source: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    engine: str = "local",
    address: str | None = None,
    num_workers: int | None = None,
    shard: str | None = None,
    column: str = "path",
    include_activations: bool = False,
    include_embeddings: bool = False,
    timings_path: PathLike | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> LibraryStatus:
    """Analyse a library of songs; what an earlier run has done is not done again.

    Parameters
    ----------
    source : path-like, or sequence of those
        Folder, which is walked for audio files and folders of stems; ``.txt``, a song on each line (what begins with #
        and names no file is a comment); ``.parquet``, a song in each row; else one song. Paths or fsspec URLs
        (``s3://``, ``gs://``, ``https://``); of a sequence each is a song.
    out : path-like
        Folder or fsspec URL. It gets ``results/NAME.json`` of each song as `analyze` writes it, the tables ``songs/``
        and ``failures/``, and ``library.json``, which says what the results are made with.
    engine : str
        ``local``, or ``ray`` for many workers, on this machine or many.
    address : str, optional
        Of a Ray cluster; by default Ray is started here.
    num_workers : int, optional
        Of Ray; by default one for each GPU, or without any for each core.
    shard : str, optional
        ``3/64`` analyses the third of 64 parts: the parts have no song in common, and every song is in one.
    column : str
        Of a Parquet source.
    include_activations, include_embeddings : bool
        Whether they are written beside each result.
    timings_path : path-like, optional
        As of `analyze`; of each machine that works.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal.
    <options>

    Returns
    -------
    LibraryStatus
        Songs that fail, and folders that cannot be read, do not stop the others; they are in the table of failures,
        and are tried again by the next run.

    Raises
    ------
    OptionError
        If an option has a value of the wrong form, the shard is none, or a path is empty; if the local engine is given
        what is Ray's; if the timings would be written over a song, or the list of songs.
    LibraryError
        If the source cannot be used; if the results in `out` are made with other settings or by another version.
    OutputError
        If `out` cannot be written to.
    BackendError, WeightsError, HintError
        If what was asked for cannot run, or a package of an extra is not installed; with the local engine, if a song
        on this machine is a mix that nothing can separate, before any is analysed.
    """
    need_pyarrow()
    if engine not in ENGINES:
        raise BackendError(f"engine: {engine!r} unknown; expected {' or '.join(ENGINES)}")
    if engine == "local" and (address, num_workers) != (None, None):
        raise OptionError("engine: 'local' takes no address and no number of workers; they are Ray's")
    check_count("num_workers", num_workers, "one for each GPU or core")
    part = Shard.parse(shard)
    options, timed = Settings(**settings), Outputs(timings_path=timings_path)
    found, locations = find_songs(source, column=column, shard=part)
    if timed.timings_path is not None and os.path.exists(timed.timings_path):
        read = [*locations, *([source] if isinstance(source, str | os.PathLike) else [])]
        paths = [expand_user(plain(location)) for location in read if not is_url(location)]
        check_no_input([timed.timings_path], identities(file for path in paths for file in audio_files(path)))
    place = _prepared(out)
    outputs = {"include_activations": include_activations, "include_embeddings": include_embeddings}
    done = done_songs(place)
    songs = [song for song in found if done.get(column_text(song.location)) != song.state]
    if engine == "local":  # refused before the place is this library's
        session = Analyzer(**dataclasses.asdict(options)).session
        check_settings(session)
        check_separation(
            session, (Track(Path(song.location), song.name) for song in songs if not is_url(song.location))
        )
    else:  # backends are chosen where the workers are
        check_files(options)
    is_resumed = record.claim(place, record.made_with(options, **outputs))
    if not is_resumed:
        songs = found  # nothing says what rows that are there are made with
    of_source = sorted(map(column_text, locations))
    named = source if isinstance(source, str | os.PathLike) else f"{len(source)} songs"
    record.write_run(place, source=str(named), shard=shard, songs=write_source(place, of_source))
    job = Job(
        out=place.location,
        options=_with_whole_paths(options),
        timings_path=None if timed.timings_path is None else os.path.abspath(timed.timings_path),
        is_resumed=is_resumed,
        **outputs,
    )
    with _tables(place, len(found), len(found) - len(songs), progress) as on_row:
        if engine == "ray" and songs:
            from allin1_core.library import ray_engine

            for row in ray_engine.run(songs, job, num_workers=num_workers, address=address):
                on_row(row)
        elif songs:
            _run_here(songs, job, on_row)
    if place.folder is not None:
        remove_abandoned(place.folder / RESULTS)  # of workers that died
    return _status(place, [column_text(song.location) for song in found])


def _with_whole_paths(settings: Settings) -> dict[str, Any]:
    """The options of an `Analyzer` in a process that may run elsewhere."""
    from allin1_core.network.weights import ENSEMBLE, PUBLISHED

    options = dataclasses.asdict(settings)
    for name in ("weights_dir", "demix_repository", "model"):
        is_path = options[name] is not None and options[name] not in (ENSEMBLE, *PUBLISHED)
        if is_path and os.path.exists(options[name]):
            options[name] = os.path.abspath(options[name])
    return options


def _prepared(out: PathLike) -> Place:
    """The place of the results, which can be written to."""
    place = Place(out)
    if place.location.startswith(("http://", "https://")):
        raise LibraryError(
            f"{out}: cannot be written to; expected a folder, or a URL of a store such as s3://"
        )
    if place.folder is not None:
        for folder in (
            place.folder,
            *(place.folder / name for name in (RESULTS, SONGS, FAILURES, SOURCES, "runs")),
        ):
            check_writable(folder)
    return place


def _run_here(songs: Sequence[Song], job: Job, on_row: Callable[[Row], None]) -> None:
    worker = Worker(job)
    is_staged = is_url(job.out) or any(is_url(song.location) for song in songs)
    size = _STAGED_SONGS_A_BATCH if is_staged else _SONGS_A_BATCH
    batches = [songs[start : start + size] for start in range(0, len(songs), size)]
    with ThreadPool(_STAGED_BATCHES if is_staged else 1, name="batches") as pool:
        pool.map(functools.partial(worker.run, on_row=on_row), batches)


@contextlib.contextmanager
def _tables(place: Place, total: int, done: int, progress: bool | None) -> Iterator[Callable[[Row], None]]:
    """A function that puts a row into the tables; those it has when the block is interrupted are written, too."""
    writer, lock = TableWriter(place), Lock()

    def on_row(row: Row) -> None:
        with lock:
            writer.add(row)
            bar.update()

    with tqdm(total=total, initial=done, desc="Songs", unit="song", disable=is_hidden(progress)) as bar:
        try:
            yield on_row
        finally:
            writer.close()


def library_status(out: PathLike) -> LibraryStatus:
    """How far a library is; only its tables are read.

    Raises
    ------
    LibraryError
        If there is no library.
    """
    need_pyarrow()
    place = Place(out)
    record.read(place)
    songs = record.last_run(place).get("songs")
    return _status(place, [] if songs is None else read_source(place, songs))


def _status(place: Place, source: Sequence[str]) -> LibraryStatus:
    """Of the songs of a source, as tables have them."""
    outcomes = read_outcomes(place)
    of_source = [outcomes[song] for song in source if song in outcomes]
    failures = collections.Counter(error for error in of_source if error is not None)
    return LibraryStatus(
        songs=len(source),
        done=len(of_source) - failures.total(),
        failed=failures.total(),
        failures=dict(sorted(failures.items())),
        in_all=sum(error is None for error in outcomes.values()),
    )
