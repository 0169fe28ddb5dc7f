"""Runs that are killed, or share their folders: every file is whole, and the one an undisturbed run leaves."""

from __future__ import annotations

import dataclasses
import itertools
import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from allin1_core.timings.schema import read_timings
from hard_use.libraries import (
    command,
    contents,
    differing,
    environment,
    leftovers,
    write_library,
    write_mixes,
)
from hard_use.reporting import check_trials
from parity.reports.records import ParityRecorder


@dataclasses.dataclass
class Undisturbed:
    """A library, and what a run over it leaves when nothing happens to it.

    Attributes
    ----------
    paths : list of Path
    model : str
    separation_folder : Path or None
        With mixes, of the model that separates them.
    files : dict of bytes
        What such a run leaves.
    seconds : float
        How long it takes, from the moment that kills may begin: with mixes, when the first stems are written, because
        until then it only loads libraries.
    """

    paths: list[Path]
    model: str
    separation_folder: Path | None
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    def start(self, folder: Path, paths: list[Path] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(paths or self.paths, self.model, folder, self.separation_folder),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_it_works(self, child: subprocess.Popen[str], folder: Path) -> None:
        while self.separation_folder and child.poll() is None and not list(folder.glob("demix/*/*/*")):
            time.sleep(0.005)


def run_undisturbed(folder: Path, run: Undisturbed, files_per_track: int) -> Undisturbed:
    child = run.start(folder)
    run.wait_until_it_works(child, folder)
    start = time.monotonic()
    assert child.wait() == 0, child.stderr.read() if child.stderr else ""
    run.seconds = time.monotonic() - start
    run.files = contents(folder)
    assert len(run.files) == len(run.paths) * files_per_track, sorted(run.files)
    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, small_model: str, stems: np.ndarray) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    run = Undisturbed(write_library(folder / "library", stems, 6), small_model, None)
    # JSON, activations, embeddings, two exports; a spectrogram and what it was made from.
    return run_undisturbed(folder / "out", run, 7)


@pytest.fixture(scope="module")
def undisturbed_mixes(
    tmp_path_factory: pytest.TempPathFactory, small_model: str, stems: np.ndarray, _separation_folder: Path
) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed_mixes")
    run = Undisturbed(write_mixes(folder / "library", stems, 3), small_model, _separation_folder)
    # As above, and four stems and what they were made from.
    return run_undisturbed(folder / "out", run, 12)


LONG = [pytest.mark.full, pytest.mark.timeout(3000)]


@pytest.mark.parametrize(
    ("library", "number", "what"),
    [
        pytest.param(library, number, what, marks=marks, id=f"{library}-{number}")
        for library, numbers, what in (
            ("undisturbed", (2, 50), "kill -9 at a random moment, then resume"),
            ("undisturbed_mixes", (1, 50), "kill -9 from the first kept stem on, then resume"),
        )
        for number, marks in zip(numbers, ([], LONG), strict=True)
    ],
)
def test_killed_and_resumed(
    library: str,
    number: int,
    what: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    record_parity: ParityRecorder,
) -> None:
    undisturbed: Undisturbed = request.getfixturevalue(library)
    random = np.random.default_rng(number)
    wrong: list[str] = []
    done, killed, remaining = [], 0, 0
    trials = itertools.takewhile(lambda trial: killed < number and trial < 4 * number, itertools.count())
    for trial in trials:
        folder = tmp_path / f"{trial}"
        child = undisturbed.start(folder)
        undisturbed.wait_until_it_works(child, folder)
        try:
            child.wait(random.uniform(0, 0.9 * undisturbed.seconds))
        except subprocess.TimeoutExpired:
            child.kill()
            killed += child.wait() == -signal.SIGKILL
        found = contents(folder)
        done.append(sum(name.endswith(".json") and name.startswith("struct") for name in found))
        wrong += [f"trial {trial}, killed: {name}" for name in differing(found, undisturbed.files)]
        child = undisturbed.start(folder)
        _, errors = child.communicate()
        found = contents(folder)
        wrong += [f"trial {trial}, resumed: status {child.returncode}, {errors}"] * (child.returncode != 0)
        wrong += [f"trial {trial}, resumed: {name}" for name in differing(found, undisturbed.files)]
        wrong += [
            f"trial {trial}, resumed: {name} is missing" for name in undisturbed.files.keys() - found.keys()
        ]
        remaining += len(leftovers(folder))
        read_timings(folder / "timings.jsonl")
    check_trials(
        record_parity,
        "long and many",
        what,
        "files identical to an undisturbed run's",
        tried=len(done),
        wrong=wrong,
        backend="fused",
        killed=killed,
        tracks_done_when_killed=f"{min(done)} to {max(done)}",
        temporary_files_left=remaining,
    )
    assert killed == number, "too few runs lived long enough to be killed"
    assert remaining == 0


@pytest.mark.parametrize(
    ("library", "number"),
    [
        ("undisturbed", 3),
        ("undisturbed_mixes", 2),
        *(pytest.param(name, 8, marks=pytest.mark.full) for name in ("undisturbed", "undisturbed_mixes")),
    ],
)
def test_several_processes_share_every_folder(
    library: str, number: int, request: pytest.FixtureRequest, tmp_path: Path, record_parity: ParityRecorder
) -> None:
    undisturbed: Undisturbed = request.getfixturevalue(library)
    what = "processes that share cache, results and timings" + ", of mixes" * (library == "undisturbed_mixes")
    children = [
        undisturbed.start(tmp_path, undisturbed.paths[index:] + undisturbed.paths[:index])
        for index in range(number)
    ]
    wrong = []
    for index, child in enumerate(children):
        _, errors = child.communicate()
        wrong += [f"process {index}: status {child.returncode}, {errors}"] * (child.returncode != 0)
    found = contents(tmp_path)
    wrong += differing(found, undisturbed.files)
    wrong += [f"{name} is missing" for name in undisturbed.files.keys() - found.keys()]
    wrong += [f"{path} was left" for path in leftovers(tmp_path)]
    runs = {line.run_id for line in read_timings(tmp_path / "timings.jsonl")}
    check_trials(
        record_parity,
        "long and many",
        what,
        "files identical to an undisturbed run's",
        tried=number,
        wrong=wrong,
        backend="fused",
    )
    assert len(runs) == number


def test_processes_with_different_tracks_of_one_name(
    undisturbed: Undisturbed,
    tmp_path: Path,
    small_model: str,
    stems: np.ndarray,
    record_parity: ParityRecorder,
) -> None:
    """Each of several processes has a track called the same; none may lose its result to another's."""
    paths = [
        write_library(tmp_path / f"library{index}", np.roll(stems, index, axis=0), 1)[0] for index in range(4)
    ]
    children = [undisturbed.start(tmp_path / "out", [path]) for path in paths]
    wrong = [child.communicate()[1] for child in children if child.wait() != 0]
    results = [json.loads(path.read_text())["path"] for path in (tmp_path / "out" / "struct").glob("*.json")]
    wrong += [f"{path}: no result" for path in map(str, paths) if path not in results]
    check_trials(
        record_parity,
        "long and many",
        "processes with different tracks of one name",
        "a result for each",
        tried=len(paths),
        wrong=wrong,
        backend="fused",
    )
