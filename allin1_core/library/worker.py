"""A worker: one loaded `Analyzer`, which songs are brought to, and whose results are taken where they belong."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from allin1_core.analysis import Analyzer, check_settings
from allin1_core.batch import run_batch
from allin1_core.batch.names import claimed, files
from allin1_core.errors import Allin1Error, AudioError, BatchError, LibraryError, OutputError, ResultError
from allin1_core.files.writing import check_names, remove
from allin1_core.library import record
from allin1_core.library.places import Place, errors_as, filesystem, is_url
from allin1_core.library.sources import Song, is_url_of_stems, path_of
from allin1_core.library.tables import RESULTS, Row, failure_row, song_row
from allin1_core.results.result import AnalysisResult, array_paths, read_json_result
from allin1_core.separation.folder import AUDIO_SUFFIXES
from allin1_core.separation.track import AudioFiles, Track
from allin1_core.settings import Outputs
from allin1_core.threads import Lock, ThreadPool

# Downloads wait for the network, not for a core.
_DOWNLOADS = 8


@dataclasses.dataclass(frozen=True)
class Job:
    """What a run does with each song; what a worker of another process is told.

    Attributes
    ----------
    out : str
        Folder or URL.
    options : dict
        Of `Analyzer`.
    include_activations, include_embeddings : bool
    timings_path : str, optional
    is_resumed : bool
        Whether results may be there already.
    """

    out: str
    options: Mapping[str, Any]
    include_activations: bool = False
    include_embeddings: bool = False
    timings_path: str | None = None
    is_resumed: bool = False


class Worker:
    """Analyses songs and writes their results; any number of threads may use it.

    Parameters
    ----------
    job : Job
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._place = Place(job.out)
        self._lock, self._made = Lock(), list[Analyzer]()

    @property
    def _analyzer(self) -> Analyzer:
        with self._lock:  # which `functools.cached_property` has not, from Python 3.12 on
            if not self._made:
                self._made.append(Analyzer(**self._job.options))
            return self._made[0]

    def load(self) -> None:
        """Choose backends and load the network.

        Raises
        ------
        BackendError, HintError, WeightsError
            If what was asked for cannot run.
        LibraryError
            If another place is under the path of the results on this machine.
        """
        try:
            record.read(self._place)
        except LibraryError as error:
            raise LibraryError(
                f"machine {socket.gethostname()}: {error}; every machine must see it there"
            ) from error
        check_settings(self._analyzer.session)
        self._analyzer.session.model  # noqa: B018

    def run(self, songs: Sequence[Song], on_row: Callable[[Row], None]) -> None:
        """Analyse songs, unless their results are there and right.

        Parameters
        ----------
        songs : sequence of Song
        on_row : callable
            Called with the row of each song as soon as its result is in its place, or it failed.

        Raises
        ------
        BackendError, WeightsError, OutputError
            They would fail every song; the last if there is no room for songs on their way.
        """
        if self._place.folder is not None and not any(is_url(song.location) for song in songs):
            folder = self._place.folder / RESULTS
            self._run_batch({Path(song.location): song for song in songs}, folder, on_row)
            return
        with contextlib.ExitStack() as held:
            with errors_as(
                "TMPDIR", OutputError, "holds no folder", "free space, or name another one by TMPDIR"
            ):
                scratch = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="allin1-core-")))
                (scratch / RESULTS).mkdir()
            self._run_staged(songs, scratch, on_row)

    def run_all(self, songs: Sequence[Song]) -> list[Row]:
        """The rows of `run`, all together."""
        rows: list[Row] = []
        self.run(songs, rows.append)
        return rows

    def _run_batch(
        self,
        songs: Mapping[Path, Song],
        folder: Path,
        on_row: Callable[[Row], None],
        publish: Callable[[Song, Path], None] = lambda song, path: None,
    ) -> None:
        job = self._job
        outputs = Outputs(
            out_dir=folder,
            include_activations=job.include_activations,
            include_embeddings=job.include_embeddings,
            timings_path=job.timings_path,
        )
        songs = dict(songs)

        @contextlib.contextmanager
        def naming(path: Path, audio: AudioFiles) -> Iterator[Track]:
            with _named(path, audio, songs[path], outputs) as songs[path]:
                yield Track(path, songs[path].name)

        def on_end(path: Path, outcome: AnalysisResult | Exception) -> None:
            song = songs[path]
            if isinstance(outcome, Exception):
                message = str(outcome).replace(str(path), song.location)
                on_row(failure_row(song, type(outcome).__name__, message))
            else:
                publish(song, folder / f"{song.name}.json")
                on_row(song_row(song, outcome))

        with contextlib.suppress(BatchError):  # each failure was told to `on_end`
            run_batch(
                dict.fromkeys(songs),
                self._analyzer,
                outputs,
                progress=False,
                keep_arrays=False,
                naming=naming,
                on_end=on_end,
            )

    def _run_staged(self, songs: Sequence[Song], scratch: Path, on_row: Callable[[Row], None]) -> None:
        """By way of a folder of this machine: songs are fetched to it, and results put from it."""
        folder = scratch / RESULTS

        def fetched(numbered: tuple[int, Song]) -> Path | Allin1Error:
            number, song = numbered
            try:
                if self._job.is_resumed:
                    self._fetch_result(song, folder)
                return (
                    _fetch_song(song, scratch / str(number)) if is_url(song.location) else Path(song.location)
                )
            except Allin1Error as error:
                return error

        with ThreadPool(_DOWNLOADS, name="downloads") as pool:
            places = pool.map(fetched, enumerate(songs))
        there: dict[Path, Song] = {}
        for song, path in zip(songs, places, strict=True):
            if isinstance(path, Path):
                there[path] = song
            else:
                on_row(failure_row(song, type(path).__name__, str(path)))
        if there:
            self._run_batch(there, folder, on_row, self._publish)

    def _fetch_result(self, song: Song, folder: Path) -> None:
        """An earlier result, for the analysis to find."""
        path = folder / f"{song.name}.json"
        if self._place.fetch(f"{RESULTS}/{path.name}", path):
            for array_path in array_paths(path).values():
                self._place.fetch(f"{RESULTS}/{array_path.name}", array_path)

    def _publish(self, song: Song, path: Path) -> None:
        """Put a result where it belongs, its JSON last: where that is, the result is complete."""
        result, arrays_sha256 = read_json_result(path)
        for array_path in array_paths(path).values():
            if array_path.is_file():
                self._place.put(f"{RESULTS}/{array_path.name}", array_path)
        text = result.to_json(arrays_sha256, path=song.location)
        self._place.write(f"{RESULTS}/{path.name}", text.encode())
        for written in (path, *array_paths(path).values()):
            remove(written)


