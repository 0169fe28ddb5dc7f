"""Every row of the gate is held to all that its bar says, on what it is a bar for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from bench.gate import judge
from bench.gate.bars import Row, read_bars
from bench.gate.cases import Case
from bench.gate.forms import FORMS
from bench.gate.speed import Timing, Verdict
from bench.report.records import BenchRecord


def test_few_rounds_or_a_ratio_to_another_reference_are_no_proof_of_speed() -> None:
    row = Row("spectrogram", "numpy", "exact")
    timed = BenchRecord(
        stage="spectrogram", backend="numpy", reference="madmom", track="song", audio_seconds=195.5,
        threads=judge.usable_cores(), seconds=[1.0] * 3, reference_seconds=[3.0] * 3,
    )  # fmt: skip
    assert judge.proof(row, 2.0, "madmom", [timed]) is timed
    for rounds in (1, 2):
        few = dataclasses.replace(timed, seconds=[1.0] * rounds, reference_seconds=[3.0] * rounds)
        assert judge.proof(row, 2.0, "madmom", [few]) is None
        assert judge.proof(row, 2.0, "madmom", [timed, few]) is None
    # A slower one than the bar is for.
    assert judge.proof(row, 2.0, "plain torch on cpu", [timed]) is None


@pytest.mark.parametrize("timed_here", [True, False], ids=["timed", "proven"])
@pytest.mark.parametrize("row", read_bars().rows, ids=lambda row: f"{row.name}, {row.threads}")
def test_a_row_has_a_check_for_each_bar_in_it(
    row: Row, timed_here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verdict(check: str) -> Any:
        return lambda *arguments: Verdict(row.name, check, str(arguments[-1]), "", True)

    case = Case(
        row.stage,
        row.backend,
        row.precision,
        1,
        lambda: np.ones(3),
        lambda: np.zeros(3),
        lambda *_: 0.125,
        "oracle",
    )
    proven = Verdict(case.key, "ratio to oracle", "9x", "at least 8x", True)
    monkeypatch.setattr(judge, "build_case", lambda _: case)
    monkeypatch.setattr(judge, "bar_here", lambda _: 8.0)
    if not timed_here:
        monkeypatch.setattr(judge, "_promise", lambda *_: proven)
    monkeypatch.setattr(
        "bench.gate.speed.time_case", lambda *_: Timing(np.ones(9), np.full(9, 9.0), difference=0.125)
    )
    for check in ("check_what_runs", "check_spectrogram_difference", "check_decoder", "check_difference"):
        monkeypatch.setattr(judge, check, verdict(check))
    monkeypatch.setattr(judge, "peak_mebibytes", lambda _: 1.0)
    found = [one.check for one in judge.judge_row(row, read_bars(), []) if isinstance(one, Verdict)]
    first_of_decoder = row.stage == "decoder" and row.variant not in FORMS and row.threads != 2
    difference = {
        row.stage == "spectrogram": "check_spectrogram_difference",
        first_of_decoder: "check_decoder",
    }.get(True, "check_difference")
    assert found == [
        *["check_what_runs"] * (row.variant not in FORMS),
        *["ratio to oracle"] * bool(row.min_ratio),
        *[difference] * (row.max_difference is not None),
        *["peak memory"] * (row.max_memory_mib is not None),
    ]
    assert len(found) > (row.variant not in FORMS)


@pytest.mark.parametrize("stage", ["spectrogram", "decoder", "network"])
def test_memory_is_that_of_the_rows_call_in_mebibytes(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def peak(function: Any, *arguments: Any, **keywords: Any) -> int:
        calls.append((function.__name__, keywords["backend"], np.shape(arguments[0])))
        return 25 * 2**20

    track = judge.default_track().lasting(3)
    monkeypatch.setattr(judge, "default_track", lambda: track)
    monkeypatch.setattr(judge, "peak_memory_bytes", peak)
    assert judge.peak_mebibytes(Row(stage, "own")) == 25.0
    expected = {
        "spectrogram": ("compute_spectrogram", "own", track.stems.shape),
        "decoder": ("decode", "own", (300, 2)),
        "network": ("run_network", "own", (4, 300, 81)),
    }
    assert calls == [expected[stage]]
