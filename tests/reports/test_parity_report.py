"""The report of parity: what it counts, whom it names, and how long the tests took."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest
from sessions import run_session

from parity.agreement import ULP_BINS
from parity.reports import ulps
from parity.reports.records import Outcome, ParityRecord, read_records
from parity.reports.report import worst_measure, write_parity_report
from parity.reports.sections import spectrogram


def parity_record(**fields: Any) -> ParityRecord:
    given: dict[str, Any] = {
        "stage": "invented",
        "case": "song/drums",
        "oracle": "madmom",
        "backend": "torch",
        "device": "cpu",
        "precision": "exact",
        "bound": "<= 1e-6",
        "passed": True,
        "measures": {"max_difference": 3e-7},
    }
    return ParityRecord(**{**given, **fields})


def test_the_parity_report_counts_and_names_the_worst(tmp_path: Path) -> None:
    records = [
        parity_record(),
        parity_record(case="song/bass", measures={"max_difference": 8e-7}),
        parity_record(backend="mlx", passed=False, measures={"max_difference": 2e-6}),
    ]
    path = write_parity_report(
        records, tmp_path, Outcome(5, ("parity/test_x.py::test_y",), ("no folder", "no folder"))
    )
    text = path.read_text(encoding="utf-8")
    assert "**1 of 3 comparisons are outside their bounds, and 1 tests failed.**" in text
    assert "| invented | torch | cpu | exact | madmom | <= 1e-6 | 2 | 2 | 8e-07 (song/bass) |" in text
    assert "| invented | mlx | cpu | exact | madmom | <= 1e-6 | 1 | **0** |" in text
    assert "5 tests passed, 1 failed, 2 skipped." in text
    assert "- skipped 2: no folder" in text
    assert "| song/drums | mlx | madmom | <= 1e-6 | **no** |" in text
    assert read_records(tmp_path / "parity.json") == records


def test_the_plot_of_spectrograms_has_every_bound_that_its_points_are_held_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had the first one's, and points beyond that looked like failures."""
    figures: list[Any] = []
    monkeypatch.setattr(spectrogram, "save", lambda figure, path, dpi: figures.append(figure))
    measures = {"kind": "signal", "p999_difference": 1e-7}
    held_to = {0.0: 0.0, 4e-7: 1e-6, 6e-6: 1e-5}
    records = [
        parity_record(measures=measures | {"max_difference": difference, "allowed": allowed})
        for difference, allowed in held_to.items()
    ]
    assert spectrogram.draw_differences(records, tmp_path / "plot.png")
    lines = [line for line in figures[0].axes[0].lines if line.get_color() == "C3" and len(line.get_xdata())]
    assert sorted(line.get_xdata()[0] for line in lines) == [1e-6, 1e-5]


def test_a_histogram_alone_takes_the_whole_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(ulps, "save", lambda figure, path: figures.append(figure))
    counts = [3, 2, 1] + [0] * (ULP_BINS - 3)
    for backends in (["a"], ["a", "b", "c"]):
        records = [parity_record(backend=name, measures={"ulp_counts": counts}) for name in backends]
        assert list(ulps.section("network", records, tmp_path))
    assert [len(figure.axes) for figure in figures] == [1, 4]
    assert [figure.get_size_inches()[0] for figure in figures] == [6.5, 13]


@pytest.mark.parametrize(
    ("measures", "words"),
    [
        ({"a_difference": 3.0, "max_difference": 2e-6}, "2e-06 (song/drums)"),
        ({"a_difference": 3.0, "max_ulp": 9}, "3 (song/drums)"),
        ({"max_difference": 0.0}, "no difference"),
        ({"frames": 3}, "-"),
    ],
)
def test_the_worst_is_the_largest_difference(measures: dict[str, float], words: str) -> None:
    assert worst_measure([parity_record(measures=measures)]) == words


