"""Times from files to a result on a device, with every stage's share: `rows` from stems, `rows_of_mix` from a mix."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from allin1_core import AnalysisResult, Analyzer, backends
from allin1_core.timings.recorder import Timings
from bench.device.timing import times_by_turns
from parity.implementations import rounds_products
from parity.material import SAMPLE_RATE, default_track, shared_folder, write_stems
from parity.oracles import pipeline

# What these contain is listed by itself.
_OUTER = ("postprocess",)
# Of the whole: what takes less is in "all else".
_SMALLEST_SHARE = 0.005


def rows(*, device: str = "cuda", seconds: float | None = None, rounds: int = 7) -> list[dict[str, object]]:
    """Measure a loaded session from four files of stems to a JSON file, in both precisions.

    Parameters
    ----------
    device : str
    seconds : float, optional
        Length of the track; by default all of it, from its FLAC files.
    rounds : int

    Returns
    -------
    list of dict
        As `bench.device.timing.Times.as_row`, with ``agrees`` where the track has a golden, and as ``timings`` the
        stages of the run in the middle; then a row for each stage, with its median time and its ``share`` of that of
        the whole.
    """
    track = default_track().lasting(seconds)
    with tempfile.TemporaryDirectory() as name:
        shared = shared_folder()
        if seconds is None and shared is not None:
            song, golden = shared / "audio" / track.name, pipeline.read_golden(shared, track.name)
        else:
            song, golden = write_stems(Path(name, track.name), track.stems), None
        found = _rows("stems to JSON", song, device, rounds, Path(name), {})
    for row in found:
        result = row.pop("result", None)
        if isinstance(result, AnalysisResult) and golden is not None:
            within_a_frame = rounds_products(result)
            compared = pipeline.compare_results(result, golden, beats_within_a_frame=within_a_frame)
            row["agrees"] = pipeline.passed(compared)
    return found


def rows_of_mix(
    *,
    device: str = "cuda",
    seconds: float | None = None,
    rounds: int = 7,
    shape: Mapping[str, Any] | None = None,
) -> list[dict[str, object]]:
    """As `rows`, from a stereo mix: with separation, by a model of the published shape and seeded random weights."""
    from parity.inputs import separation

    track = default_track().lasting(seconds)
    options = separation.PUBLISHED if shape is None else shape
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mix = separation.stereo_mix(track.stems)
        soundfile.write(folder / "mix.flac", (mix / max(1.0, np.abs(mix).max())).T, SAMPLE_RATE)
        separation.save(separation.htdemucs(mix, **options), folder / "random.th", **options)
        model = {"demix_model": "random", "demix_repository": folder}
        found = _rows("mix to JSON", folder / "mix.flac", device, rounds, folder, model)
    return [{key: value for key, value in row.items() if key != "result"} for row in found]


def _rows(
    what: str, song: Path, device: str, rounds: int, folder: Path, options: Mapping[str, Any]
) -> list[dict[str, object]]:
    shared = shared_folder()
    weights = None if shared is None else shared / "weights"
    runs: dict[str, list[Timings]] = {precision: [] for precision in backends.PRECISIONS}

    def analysis(precision: str) -> Callable[[], AnalysisResult]:
        analyze = Analyzer(device=device, precision=precision, weights_dir=weights, **options)

        def run() -> AnalysisResult:
            runs[precision].append(Timings())
            result = analyze(song, timings=runs[precision][-1])
            with runs[precision][-1].stage("save", track=song.stem):
                result.save(folder / f"{precision}.json")
            return result

        return run

    times = times_by_turns({precision: analysis(precision) for precision in runs}, device, rounds)
    found: list[dict[str, object]] = []
    for precision, taken in times.items():
        name = f"{what}, {precision}"
        counted = runs[precision][-len(taken.seconds) :]
        middle = sorted(zip(taken.seconds, range(len(counted)), strict=True))[len(counted) // 2][1]
        timings = [dataclasses.asdict(record) for record in counted[middle].records]
        found.append({**taken.as_row(name), "device": device, "timings": timings, "result": taken.output})
        stages = {
            stage: seconds
            for stage, seconds in _by_stage(counted).items()
            if seconds >= _SMALLEST_SHARE * taken.median
        }
        stages["all else"] = taken.median - sum(stages.values())
        found += [
            {"name": f"{name}: {stage}", "seconds": value, "share": value / taken.median}
            for stage, value in stages.items()
        ]
    return found


def _by_stage(runs: list[Timings]) -> dict[str, float]:
    """Median time of each stage of the calling thread, in seconds, in the order in which they ran."""
    seconds: dict[str, list[float]] = {}
    for run in runs:
        for record in run.records:
            if record.thread == "main" and record.stage not in _OUTER:
                seconds.setdefault(record.stage, []).append(record.duration)
    return {stage: statistics.median(values) for stage, values in seconds.items()}
