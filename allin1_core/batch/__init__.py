"""Many tracks in one call: what is there already, what is written where, and what happens when one fails."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from allin1_core.batch.names import claimed, name_with_hash, track_name
from allin1_core.batch.progress import Progress
from allin1_core.batch.resuming import differences
from allin1_core.byproducts import SPECTROGRAM_SUFFIXES, Byproducts
from allin1_core.errors import BackendError, BatchError, OutputError, ResultError, WeightsError
from allin1_core.files.reading import file_digest
from allin1_core.files.writing import check_names, check_writable
from allin1_core.results.clicks import SOUND_SUFFIX, sonify
from allin1_core.results.exports import FORMATS, export
from allin1_core.results.figures import FIGURE_SUFFIXES, visualize
from allin1_core.results.result import (
    ACTIVATIONS,
    EMBEDDINGS,
    SUFFIXES,
    AnalysisResult,
    array_paths,
    load_result,
    read_json_result,
)
from allin1_core.separation.track import ReadyStems, Track, audio_digests, find_ready_stems
from allin1_core.timings.recorder import Timings

if TYPE_CHECKING:
    from allin1_core.analysis import Analyzer
    from allin1_core.separation.inputs import Given
    from allin1_core.session import Session

_REMAKE = ("json", "demix", "spec")


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a call writes, and where to; the fields are parameters of `analyze`, with their folders made out.

    Raises
    ------
    OutputError
        If a folder cannot be made or written to: found out before there is anything to lose.
    ResultError
        If an export format is unknown.
    """

    out_dir: Path | None = None
    array_dir: Path | None = None
    figures_dir: Path | None = None
    sounds_dir: Path | None = None
    demix_dir: Path | None = None
    spec_dir: Path | None = None
    overwrite: frozenset[str] = frozenset()
    include_activations: bool = False
    include_embeddings: bool = False
    exports: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for folder in (self.out_dir, self.figures_dir, self.sounds_dir, self.demix_dir, self.spec_dir):
            if folder is not None:
                check_writable(folder)
        unknown = [name for name in self.exports if name not in FORMATS]
        if unknown:
            raise ResultError(f"exports: {', '.join(unknown)} unknown; expected of {', '.join(FORMATS)}")
        if self.array_dir is not None and (self.include_activations or self.include_embeddings):
            check_writable(self.array_dir)

    @property
    def byproducts(self) -> Byproducts | None:
        """Where byproducts are kept, if they are."""
        if self.demix_dir is None or self.spec_dir is None:
            return None
        return Byproducts(self.demix_dir, self.spec_dir, self.overwrite)

    def result_path(self, name: str) -> Path | None:
        """Where the JSON of a track goes."""
        return None if self.out_dir is None else self.out_dir / f"{name}.json"

    def owner(self, name: str) -> Path | None:
        """The track whose result of that name is there."""
        path = self.result_path(name)
        if path is None or not path.is_file():
            return None
        try:
            return read_json_result(path)[0].path
        except ResultError:
            return None  # `existing` says what is wrong with it, or it is overwritten

    def files(self, name: str) -> list[Path]:
        """What is written for a track of that name; with kept stems, their folder."""
        arrays = [SUFFIXES[ACTIVATIONS]] * self.include_activations
        arrays += [SUFFIXES[EMBEDDINGS]] * self.include_embeddings
        suffixes = [
            (self.out_dir, [".json", *(FORMATS[file_format][0] for file_format in self.exports)]),
            (self.out_dir and (self.array_dir or self.out_dir), arrays),
            (self.figures_dir, FIGURE_SUFFIXES[: 1 + self.include_activations]),
            (self.sounds_dir, [SOUND_SUFFIX]),
            (self.demix_dir, [""]),
            (self.spec_dir, SPECTROGRAM_SUFFIXES),
        ]
        return [
            folder / f"{name}{suffix}" for folder, of_folder in suffixes if folder for suffix in of_folder
        ]

    @contextlib.contextmanager
    def named(self, path: Path, taken: set[str]) -> Iterator[Track]:
        """Give a track a name for its files, which no track of another process gets while the block runs.

        That is `track_name`, unless another track has it: an earlier one in this call, one whose result is already
        in the output folder, or one that another process is at work on. Then it is `name_with_hash`, which is the
        same in every run.

        Parameters
        ----------
        path : Path
            Absolute, or `Given.path`.
        taken : set of str
            Names that this call has given, to which this one is added.

        Raises
        ------
        OutputError
            If a file could not be called so because it is too long.
        """
        name = track_name(path)
        check_names(self.files(name))
        with contextlib.ExitStack() as claims:
            # Some file systems do not tell upper from lower case.
            if name.casefold() in taken or not self._is_free(name, path, claims):
                claims.close()
                name = name_with_hash(path)
                check_names(self.files(name))
            taken.add(name.casefold())
            yield Track(path, name)

    def _is_free(self, name: str, path: Path, claims: contextlib.ExitStack) -> bool:
        if self.out_dir is None:
            return True
        return claims.enter_context(claimed(self.out_dir, name, path)) and self.owner(name) in (None, path)

    def existing(
        self,
        track: Track,
        session: Session,
        ready: ReadyStems | None,
        *,
        keep_arrays: bool,
    ) -> AnalysisResult | None:
        """The result of an earlier run, if it is whole and was not to be made again.

        It is not whole, and made again, if arrays that are there are not those that its JSON names by their SHA-256,
        or arrays asked for are not there.

        Parameters
        ----------
        track : Track
        session : Session
        ready : ReadyStems, optional
            From `find_ready_stems`.
        keep_arrays : bool
            Whether the result carries the arrays asked for. If not, it carries the activations if they are drawn. The
            SHA-256 of all that are there is checked either way.

        Raises
        ------
        OutputError
            If it was made from other audio, or with settings that give another result; see `resuming`.
        ResultError
            If the file there is no result.
        AudioError, StemsError
            If what it was made from cannot be read.
        """
        path = self.result_path(track.name)
        if path is None or "json" in self.overwrite or not path.is_file():
            return None
        result, arrays_sha256 = read_json_result(path)
        made_otherwise = differences(result, session, audio_digests(track, ready), is_separated=ready is None)
        if made_otherwise:
            raise OutputError(
                f"{path}: the result there was made {', '.join(made_otherwise)}; choose another out_dir, or make it "
                "again with overwrite='json' (--overwrite json)"
            )
        is_asked_for = {ACTIVATIONS: self.include_activations, EMBEDDINGS: self.include_embeddings}
        for kind, array_path in array_paths(path, self.array_dir).items():
            if not os.path.isfile(array_path):
                if is_asked_for[kind]:
                    return None
            elif arrays_sha256 is not None and not _has_digest(array_path, arrays_sha256.get(kind)):
                return None
        load_activations = self.include_activations and (keep_arrays or self.figures_dir is not None)
        load_embeddings = self.include_embeddings and keep_arrays
        if load_activations or load_embeddings:
            return load_result(path, load_activations, load_embeddings, self.array_dir)
        return result

    def save(self, track: Track, result: AnalysisResult) -> None:
        """Write a result; `OutputError` if that fails."""
        path = self.result_path(track.name)
        if path is not None:
            result.save(path, self.array_dir)

    def export(self, track: Track, result: AnalysisResult) -> None:
        """Write a result in the other formats asked for; `OutputError` if that fails."""
        if self.out_dir is None:
            return
        for name in self.exports:
            export(result, self.out_dir / f"{track.name}{FORMATS[name][0]}", name)