@pytest.mark.parametrize(("full", "sections"), [(True, ["accuracy_hard_use.json"]), (False, [])])
def test_hard_use_at_length_stands_in_the_report_of_accuracy(
    full: bool, sections: list[str], tmp_path: Path
) -> None:
    measures = {"area": "properties", "held_to": "", "ran": "", "tried": 9, "failed": 0, "first_failure": ""}
    records = [parity_record(stage="hard use", measures=measures), parity_record()]
    write_parity_report(records, tmp_path, full=full)
    assert [path.name for path in tmp_path.glob("accuracy_*.json")] == sections
    for name in sections:
        assert len(json.loads((tmp_path / name).read_text(encoding="utf-8"))["records"]) == 1


def test_the_parity_report_names_the_slowest_tests_and_what_all_took(tmp_path: Path) -> None:
    outcome = Outcome(
        3, (), (), 754.6, (("tests/test_x.py::test_y[a]", 12.34), ("tests/test_x.py::test_z", 0.26))
    )
    text = write_parity_report([parity_record()], tmp_path, outcome).read_text(encoding="utf-8")
    assert "\n## Time of the tests\n\n12 min 35 s together. The slowest:\n" in text
    assert "| `tests/test_x.py::test_y[a]` | 12.3 |\n| `tests/test_x.py::test_z` | 0.3 |\n" in text


def test_the_time_of_a_test_is_that_of_its_setup_its_call_and_its_teardown() -> None:
    def report(name: str, when: str, duration: float) -> pytest.TestReport:
        return pytest.TestReport(name, ("", 0, ""), {}, "passed", None, when, duration=duration)  # type: ignore[arg-type]

    long = [report(f"test_{number}", "call", number) for number in range(1, 31)]
    stats = {
        "passed": [report("test_a", "call", 100.0), *long],
        "": [report("test_a", "setup", 40.0), report("test_a", "teardown", 2.0)],
        "warnings": [object()],
    }
    terminal = types.SimpleNamespace(stats=stats)
    config: Any = types.SimpleNamespace(pluginmanager=types.SimpleNamespace(get_plugin=lambda _: terminal))
    outcome = Outcome.of(config)
    assert outcome.passed == 31
    assert outcome.seconds == 142 + sum(range(1, 31))
    assert len(outcome.slowest) == 25
    assert outcome.slowest[:2] == (("test_a", 142.0), ("test_30", 30))


def test_all_well_is_said_only_if_no_test_failed(tmp_path: Path) -> None:
    fine = write_parity_report([parity_record()], tmp_path, Outcome(3, (), ())).read_text(encoding="utf-8")
    assert "All 1 comparisons with the oracles are within their bounds." in fine
    failed = write_parity_report([parity_record()], tmp_path, Outcome(3, ("t",), ())).read_text(
        encoding="utf-8"
    )
    assert "All 1 comparisons" not in failed


RECORDING = """
import pytest
from parity.reports.records import ParityRecord

@pytest.mark.parametrize("number", [2, 1])
def test_one(number, record_parity):
    record_parity(ParityRecord("invented", f"{__name__} {number}", "o", "b", "cpu", "exact", "<= 1", number == 1))
    assert number == 1
"""


@pytest.mark.parametrize("options", [[], ["-n", "2", "--dist", "loadfile"]], ids=["one process", "two"])
def test_what_several_processes_recorded_stands_in_one_report_in_the_order_of_files(
    options: list[str], tmp_path: Path
) -> None:
    for name in "cab":
        (tmp_path / f"test_{name}.py").write_text(RECORDING, encoding="utf-8")
    files = [str(tmp_path / f"test_{name}.py") for name in "cab"]
    arguments = [*files, "-p", "conftest", *options, "--rootdir", str(tmp_path), "-o", "addopts="]
    done = run_session([*arguments, "--parity-report", str(tmp_path / "out")], tmp_path)
    assert done.returncode == 1, done.stdout
    records = read_records(tmp_path / "out" / "parity.json")
    assert [(record.case, record.passed) for record in records] == [
        (f"test_{name} {number}", number == 1) for name in "abc" for number in (2, 1)
    ]
    outcome = json.loads((tmp_path / "out" / "parity.json").read_text(encoding="utf-8"))["outcome"]
    assert (outcome["passed"], len(outcome["failed"])) == (3, 3)
