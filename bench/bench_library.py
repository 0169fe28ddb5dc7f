"""A library of songs: the local engine and Ray beside one song after another, Ray's own cost, and a forecast."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core.library import LibraryStatus, analyze_library
from allin1_core.library.places import Place
from allin1_core.library.tables import FAILURES, SONGS, read_table
from allin1_core.threads import usable_cores
from allin1_core.timings.schema import StageTiming, read_timings
from bench.measure.paired import is_brief
from bench.report.records import BenchRecord, BenchRecorder
from bench.schedule import CORE, measured_stages, simulate, stages_at_work
from parity.material import SAMPLE_RATE, default_track, write_stems

_SONGS, _SECONDS = 40, 20.0
_WITHIN = 0.1  # of the measured time, which a forecast is held to
_ONE_BY_ONE, _LOCAL, _RAY = "one by one", "local", "ray"
_ENGINES: dict[str, dict[str, Any]] = {_ONE_BY_ONE: {"jobs": 1}, _LOCAL: {}, _RAY: {"engine": "ray"}}


@dataclasses.dataclass(frozen=True)
class _Pass:
    """A pass over the library.

    Attributes
    ----------
    seconds : float
        As long as all songs take at the rate from the first one done to the last: how long an engine takes to start
        does not depend on how many songs there are.
    start : float
        Seconds until the first one was done.
    lines : list of StageTiming
    results : dict of bytes
    """

    seconds: float
    start: float
    lines: list[StageTiming]
    results: dict[str, bytes]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Excerpts of the default track as FLAC, no two alike."""
    folder, random = tmp_path_factory.mktemp("library"), np.random.default_rng(0)
    stems, length = default_track().stems, int(_SECONDS * SAMPLE_RATE)
    for index in range(_SONGS):
        start = int(random.integers(stems.shape[1] - length))
        write_stems(folder / f"{index:02d}", stems[:, start : start + length])
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on the cores of this machine, started once; a short path, because sockets lie there."""
    import ray

    folder = tempfile.mkdtemp(prefix="ray-")
    ray.init(
        num_cpus=usable_cores(),
        include_dashboard=False,
        _temp_dir=folder,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def _analyze(source: Any, out: Path, weights_dir: Path, engine: str) -> LibraryStatus:
    return analyze_library(
        source,
        out,
        model="harmonix-fold0",
        weights_dir=weights_dir,
        device="cpu",
        timings_path=out.with_suffix(".jsonl"),
        progress=False,
        **_ENGINES[engine],
    )


def _moments(out: Path, table: str) -> list[float]:
    """When each song ended, in seconds, sorted."""
    return sorted(
        moment.timestamp() for moment in read_table(Place(out), table, ["finished"])["finished"].to_pylist()
    )


def _pass(library: Path, out: Path, weights_dir: Path, engine: str) -> _Pass:
    start = time.time()
    _analyze(library, out, weights_dir, engine)
    done = _moments(out, SONGS)
    assert len(done) == _SONGS
    results = {path.name: path.read_bytes() for path in (out / "results").glob("*.json")}
    seconds = (done[-1] - done[0]) * _SONGS / (_SONGS - 1)
    return _Pass(seconds, done[0] - start, read_timings(out.with_suffix(".jsonl")), results)


def test_engines(
    library: Path, cluster: None, shared: Path, record_bench: BenchRecorder, rounds: int, tmp_path: Path
) -> None:
    """The same results in less time; and how long the local engine takes, from the stages of every other song."""
    passes: dict[str, list[_Pass]] = {engine: [] for engine in _ENGINES}
    for number in range(2 if is_brief(rounds) else 3):
        for engine in _ENGINES:
            out = tmp_path / f"{number}-{engine}".replace(" ", "-")
            passes[engine].append(_pass(library, out, shared / "weights", engine))
    reference, workers = passes[_ONE_BY_ONE], usable_cores()
    forecasts = [_forecast(each.lines, workers) / _clock(each.lines) for each in passes[_LOCAL]]
    forecast = statistics.median(forecasts)
    for engine in (_LOCAL, _RAY):
        last = passes[engine][-1]
        same = all(each.results == reference[0].results for each in (*reference, *passes[engine]))
        record_bench(
            BenchRecord(
                stage="library",
                backend=engine,
                variant=f"{_SONGS} songs of {_SECONDS:.0f} s, 1 fold",
                reference=_ONE_BY_ONE,
                track=f"{_SONGS} excerpts",
                audio_seconds=_SONGS * _SECONDS,
                threads=workers,
                seconds=[each.seconds for each in passes[engine]],
                reference_seconds=[each.seconds for each in reference],
                reference_threads=workers,
                agreement="the same JSON" if same else "JSON differs",
                agrees=same,
                figures={
                    "start": statistics.median(each.start for each in passes[engine]),
                    "note": f"{stages_at_work(last.lines, last.seconds)}; the first song is done after "
                    f"{statistics.median(each.start for each in passes[engine]):.1f} s",
                },
            )
        )
        assert same
    record_bench(
        BenchRecord(
            stage="library",
            backend="forecast",
            variant=f"{_SONGS} songs of {_SECONDS:.0f} s, 1 fold, local",
            track=f"{_SONGS} excerpts",
            audio_seconds=_SONGS * _SECONDS,
            threads=workers,
            seconds=[_forecast(each.lines, workers) for each in passes[_LOCAL]],
            agreement=f"{forecast:.3f} of what was measured, bound {1 - _WITHIN:g} to {1 + _WITHIN:g}",
            agrees=abs(forecast - 1) <= _WITHIN,
            figures={"note": "simulated from the stages' times of every other song (bench/schedule.py)"},
        )
    )
    assert abs(forecast - 1) <= _WITHIN, forecasts


def _forecast(lines: list[StageTiming], workers: int) -> float:
    """How long so many workers would take, if the songs between took what every other song did."""
    measured = measured_stages(lines)
    known = [measured[index - index % 2] for index in range(len(measured))]
    return simulate(known, {CORE: workers}, workers).seconds


def _clock(lines: list[StageTiming]) -> float:
    """From the first stage of a song to the last, in seconds."""
    of_songs = [line for line in lines if line.track is not None]
    return max(line.end for line in of_songs) - min(line.start for line in of_songs)


def test_cost_of_ray(
    cluster: None, shared: Path, record_bench: BenchRecorder, rounds: int, tmp_path: Path
) -> None:
    """What Ray adds to a song: songs that are not there, so that nothing is left but the engine and the tables."""
    number, seconds = 1000, dict[str, list[float]]()
    songs: list[str | os.PathLike[str]] = [f"/absent/{index}.wav" for index in range(number)]
    for turn in range(min(rounds, 3)):
        for engine in (_LOCAL, _RAY):
            out = tmp_path / f"{engine}-{turn}"
            status = _analyze(songs, out, shared / "weights", engine)
            assert status.failed == number
            done = _moments(out, FAILURES)
            seconds.setdefault(engine, []).append((done[-1] - done[0]) / (number - 1))
    record_bench(
        BenchRecord(
            stage="library",
            backend=_RAY,
            variant="a song of no work",
            reference=_LOCAL,
            track="none",
            audio_seconds=0.0,
            threads=usable_cores(),
            seconds=seconds[_RAY],
            reference_seconds=seconds[_LOCAL],
            reference_threads=usable_cores(),
            figures={"note": "of 1,000 songs that are not there, from the first failure to the last"},
        )
    )