@contextlib.contextmanager
def _named(path: Path, audio: AudioFiles, song: Song, outputs: Outputs) -> Iterator[Song]:
    """The song by a name under which no other has its result, nor makes it while the block runs, as another source's.

    Raises
    ------
    OutputError
        If a file could not be called so because it is too long.
    """
    with contextlib.ExitStack() as claims:
        for named in (song, song.named_apart()):
            check_names(files(named.name, outputs))
            json_path = Path(outputs.out_dir or "", f"{named.name}.json")
            is_ours = claims.enter_context(claimed(json_path.parent, named.name, path))
            recorded = _path_of_other_audio(path, audio, json_path)
            if is_ours and recorded in (None, path, Path(song.location)):
                if recorded is not None:  # the song has changed since
                    remove(json_path)
                break
            claims.close()
        else:
            named = song  # whose analysis says what stands there
        yield named


def _path_of_other_audio(path: Path, audio: AudioFiles, json_path: Path) -> Path | None:
    """What a result is of that was made from other audio than the song; None if there is none."""
    if not json_path.is_file():
        return None
    try:
        result, _ = read_json_result(json_path)
        now = audio.digests
    except ResultError:
        return path  # damaged: to be made again
    except Allin1Error:
        return None  # the analysis says what is the matter with the song
    return None if result.provenance.get("audio_sha256") == now else result.path


def _fetch_song(song: Song, folder: Path) -> Path:
    """A song of a URL, in a folder of its own; of a folder of stems its audio files.

    Raises
    ------
    AudioError
        If it cannot be fetched.
    """
    store, root = filesystem(song.location)
    target = folder / path_of(song.location).name  # its own name: results record it
    with errors_as(
        song.location, AudioError, "cannot be fetched", "check the URL, its rights, the connection and TMPDIR"
    ):
        folder.mkdir()
        if not is_url_of_stems(song.location):
            store.get_file(root, str(target))
            return target
        target.mkdir()
        for path in store.ls(root, detail=False):
            if Path(path).suffix.lower() in AUDIO_SUFFIXES:
                store.get_file(path, str(target / Path(path).name))
    return target
