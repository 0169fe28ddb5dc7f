"""The parts of ``make device`` on small inputs on the CPU."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from timing_lines import line

from allin1_core import Analyzer
from allin1_core.batch.side_by_side import number_of_jobs
from bench.device import library, network, parity, spectrogram, timing
from bench.device.timing import times_by_turns
from bench.gate.bars import read_bars
from parity.reports.records import ParityRecord


def figures_with_a_bar(part: str) -> list[tuple[str, str]]:
    """Names of rows of a part, and of their figures that the gate judges."""
    found = [(bar.name, bar.figure) for bar in read_bars().device.rows if bar.part == part]
    assert found
    return found


def test_tests_of_a_file_are_recorded_from_every_process(pytestconfig: pytest.Config) -> None:
    """Processes of pytest-xdist may share the tests of a file."""
    conftest = pytestconfig.pluginmanager.get_plugin(str(pytestconfig.rootpath / "conftest.py"))
    config = SimpleNamespace(stash=pytest.Stash())
    config.stash[conftest._BY_FILE] = {}
    for case in "ab":
        record = ParityRecord("structure", case, "y", "numpy", "cpu", "exact", "identical", True)
        output = {"parity": json.dumps({"test_x.py": [vars(record)]})}
        conftest.pytest_testnodedown(SimpleNamespace(config=config, workeroutput=output))
    (records,) = config.stash[conftest._BY_FILE].values()
    assert [record.case for record in records] == ["a", "b"]


def test_tests_that_there_is_no_time_for_are_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "_FILES", ("structure",))
    monkeypatch.setattr(parity, "module_exists", lambda _: False)  # no pytest-xdist
    (tests,) = parity.rows(device="cpu", select="test_made_up_probabilities and numpy", seconds=0)
    assert (tests["passed"], tests["skipped"], tests["not reached"]) == (0, 0, 8)


def test_differences_of_an_implementation_are_its_worst() -> None:
    def record(difference: float, passed: bool) -> ParityRecord:
        measures = {"max_difference": difference}
        return ParityRecord("network", "x", "y", "torch", "cuda", "fast", "<= 2e-2", passed, measures)

    (row,) = parity.by_implementation([record(1e-3, True), record(2e-3, True)])
    assert row == {
        "name": "network, torch, fast, cuda",
        "comparisons": 2,
        "difference": 2e-3,
        "held to": "<= 2e-2",
        "agrees": True,
    }
    (row,) = parity.by_implementation([record(1e-3, True), record(math.nan, False), record(0.0, True)])
    assert math.isnan(float(str(row["difference"])))
    assert row["agrees"] is False


def test_tests_that_failed_are_rows_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest ends with 1 where some failed, and with others where it could not run them."""
    for status in (1, 2):

        def run(command: list[str], status: int = status, **_: object) -> SimpleNamespace:
            outcome = {"passed": 3, "failed": ["a", "b"], "skipped": ["no reason"]}
            Path(command[-1], "parity.json").write_text(json.dumps({"outcome": outcome, "records": []}))
            return SimpleNamespace(returncode=status)

        monkeypatch.setattr(parity.subprocess, "run", run)
        if status == 1:
            (tests,) = parity.rows(device="cuda:1")
            assert [tests[name] for name in ("passed", "failed", "skipped", "not reached")] == [3, 2, 1, 0]
        else:
            with pytest.raises(RuntimeError, match="pytest ended with 2"):
                parity.rows(device="cuda:1")


def test_cases_are_timed_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    times = times_by_turns({name: lambda name=name: calls.append(name) or name for name in "ab"}, "cpu", 3, 1)
    assert calls == list("ab") * 5
    assert times["a"].output == "a"
    assert len(times["a"].seconds) == 3
    times["a"].seconds, times["b"].seconds = [2.0, 4.0, 9.0], [1.0, 1.0, 1.0]
    row = times["b"].as_row("b", times["a"])
    assert (row["seconds"], row["ratio"], row["rounds"]) == (1.0, 4.0, 3)
    monkeypatch.setattr(timing, "_ENOUGH_SECONDS", 0.0)  # as if each took long
    assert len(times_by_turns({"a": lambda: sum(range(99))}, "cpu", 7)["a"].seconds) == 3