def _has_digest(path: Path, sha256: str | None) -> bool:
    try:
        return file_digest(path, ResultError) == sha256
    except ResultError:
        return False  # another process is replacing it, or it cannot be read


def parse_overwrite(overwrite: bool | str) -> frozenset[str]:
    """What is made again: all for True, nothing for False, else the names between the commas.

    Raises
    ------
    OutputError
        If a name is unknown.
    """
    if isinstance(overwrite, bool):
        return frozenset(_REMAKE if overwrite else ())
    names = {name.strip() for name in overwrite.split(",") if name.strip()}
    if "all" in names:
        return frozenset(_REMAKE)
    unknown = sorted(names - set(_REMAKE))
    if unknown:
        raise OutputError(
            f"overwrite: {', '.join(unknown)} unknown; expected all, or of {', '.join(_REMAKE)}"
        )
    # A result made from older byproducts would contradict the new ones.
    return frozenset(names | {"json"}) if names else frozenset()


def run_batch(
    paths: Sequence[Path],
    analyzer: Analyzer,
    outputs: Outputs,
    *,
    given: Mapping[Path, Given] | None = None,
    stems_dir: str | os.PathLike[str] | None = None,
    timings_path: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    keep_arrays: bool = True,
    is_single: bool = False,
) -> list[AnalysisResult]:
    """Analyse tracks one after another; a track that fails does not stop the others.

    Parameters
    ----------
    paths, analyzer, outputs
        What is analysed, by what, and what is written.
    given : dict of Given
        Tracks that came without a path, by the one in `paths` that stands for it.
    stems_dir, timings_path, progress
        As in `analyze`.
    keep_arrays : bool
        Whether the results carry their arrays. Without, no more than one track's are in memory at a time.

    Raises
    ------
    BatchError
        If tracks failed.
    Exception
        With `is_single`, what the only track raised, instead.
    BackendError, WeightsError
        At once: they would fail every track.
    """
    bars = Progress(len(paths), progress)
    timings = Timings(timings_path, on_start=bars.start_stage, on_progress=bars.show_part)
    taken: set[str] = set()
    results: list[AnalysisResult | None] = []
    failures: list[tuple[Path, Exception]] = []
    try:
        for path in paths:
            with bars.track(track_name(path)):
                try:
                    with outputs.named(path, taken) as track:
                        track = dataclasses.replace(track, given=(given or {}).get(path))
                        results.append(_run_track(track, analyzer, outputs, stems_dir, timings, keep_arrays))
                except (BackendError, WeightsError):
                    raise
                except Exception as error:
                    if not is_single:
                        _release_arrays(error)
                    results.append(None)
                    failures.append((path, error))
    finally:
        bars.close()
    if is_single and failures:
        raise failures[0][1]
    if failures:
        raise BatchError(failures, results)
    return [result for result in results if result is not None]


