"""The bars of the decoder's other forms trip, and what is timed for them returns what it is said to."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from bench.gate import judge
from bench.gate.bars import Row, read_bars
from bench.gate.cases import madmom_is_installed
from bench.gate.forms import FORMS, OURS_ALONE, form_case
from bench.gate.speed import PromiseCheck, Timing, Verdict
from bench.report.records import BenchRecord

ROWS = {row.variant: row for row in read_bars().rows if row.variant in FORMS}
# As bench_decoder_forms.py calls them.
VARIANTS = {
    "online, all frames together": "online, all frames together, 60 s",
    "online, one frame a call": "online, one frame a call, 10 s",
    "bars on": "bars on 433 given beats",
    "hints": "hints: 17 anchors",
    "bars that change": "bars that change",
    "confidences": "confidences",
    "online downbeats": "online downbeats, delay 2 s, 10 frames a call, 60 s",
}


def needs_oracle(form: str) -> None:
    if form not in OURS_ALONE and not madmom_is_installed():
        pytest.skip("the oracle madmom has no wheel for this Python")


def test_every_form_has_a_bar_for_both_instruction_sets_of_x86() -> None:
    assert ROWS.keys() == FORMS.keys() == VARIANTS.keys()
    assert all(row.min_ratio.keys() == {"AVX-512", "AVX2"} for row in ROWS.values())


@pytest.mark.parametrize("running", ["AVX-512", "AVX2"])
@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_misses_its_bar_fails(form: str, running: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_oracle(form)
    monkeypatch.setattr("allin1_core.dbn._viterbi.instruction_set", lambda: running)
    monkeypatch.setattr("bench.gate.speed.usable_cores", lambda: 2)
    row = ROWS[form]
    for factor, passed in ((1.01, True), (0.99, False)):
        ratio = row.min_ratio[running] * factor
        timing = Timing(np.full(9, 1 / ratio), np.ones(9))
        monkeypatch.setattr("bench.gate.speed.time_case", lambda *_, timing=timing: timing)
        outcome, *_ = judge.judge_row(row, read_bars(), [])
        verdict = outcome.verdict if isinstance(outcome, PromiseCheck) else outcome
        assert (verdict.row, verdict.passed) == (f"decoder/cython/exact/{form}/1 thread", passed)


@pytest.mark.parametrize("form", [form for form, row in ROWS.items() if row.max_difference is not None])
def test_a_form_returns_what_the_other_side_returns_or_fails(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_oracle(form)
    case, row = form_case("cython", form), ROWS[form]
    found, expected = case.candidate(), case.reference()
    assert len(found) > 10
    assert case.difference(found, expected) == 0
    for output, passed in ((found, True), (found[:-1], False)):
        difference = case.difference(output, expected)
        timing = Timing(np.full(9, 1e-6), np.ones(9), difference)
        monkeypatch.setattr("bench.gate.speed.time_case", lambda *_, timing=timing: timing)
        *_, verdict = judge.judge_row(row, read_bars(), [])
        assert verdict == Verdict(
            f"decoder/cython/exact/{form}",
            "difference from the oracle",
            "bit-identical" if passed else "inf",
            "bit-identical",
            passed,
        )


def test_what_madmom_has_not_is_judged_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "madmom_is_installed", lambda: False)
    assert {form for form, row in ROWS.items() if judge.why_not_here(row) is None} == OURS_ALONE.keys()


@pytest.mark.parametrize("form", FORMS)
def test_a_bench_row_of_the_form_alone_is_its_proof(form: str) -> None:
    records = [
        BenchRecord(
            stage="decoder",
            backend="cython",
            variant=variant,
            reference="madmom",
            track="song",
            audio_seconds=60.0,
            threads=1,
            seconds=[1.0] * 9,
            reference_seconds=[99.0 if name == form else 1e-3] * 9,
            agreement="bit-identical",
            agrees=True,
        )
        for name, variant in VARIANTS.items()
    ]
    proven = judge.proof(ROWS[form], 50.0, "madmom", records)
    assert proven is not None
    assert proven.variant == VARIANTS[form]
    assert judge.proof(ROWS[form], 100.0, "madmom", records) is None
    assert judge.proof(ROWS[form], math.nan, "madmom", records) is None


def test_a_form_that_there_is_not_is_refused() -> None:
    row = dataclasses.replace(ROWS["confidences"], variant="confidence")
    with pytest.raises(
        ValueError, match="decoder/cython/exact/confidence: the gate has no measurement of this"
    ):
        judge.build_case(row)
    assert (
        judge.build_case(Row("decoder", "cython", threads=1, variant="confidences")).variant == "confidences"
    )
