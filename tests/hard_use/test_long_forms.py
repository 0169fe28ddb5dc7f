"""The results of the long forms: kept in a section of their own, which a short run leaves alone."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from hard_use.reporting import check_trials
from parity.reports.records import Outcome, ParityRecorder
from parity.reports.report import write_parity_report
from parity.reports.sections.accuracy_hard_use import LONG_FORMS


def session(kills: int, wrong: tuple[str, ...] = ()) -> ParityRecorder:
    recorder = ParityRecorder()
    kill = "kill -9 at a random moment, then resume"
    check_trials(recorder, "long and many", kill, "identical", tried=5, killed=5)
    if kills > 5:
        with contextlib.suppress(AssertionError):
            check_trials(recorder, "long and many", kill, "identical", tried=kills, killed=kills, wrong=wrong)
    check_trials(recorder, "properties", "spectrogram: polarity", "exactly", tried=100, backend="fused")
    check_trials(recorder, "properties", "spectrogram: delay", "exactly", tried=120, backend="fused")
    check_trials(recorder, "hostile files", "weights", "an error", tried=2_000)
    return recorder


def test_a_later_short_run_leaves_the_long_forms_as_they_were(tmp_path: Path) -> None:
    write_parity_report(session(50).records, tmp_path, Outcome(7, (), ("no weights",)), full=True)
    long_forms = (tmp_path / "accuracy.md").read_text()
    assert "## Hard use, long forms" in long_forms
    assert "**Over all: none of 2,275 inputs failed.**" in long_forms
    assert "`python -m pytest tests parity --full --parity-report reports`" in long_forms
    assert "7 tests passed, 0 failed, 1 skipped.\n- skipped 1: no weights" in long_forms
    # The long form alone stands in the summary; the short one of the same session below.
    assert "| kill -9 at a random moment, then resume | 50 | 0 | killed 50 |" in long_forms
    assert "| examples of laws | 220 | 0 |" in long_forms
    assert "| hostile files (fuzz corpus) | 2,000 | 0 |" in long_forms
    assert "**Not run in this session:** 60 minutes, four stems, eight folds; short tracks" in long_forms

    write_parity_report(session(5).records, tmp_path, Outcome(3, (), ()))
    assert (tmp_path / "accuracy.md").read_text() == long_forms
    parity = (tmp_path / "parity.md").read_text()
    assert "killed 5 |" in parity
    assert "[accuracy.md](accuracy.md#hard-use-long-forms)" in parity


def test_a_long_form_that_fails_is_named(tmp_path: Path) -> None:
    write_parity_report(session(50, ("trial 3: a.json is missing",)).records, tmp_path, full=True)
    text = (tmp_path / "accuracy.md").read_text()
    assert "**Over all: 1 of 2,275 inputs failed.**" in text
    assert "| kill -9 at a random moment, then resume | 50 | **1** |" in text
    assert "- kill -9 at a random moment, then resume: trial 3: a.json is missing" in text
    records = json.loads((tmp_path / "accuracy_hard_use.json").read_text())["records"]
    assert len(records) == 5


def test_a_failure_of_many_lines_stays_one_line_of_the_report(tmp_path: Path) -> None:
    output = "\n".join(f"line {number}" for number in range(500))
    write_parity_report(session(50, (output,)).records, tmp_path, full=True)
    for name in ("accuracy.md", "parity.md"):
        (line,) = [line for line in (tmp_path / name).read_text().splitlines() if "line 499" in line]
        assert line.startswith("- kill -9 at a random moment, then resume: ... ")
        assert len(line) < 500


@pytest.mark.parametrize("case", LONG_FORMS)
def test_every_long_form_is_a_case_that_a_test_records(case: str) -> None:
    """Else it would be said not to have been run for ever."""
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    what, _, stage = case.partition(": ")
    assert f'"{case}"' in sources or (f'f"{what}: {{what}}"' in sources and f'"{stage}"' in sources)
