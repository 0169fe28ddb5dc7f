"""A list of tracks, side by side against one after another: throughput, and how busy the cores are."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core import Analyzer
from allin1_core.batch import run_batch
from allin1_core.batch.side_by_side import number_of_jobs
from allin1_core.settings import Outputs
from allin1_core.timings.schema import StageTiming, read_timings
from bench.bench_pipeline import Setting, setting
from bench.measure.load import pinned_threads
from bench.measure.paired import is_brief, paired_times
from bench.report.records import BenchRecord, BenchRecorder
from bench.schedule import stages_at_work
from parity.environment import usable_cores
from parity.material import SAMPLE_RATE, default_track, read_stems, tracks, write_stems

__all__ = ["setting"]  # the fixture

_EXCERPTS = 20
_ALL = 0  # as many tracks at the same time as are taken by default


def test_a_list_of_tracks(
    setting: Setting, record_bench: BenchRecorder, rounds: int, tmp_path: Path, benchmark: Any
) -> None:
    """Excerpts of 5 to 30 s, tracks side by side against one after another: the same files, and busier cores."""
    paths, audio_seconds = _excerpts(tmp_path / "library", _EXCERPTS)
    passes: dict[int, list[_Pass]] = {1: [], _ALL: []}

    def analyse_all(jobs: int) -> dict[str, bytes]:
        out = tmp_path / f"{jobs}-{len(passes[jobs])}"
        out.mkdir()
        outputs = Outputs(out_dir=out, timings_path=out / "timings.jsonl")
        start, cpu_start = time.perf_counter(), time.process_time()
        run_batch(dict.fromkeys(paths), analyzers[jobs], outputs, progress=False, keep_arrays=False)
        elapsed = time.perf_counter() - start
        cpu_seconds = time.process_time() - cpu_start
        passes[jobs].append(_Pass(elapsed, cpu_seconds, read_timings(out / "timings.jsonl")))
        return {path.name: path.read_bytes() for path in out.glob("*.json")}

    with pinned_threads(usable_cores()) as threads:
        options: dict[str, Any] = {"model": setting.model, "weights_dir": setting.weights_dir}
        analyzers = {1: Analyzer(**options, jobs=1), _ALL: Analyzer(**options)}
        for analyzer in analyzers.values():
            analyzer(paths[0])
        times = paired_times(
            lambda: analyse_all(_ALL),
            lambda: analyse_all(1),
            rounds=1 if is_brief(rounds) else 3,
            warmup=0,
            benchmark=benchmark,
        )
    agrees = times.candidate_output == times.reference_output and len(times.candidate_output) == len(paths)
    together = number_of_jobs(analyzers[_ALL].session, len(paths))
    choice = analyzers[_ALL].session.network_choice
    record_bench(
        BenchRecord(
            stage="pipeline",
            backend=f"{analyzers[_ALL].session.log_spectrogram.choice.backend} + {choice.backend}",
            device=choice.device,
            precision=choice.precision,
            variant=f"{len(paths)} excerpts of 5 to 30 s, {together} at the same time, {setting.variant}",
            reference="one after another",
            track=f"{len(paths)} excerpts",
            audio_seconds=audio_seconds,
            threads=threads,
            **times.as_fields,
            reference_threads=threads,
            agreement="the same files" if agrees else "files differ",
            agrees=agrees,
            figures={
                "busy": {str(jobs): statistics.median(each.busy for each in passes[jobs]) for jobs in passes},
                "note": f"{together} at the same time: {_in_words(passes[_ALL], threads)}. One after another: "
                f"{_in_words(passes[1], threads)}",
            },
        )
    )
    assert agrees


@dataclasses.dataclass(frozen=True)
class _Pass:
    """A pass over a list: seconds on the clock and of all cores, and the lines of its stages."""

    seconds: float
    cpu_seconds: float
    lines: list[StageTiming]

    @property
    def busy(self) -> float:
        """Share of the cores' time that the process used."""
        return self.cpu_seconds / (self.seconds * usable_cores())


def _in_words(passes: Sequence[_Pass], threads: int) -> str:
    """How busy the cores were, and which part of the time each stage ran, of so many that could."""
    busy = statistics.median(each.busy for each in passes)
    return (
        f"the process used {busy:.0%} of {threads} cores; {stages_at_work(passes[-1].lines, passes[-1].seconds)} "
        "(as many threads as cores each, or one where tracks share them)"
    )


def _excerpts(folder: Path, number: int) -> tuple[list[Path], float]:
    """Cut so many excerpts of 5 to 30 s from the tracks by turns, seeded; their folders and their length together."""
    random, paths, together = np.random.default_rng(0), [], 0
    sources = {name: read_stems(name) for name in tracks()} or {"default": default_track().stems}
    for index, (name, stems) in zip(range(number), itertools.cycle(sources.items()), strict=False):
        length = min(int(random.uniform(5, 30) * SAMPLE_RATE), stems.shape[1])
        start = int(random.integers(stems.shape[1] - length + 1))
        paths.append(write_stems(folder / f"{index:02d}_{name}", stems[:, start : start + length]))
        together += length
    return paths, together / SAMPLE_RATE
