"""What hard use tells the report when a check fails."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from hard_use.reporting import recorded_trials
from parity.reports.records import ParityRecorder
from parity.reports.sections import hard_use


def test_a_law_that_fails_keeps_its_row() -> None:
    recorder = ParityRecorder()

    def check(value: int) -> None:
        assert value < 5, f"{value} is not small"

    with (
        pytest.raises(AssertionError),
        recorded_trials(recorder, "properties", "small", "< 5", backend="numpy") as trials,
    ):
        trials.draw(20, check, value=st.integers(5, 9))
    (record,) = recorder.records
    assert not record.passed
    assert record.measures["tried"] >= 1
    assert record.measures["failed"] == 1
    assert "is not small" in record.measures["first_failure"]
    assert hard_use.worst(recorder.records).startswith("1 of ")


@pytest.mark.parametrize("error", [MemoryError(), pytest.fail.Exception("no")])
def test_a_check_that_breaks_down_keeps_its_row(error: BaseException) -> None:
    recorder = ParityRecorder()
    with pytest.raises(type(error)), recorded_trials(recorder, "properties", "any", "exactly"):
        raise error
    (record,) = recorder.records
    assert (record.measures["tried"], record.measures["failed"]) == (1, 1)
    assert record.measures["first_failure"] in ("MemoryError", "no")


def test_a_law_that_holds_says_how_often_and_how_well() -> None:
    recorder = ParityRecorder()
    with recorded_trials(recorder, "properties", "any", "<= 1") as trials:
        trials.draw(7, lambda value: None, value=st.floats(0, 1))
        for difference in (0.25, 0.5, 0.125):
            assert trials.differ_by(difference) == difference
    (record,) = recorder.records
    assert record.passed
    assert record.measures["tried"] == 7
    assert record.measures["max_difference"] == 0.5


@pytest.mark.parametrize("difference", [float("nan"), float("inf"), float("-inf")])
def test_a_difference_that_is_not_finite_is_kept_as_infinite(difference: float) -> None:
    recorder = ParityRecorder()
    with recorded_trials(recorder, "properties", "any", "<= 1") as trials:
        assert trials.differ_by(0.5) <= 1
        assert not trials.differ_by(difference) <= 1
    assert recorder.records[0].measures["max_difference"] == float("inf")