def _release_arrays(error: BaseException | None) -> None:
    """Forget the variables of the functions that an error came through: audio and arrays of a track that failed."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _run_track(
    track: Track,
    analyzer: Analyzer,
    outputs: Outputs,
    stems_dir: str | os.PathLike[str] | None,
    timings: Timings,
    keep_arrays: bool,
) -> AnalysisResult:
    ready = find_ready_stems(track, stems_dir)
    result = outputs.existing(track, analyzer.session, ready, keep_arrays=keep_arrays)
    if result is None:
        result = analyzer.analyze_track(
            track,
            timings,
            ready,
            include_activations=outputs.include_activations,
            include_embeddings=outputs.include_embeddings,
            kept=outputs.byproducts,
        )
        if outputs.out_dir is not None:
            with timings.stage("save", track=track.name, what="result"):
                outputs.save(track, result)
    if outputs.exports:
        with timings.stage("export", track=track.name):
            outputs.export(track, result)
    audio = None if track.given is None else track.given.audio
    if outputs.figures_dir is not None:
        with timings.stage("visualize", track=track.name):
            visualize(result, outputs.figures_dir, name=track.name, stems_dir=stems_dir, audio=audio)
    if outputs.sounds_dir is not None:
        with timings.stage("sonify", track=track.name):
            sonify(result, outputs.sounds_dir, name=track.name, stems_dir=stems_dir, audio=audio)
    return result if keep_arrays else dataclasses.replace(result, activations=None, embeddings=None)
