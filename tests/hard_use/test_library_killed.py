"""A library through Ray whose workers, raylet and driver are killed: the results and tables of an undisturbed run."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet
import pytest

from allin1_core.library import analyze_library, library_status
from allin1_core.timings.schema import read_timings
from hard_use.libraries import differing, environment, leftovers, write_library
from hard_use.reporting import check_trials
from parity.reports.records import ParityRecorder

WORKERS = 2
# Where each stands in a list of processes: Ray names its own.
PROCESSES = {"worker": "ray::Worker", "raylet": "raylet"}


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Ray's own files; a short path, because sockets lie there."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def start(source: Path, out: Path, model: str, timings: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "allin1_core.cli", "library", str(source), "--out", str(out), "--quiet"),
            *("--engine", "ray", "--workers", str(WORKERS), "--model", model, "--device", "cpu"),
            *("--timings", str(timings)),
        ],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill(driver: subprocess.Popen[str], what: str, draw: random.Random) -> bool:
    """Kill the driver, or one of Ray's processes below it; False if there is none."""
    if what == "driver":
        driver.kill()
        return True
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(driver.pid).children(recursive=True)
        found = [child for child in children if _is(child, PROCESSES[what])]
        if found:
            draw.choice(found).kill()
            return True
    return False


def _is(process: psutil.Process, name: str) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return os.path.basename(process.cmdline()[0]).startswith(name) if process.cmdline() else False
    return False


def results(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "results").glob("*.json")}


def computed(timings: Path) -> collections.Counter[str]:
    """How often the network ran on each track."""
    lines = read_timings(timings) if timings.exists() else []
    return collections.Counter(str(line.track) for line in lines if line.stage == "nn")


@pytest.mark.parametrize(
    ("number", "kills"),
    [(60, 4), pytest.param(2000, 30, marks=[pytest.mark.full, pytest.mark.timeout(5400)])],
)
def test_killed_and_resumed(
    number: int,
    kills: int,
    small_model: str,
    stems: np.ndarray,
    tmp_path: Path,
    ray_folder: Path,
    record_parity: ParityRecorder,
) -> None:
    write_library(tmp_path / "songs", stems, number, seconds=5.0 if number == 60 else 1.5)
    analyze_library(
        tmp_path / "songs", tmp_path / "undisturbed", model=small_model, device="cpu", progress=False
    )
    expected = results(tmp_path / "undisturbed")
    assert len(expected) == number

    draw = random.Random(number)
    # Without its raylet a run goes on as long as it has a worker.
    kinds = (["worker", "raylet", "driver", "worker", "worker"] * kills)[:kills]
    moments = sorted(draw.sample(range(number // 20, number - number // 20), kills))
    out, timings = tmp_path / "out", tmp_path / "timings.jsonl"
    driver = start(tmp_path / "songs", out, small_model, timings)
    wrong, starts, before = [], 1, collections.Counter[str]()
    try:
        for what, moment in zip(kinds, moments, strict=True):
            is_killed = False
            while not is_killed:
                if driver.poll() is not None:
                    assert len(results(out)) < number, f"all was done before kill {what} at {moment}"
                    driver, starts = start(tmp_path / "songs", out, small_model, timings), starts + 1
                there = [path.stem for path in (out / "results").glob("*.json")]
                if len(there) >= moment:
                    is_killed = kill(driver, what, draw)
                    times = computed(timings)
                    before |= collections.Counter({name: times[name] for name in there if name not in before})
                time.sleep(0.02)
            if what == "driver":
                driver.communicate()
        _, errors = driver.communicate()
        while driver.returncode != 0 and starts < 2 * kills:
            driver, starts = start(tmp_path / "songs", out, small_model, timings), starts + 1
            _, errors = driver.communicate()
    finally:
        driver.kill()
    found, times = results(out), computed(timings)
    table = pyarrow.parquet.read_table(out / "songs", columns=["song", "name"])
    wrong += [f"status {driver.returncode}: {errors}"] * (driver.returncode != 0)
    wrong += [f"{name} differs" for name in differing(found, expected)]
    wrong += [f"{name} is missing" for name in expected.keys() - found.keys()]
    wrong += [
        f"{name} computed {times[name] - then} times more, though it was there at a kill"
        for name, then in before.items()
        if times[name] != then
    ]
    in_table = collections.Counter(table["name"].to_pylist())
    wrong += [f"{name} has {rows} rows" for name, rows in in_table.items() if rows != 1]
    wrong += [f"{name} has no row" for name in expected if name.removesuffix(".json") not in in_table]
    wrong += [f"{path} was left" for path in leftovers(out)]
    status = library_status(out)
    wrong += [f"{status}"] * ((status.songs, status.done, status.failed) != (number, number, 0))
    check_trials(
        record_parity,
        "long and many",
        "a library through Ray: workers, raylet and driver killed, then resumed",
        "results and rows of an undisturbed run, none computed again that was there at a kill",
        tried=number,
        wrong=wrong,
        backend="fused",
        killed=kills,
        starts=starts,
        computed_again=sum(times.values()) - number,
    )