def test_rows_of_the_spectrogram() -> None:
    rows = {row["name"]: row for row in spectrogram.rows(device="cpu", seconds=1.5, rounds=1)}
    for precision in ("exact", "fast"):
        for name in (f"torch, {precision}", f"plain torch, {precision}"):
            assert 0 <= rows[name]["difference"] <= rows[name]["bound"]
        assert rows[f"torch, {precision}"]["ratio"] > 0
    assert "ratio" not in rows["plain torch, exact"]
    assert rows["torch, exact, from memory that is not pinned"]["ratio"] > 0
    assert rows["torch, exact, from memory that is not pinned"]["difference"] <= 5e-7
    assert "ratio" not in rows["torch, exact, from float32"]
    assert "the copy of the samples alone, not pinned" in rows
    assert all(figure in rows[name] for name, figure in figures_with_a_bar("spectrogram"))


def test_rows_of_the_network() -> None:
    rows = {
        str(row["name"]): row
        for row in network.rows(device="cpu", seconds=0.5, rounds=1, batches=(2,), hour=1.0, num_folds=2)
    }
    assert next(iter(rows)) == "2 folds, torch, exact"
    assert 0 < rows["2 folds, fused, exact"]["difference"] <= rows["2 folds, fused, exact"]["bound"] == 1e-4
    assert rows["2 folds, fused, exact"]["ratio"] > 0
    batch = rows["2 folds, batch of 2, fused, exact"]
    assert batch["seconds_a_track"] == batch["seconds"] / 2
    assert {"1 fold, fused, exact", "2 folds, 1 s, fused, exact"} <= set(rows)
    assert not [name for name in rows if "torch" in name and not name.startswith("2 folds, torch, ")]
    assert all(np.isfinite(row["seconds"]) for row in rows.values())
    assert not any("must_seconds" in row for row in rows.values())  # of a GPU
    for name, figure in figures_with_a_bar("network"):
        assert figure in rows[name.replace("8 folds", "2 folds").replace("triton", "fused")]


def test_rows_of_a_list_of_songs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that has no FFmpeg."""
    monkeypatch.setitem(sys.modules, "av", None)
    rows = list(library.rows(device="cpu", seconds=1.0, songs=3, alone=1, more=4))
    lists = {str(row["name"]): row for row in rows[1:]}
    together = number_of_jobs(Analyzer(device="cpu").session, 3)
    how = "one after another" if together == 1 else f"{together} at the same time"
    assert {
        "1 songs, FLAC, one after another",
        f"4 songs, FLAC, {how}",
        f"3 songs, WAV, {how}",
        f"4 songs, WAV, {how}",
    } <= set(lists)
    own = float(str(rows[0]["seconds"]))
    for name, row in lists.items():
        assert row["agrees"] is True
        assert row["share"] == own / row["seconds"]
        assert 0 < row["busy"] <= 1
        assert ("must_seconds" in row) == (name in (f"3 songs, FLAC, {how}", f"3 songs, WAV, {how}"))


def test_the_part_in_which_the_device_works_counts_what_overlaps_once() -> None:
    lines = [
        line(stage, start=start, end=end, duration=end - start)
        for stage, start, end in (
            *(("audio_read", 0.0, 2.0), ("spectrogram", 2.0, 4.0), ("nn", 3.0, 6.0)),
            *(("spectrogram", 3.5, 5.0), ("nn", 8.0, 9.0), ("save", 9.0, 10.0)),
        )
    ]
    assert library._of_stages(lines) == {"busy": 0.5, "seconds_spectrogram": 1.75, "seconds_nn": 2.0}


def test_the_kernels_of_triton_are_compiled_while_the_others_are() -> None:
    """Without those: it comes to the device, which is not here."""
    pytest.importorskip("torch")
    script = """
import sys
class Uncompiled:
    def find_spec(self, name, *_):
        if name.rpartition(".")[2] in ("_fused", "_processor", "_transform", "_viterbi"):
            raise AssertionError(f"{name} is imported")
sys.meta_path.insert(0, Uncompiled())
from bench.device.kernels import compile_kernels
compile_kernels("exact")
"""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert "BackendError" in done.stderr.splitlines()[-1], done.stderr
    assert "finds no such device" in done.stderr
