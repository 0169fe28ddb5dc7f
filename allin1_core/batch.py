"""Many tracks in one call: what is there already, what is written where, and what happens when one fails."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from allin1_core.byproducts import Byproducts
from allin1_core.claims import give_back_name, take_name
from allin1_core.digests import audio_digests, is_separated
from allin1_core.errors import BackendError, BatchError, OutputError, ResultError, WeightsError
from allin1_core.exports import FORMATS, export
from allin1_core.files import check_writable
from allin1_core.progress import Progress
from allin1_core.result import AnalysisResult, load_result
from allin1_core.resuming import differences
from allin1_core.timings import Timings
from allin1_core.tracks import Track, name_tracks

if TYPE_CHECKING:
    from allin1_core.analysis import Analyzer
    from allin1_core.inputs import Given
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
            return load_result(path, load_activations=False, load_embeddings=False).path
        except ResultError:
            return None  # `existing` says what is wrong with it, or it is overwritten

    def take_name(self, name: str, path: Path) -> bool:
        """Whether a track may have that name here; if so, no track of another process gets it meanwhile."""
        if self.out_dir is None:
            return True
        if not take_name(self.out_dir, name, path):
            return False
        if self.owner(name) in (None, path):
            return True
        give_back_name(self.out_dir, name)
        return False

    def give_back_names(self, tracks: Sequence[Track]) -> None:
        """To be called when their results are there, or when there will be none."""
        if self.out_dir is not None:
            for track in tracks:
                give_back_name(self.out_dir, track.name)

    def existing(
        self, track: Track, session: Session, stems_dir: str | os.PathLike[str] | None
    ) -> AnalysisResult | None:
        """The result of an earlier run, if it is whole and was not to be made again.

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
        result = load_result(path, self.include_activations, self.include_embeddings, self.array_dir)
        made_otherwise = differences(
            result, session, audio_digests(track, stems_dir), is_separated=is_separated(track, stems_dir)
        )
        if made_otherwise:
            raise OutputError(
                f"{path}: the result there was made {', '.join(made_otherwise)}; choose another out_dir, or make it "
                "again with overwrite='json' (--overwrite json)"
            )
        if self.include_activations and result.activations is None:
            return None
        if self.include_embeddings and result.embeddings is None:
            return None
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
) -> list[AnalysisResult]:
    """Analyse tracks one after another; a track that fails does not stop the others.

    Parameters
    ----------
    given : dict of Given
        Tracks that came without a path, by the one in `paths` that stands for it.

    Raises
    ------
    Allin1Error
        Of a single track, its own error.
    BatchError
        If some of several tracks failed.
    BackendError, WeightsError
        At once: they would fail every track.
    """
    bars = Progress(len(paths), progress)
    timings = Timings(timings_path, on_start=bars.start_stage, on_progress=bars.show_part)
    tracks = name_tracks(paths, outputs.take_name)
    results: list[AnalysisResult | None] = []
    failures: list[tuple[Path, Exception]] = []
    try:
        for track in tracks:
            with bars.track(track.name):
                try:
                    track = dataclasses.replace(track, given=(given or {}).get(track.path))
                    results.append(_run_track(track, analyzer, outputs, stems_dir, timings))
                except (BackendError, WeightsError):
                    raise
                except Exception as error:
                    results.append(None)
                    failures.append((track.path, error))
    finally:
        bars.close()
        outputs.give_back_names(tracks)
    if len(tracks) == 1 and failures:
        raise failures[0][1]
    if failures:
        raise BatchError(failures, results)
    return [result for result in results if result is not None]


def _run_track(
    track: Track,
    analyzer: Analyzer,
    outputs: Outputs,
    stems_dir: str | os.PathLike[str] | None,
    timings: Timings,
) -> AnalysisResult:
    result = outputs.existing(track, analyzer.session, stems_dir)
    if result is None:
        result = analyzer.analyze_track(
            track,
            timings,
            stems_dir=stems_dir,
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
        from allin1_core.figures import visualize

        with timings.stage("visualize", track=track.name):
            visualize(result, outputs.figures_dir, name=track.name, stems_dir=stems_dir, audio=audio)
    if outputs.sounds_dir is not None:
        from allin1_core.sonification import sonify

        with timings.stage("sonify", track=track.name):
            sonify(result, outputs.sounds_dir, name=track.name, stems_dir=stems_dir, audio=audio)
    return result
