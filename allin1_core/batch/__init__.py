"""Many tracks in one call: what is there already, what is written where, and what happens when one fails."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from allin1_core.analysis import Analyzer, check_separation, check_settings
from allin1_core.batch import names
from allin1_core.batch.names import expand_path, is_pattern, named
from allin1_core.batch.progress import Progress
from allin1_core.batch.resuming import existing
from allin1_core.batch.side_by_side import (
    SECONDS_A_JOB,
    Room,
    StoppedError,
    number_of_jobs,
    run_side_by_side,
)
from allin1_core.batch.signature import one_or_many
from allin1_core.byproducts import Byproducts
from allin1_core.dbn.hints import Anchors, checked_anchors
from allin1_core.errors import BackendError, BatchError, HintError, StemsError, WeightsError
from allin1_core.files.writing import check_no_input, check_writable, expand_user, identities
from allin1_core.results import clicks, figures
from allin1_core.results.exports import FORMATS, export
from allin1_core.results.result import AnalysisResult
from allin1_core.separation.inputs import Given, Input, PathLike, is_one_input, take
from allin1_core.separation.mix import read_mix
from allin1_core.separation.track import AudioFiles, Track, track_name
from allin1_core.settings import Outputs, Settings, documented, options_of
from allin1_core.threads import limited_cores, readers, usable_cores
from allin1_core.timings.recorder import Timings


@one_or_many
@documented(Outputs, Settings)
def analyze(
    paths: Input | Sequence[Input],
    out_dir: PathLike | None = None,
    visualize: bool | PathLike = False,
    sonify: bool | PathLike = False,
    model: str = "harmonix-all",
    device: str | None = None,
    include_activations: bool = False,
    include_embeddings: bool = False,
    demix_dir: PathLike = "./demix",
    spec_dir: PathLike = "./spec",
    keep_byproducts: bool = False,
    overwrite: bool | str = False,
    *,
    stems_dir: PathLike | None = None,
    anchors: Sequence[float | Sequence[float]] | None = None,
    spec_backend: str = "auto",
    nn_backend: str = "auto",
    precision: str = "exact",
    demix_backend: str = "auto",
    demix_model: str = "htdemucs",
    demix_repository: PathLike | None = None,
    demix_seed: int = 0,
    demix_overlap: float = 0.25,
    stems_as_int16: bool = True,
    weights_dir: PathLike | None = None,
    array_dir: PathLike | None = None,
    include_confidences: bool = False,
    exports: Sequence[str] = (),
    num_threads: int | None = None,
    jobs: int | None = None,
    min_bpm: float = 55.0,
    max_bpm: float = 215.0,
    beats_per_bar: int | Sequence[int] = (3, 4),
    meter_weights: Sequence[float] | None = None,
    meter_change_prob: float | None = None,
    timings_path: PathLike | None = None,
    progress: bool | None = None,
) -> AnalysisResult | list[AnalysisResult]:
    """Find tempo, beats, downbeats and sections of songs.

    Parameters
    ----------
    paths : path-like, Audio, Stems or binary file object, or sequence of those
        Audio files, folders that hold the four (or six) stems of a track, stem files (``.stem.mp4``, told by their
        content), or patterns (``songs/*.mp3``). A mix may decode to 2 GiB of samples, stems, as mono, to 4 GiB
        together: 3.4 hours at 44.1 kHz in 16 bits, half of that in ``float32``. Separation takes several times the
        mix. A symbolic link is a track of its own name. What comes again is dropped.

        Instead of a path, samples (`Audio` of a mix, `Stems` of four stems) or a binary file object, which is read
        from where it stands to its end, into memory, and left open. Such a track is called ``track-`` and the first
        eight digits of its SHA-256, also as the `path` of its result, which is relative and leads to no file.
    <options>
    stems_dir : path-like, optional
        Folder with ready stems, ``<stems_dir>/<file name without suffix>/{bass,drums,other,vocals}.*``. Files are
        told by the stem in their name; guitar and piano are added to other. Samples of a mix and file objects have no
        name to look for.
    anchors : sequence of float or (float, int), optional
        Beats that are known, of a single track: times in seconds, each alone or with its position in the bar from 1.
        A beat is put into each of these frames of 0.01 s, and the others are the likeliest beside them.
    progress : bool, optional
        Whether to show progress bars; by default on a terminal.

    Returns
    -------
    AnalysisResult or list of AnalysisResult
        One result for a single path that is not a pattern, else a list in input order; with `out_dir`, the results of
        a list carry neither activations nor embeddings.

    Raises
    ------
    AudioError, StemsError
        If a track cannot be used, or is none of the things named above.
    OptionError
        If an option has a value of the wrong form, a path is empty, or what is read would be overwritten; before any
        work.
    BackendError, WeightsError
        If what was asked for cannot run; before any track is analysed.
    HintError
        If a hint for the beats (tempo range, bar lengths, their weights and changes, anchors) is out of its range,
        contradicts another, or lies outside the song; or if anchors are given for several tracks.
    OutputError
        If a file cannot be written; nothing half-written is left behind. If a track's name is too long for one of
        its files; then none is written. If a result that is there was made from other audio or with other settings.
    BatchError
        If tracks of a list or a pattern failed; the others are done, and are in its `results`. A single path raises
        its own error.
    """
    options = locals()
    is_one = is_one_input(paths)
    is_single = is_one and not (isinstance(paths, str | os.PathLike) and is_pattern(paths))
    outputs = Outputs(**options_of(options, Outputs))
    analyzer = Analyzer(**options_of(options, Settings))
    # An empty path would be the working folder.
    if stems_dir is not None and not (stems_dir and os.path.isdir(expand_user(stems_dir))):
        raise StemsError(f"stems_dir: no folder at {str(stems_dir)!r}; correct it or leave it out")
    tracks = _expand(cast("Sequence[Input]", [paths] if is_one else paths))
    known = checked_anchors(anchors, analyzer.session.settings.decoding["beats_per_bar"])
    if known and len(tracks) != 1:
        raise HintError(
            f"anchors: given for {len(tracks)} tracks; expected one, whose beats they are: analyse each alone"
        )
    check_settings(analyzer.session)
    check_separation(analyzer.session, _without_result(tracks, outputs), stems_dir)
    _check_folders(outputs)
    results = run_batch(
        tracks,
        analyzer,
        outputs,
        stems_dir=stems_dir,
        anchors=known,
        progress=progress,
        keep_arrays=is_single or out_dir is None,
        is_single=is_single,
    )
    return results[0] if is_single else results


def _expand(inputs: Sequence[Input]) -> dict[Path, Given | None]:
    """The path of each track, or what stands for it, and what came without one; see `expand_path`."""
    tracks: dict[Path, Given | None] = {}
    for one in inputs:
        if isinstance(one, str | os.PathLike):
            tracks.update(dict.fromkeys(expand_path(one)))
        else:
            given = take(one)
            tracks[given.path] = given
    return tracks


def _without_result(tracks: Mapping[Path, Given | None], outputs: Outputs) -> Iterator[Track]:
    for path, given in tracks.items():
        name = track_name(path)
        result_path = outputs.result_path(name)
        if result_path is None or "json" in outputs.remade or not os.path.isfile(result_path):
            yield Track(path, name, given)


def _check_folders(outputs: Outputs) -> None:
    """Make the folders; `OutputError` if one cannot be written to, before there is anything to lose."""
    folders = [outputs.out_dir, outputs.figures_dir, outputs.sounds_dir, outputs.array_dir]
    if outputs.keep_byproducts:
        folders += [outputs.demix_dir, outputs.spec_dir]
    for folder in folders:
        if folder is not None:
            check_writable(folder)


def run_batch(
    tracks: Mapping[Path, Given | None],
    analyzer: Analyzer,
    outputs: Outputs,
    *,
    stems_dir: PathLike | None = None,
    anchors: Anchors = (),
    progress: bool | None = None,
    keep_arrays: bool = True,
    is_single: bool = False,
    naming: Callable[[Path, AudioFiles], contextlib.AbstractContextManager[Track]] | None = None,
    on_end: Callable[[Path, AnalysisResult | Exception], None] = lambda path, outcome: None,
) -> list[AnalysisResult]:
    """Analyse tracks, some side by side; a track that fails does not stop the others.

    They are begun in their order, and named in it, so that files, results and failures are those of one after another.

    Parameters
    ----------
    tracks : dict of Given or None
        By the path of each track, or the one that stands for it, what came without one.
    keep_arrays : bool
        Whether the results carry their arrays. Without, no more are in memory at a time than of the tracks in flight:
        `number_of_jobs` at most, and together no longer than `SECONDS_A_JOB` for each, or one longer track alone.
    naming : callable, optional
        Gives a context in which a path, made from these files, is a track with a name for its own; see `named` for
        what they are called otherwise.
    on_end : callable
        Called with each track's path and its result when its files are written, or with what it raised. What this
        raises of a result is the track's failure. Several threads may call it at the same time.

    Raises
    ------
    BatchError
        If tracks failed.
    Exception
        With `is_single`, what the only track raised, instead.
    BackendError, WeightsError
        When the tracks in flight have ended, and before others: they would fail every track.
    """
    jobs = number_of_jobs(analyzer.session, len(tracks))
    # Where one track computes at a time, what feeds the device may take all cores, too; but several are read at a time.
    sharing = jobs if analyzer.session.shares_cores else 1
    share = max(1, usable_cores() // sharing)
    bars = Progress(len(tracks), progress, side_by_side=jobs > 1)
    stopping, room = threading.Event(), Room(jobs * SECONDS_A_JOB)

    inputs = identities(
        names.input_files((path for path, given in tracks.items() if given is None), stems_dir)
    )
    if outputs.timings_path is not None:
        check_no_input([outputs.timings_path], inputs)

    def proceed() -> None:
        if stopping.is_set():
            raise StoppedError

    def show_part(part: float) -> None:
        proceed()
        bars.show_part(part)

    timings = Timings(
        outputs.timings_path,
        on_start=bars.start_stage,
        on_progress=show_part,
        before_stage=proceed,
        concurrent=jobs,
    )
    taken: set[str] = set()
    results: list[AnalysisResult | None] = [None] * len(tracks)
    failures: dict[int, tuple[Path, Exception]] = {}

    def run(index: int, item: tuple[Path, Given | None], begun: Callable[[], None]) -> None:
        path, given = item
        with bars.track(track_name(path)), contextlib.ExitStack() as held:
            if jobs > 1:
                held.enter_context(limited_cores(share))
                held.enter_context(readers(jobs // sharing))
            try:
                files = AudioFiles(Track(path, track_name(path), given), stems_dir)
                with naming(path, files) if naming else named(path, outputs, taken) as track:
                    track = dataclasses.replace(track, given=given, anchors=anchors)
                    check_no_input(names.files(track.name, outputs), inputs)
                    if outputs.keep_byproducts and files.ready is None:
                        check_no_input(names.kept_stems(track.name, outputs, analyzer.session), inputs)
                    if jobs > 1:
                        held.enter_context(room.taken(track.stated_seconds(files.ready)))
                        begun()
                    result = _run_track(track, files, analyzer, outputs, stems_dir, timings, keep_arrays)
                    on_end(path, result)
                    results[index] = result
            except (BackendError, WeightsError):
                raise
            except Exception as error:
                if not is_single:
                    _release_arrays(error)
                failures[index] = (path, error)
                on_end(path, error)

    try:
        run_side_by_side(tracks.items(), jobs, run, stopping)
    finally:
        bars.close()
    failed = [failures[index] for index in sorted(failures)]
    if is_single and failed:
        raise failed[0][1]
    if failed:
        raise BatchError(failed, results)
    return [result for result in results if result is not None]


def _release_arrays(error: BaseException | None) -> None:
    """Forget the variables of the functions that an error came through: audio and arrays of a track that failed."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _run_track(
    track: Track,
    files: AudioFiles,
    analyzer: Analyzer,
    outputs: Outputs,
    stems_dir: PathLike | None,
    timings: Timings,
    keep_arrays: bool,
) -> AnalysisResult:
    path = outputs.result_path(track.name)
    result = existing(track, analyzer.session, outputs, files, keep_arrays=keep_arrays)
    if result is None:
        result = analyzer.analyze_track(
            track,
            files,
            timings,
            include_activations=outputs.include_activations,
            include_embeddings=outputs.include_embeddings,
            include_confidences=outputs.include_confidences,
            kept=Byproducts(Path(outputs.demix_dir), Path(outputs.spec_dir), outputs.remade)
            if outputs.keep_byproducts
            else None,
        )
        if path is not None:
            with timings.stage("save", track=track.name, what="result"):
                result.save(path, outputs.array_dir)
    if outputs.exports and outputs.out_dir is not None:
        with timings.stage("export", track=track.name):
            for name in outputs.exports:
                export(result, Path(outputs.out_dir, f"{track.name}{FORMATS[name]}"), name)
    if outputs.figures_dir is not None or outputs.sounds_dir is not None:
        given = None if track.given is None else track.given.audio
        with timings.stage("audio_read", track=track.name, what="mix"):
            mix = files.read(lambda: read_mix(track.path, stems_dir, given))
    if outputs.figures_dir is not None:
        with timings.stage("visualize", track=track.name):
            figures.visualize(result, outputs.figures_dir, name=track.name, audio=mix)
    if outputs.sounds_dir is not None:
        with timings.stage("sonify", track=track.name):
            clicks.sonify(result, outputs.sounds_dir, name=track.name, audio=mix)
    return result if keep_arrays else dataclasses.replace(result, activations=None, embeddings=None)
