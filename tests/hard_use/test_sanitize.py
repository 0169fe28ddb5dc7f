"""`make sanitize`, as a part of the long checks, and what it says about itself."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hard_use import sanitize
from hard_use.reporting import check_trials
from parity.reports.records import ParityRecorder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the target needs gcc and LD_PRELOAD")


def test_every_extension_is_sanitized() -> None:
    names = {row["name"] for row in sanitize.extensions()}
    assert names == {
        "allin1_core.simd._processor",
        "allin1_core.dbn._viterbi",
        "allin1_core.network._fused",
        "allin1_core.spectrogram._transform",
    }


def test_nothing_is_left_out_of_the_kernels_that_users_run() -> None:
    """No flag may take an instruction set away: the kernels are sanitized as they are shipped, but for the speed."""
    assert not [flag for flag in sanitize.FLAGS if flag.startswith("-D")]


def test_an_instruction_set_that_did_not_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLIN1_SANITIZED_KERNELS", os.devnull)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    plugin = importlib.import_module("hard_use.sanitized_kernels")
    monkeypatch.delitem(sys.modules, "hard_use.sanitized_kernels")
    expected = plugin.expected_sets()
    assert set(expected) == {"decoder", "decoder online", "spectrogram", "network", "network's attention"}
    assert all(expected.values())
    assert plugin.left_out(expected, expected) == []
    best = expected["spectrogram"][0]
    called = {**expected, "spectrogram": set(expected["spectrogram"]) - {best}}
    assert plugin.left_out(expected, called) == [f"spectrogram did not run on {best}"]
    del called["decoder"]
    assert len(plugin.left_out(expected, called)) == 2


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_kernels_under_both_sanitizers(record_parity: ParityRecorder) -> None:
    """Begins with kernels that break the rules, each of which must be reported."""
    begun = time.monotonic()
    child = subprocess.run(
        [sys.executable, "-m", "hard_use.sanitize"],
        cwd=Path(__file__).resolve().parents[1],
        env={name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        capture_output=True,
        text=True,
        check=False,
    )
    passed = re.search(r"(\d+) passed", child.stdout)
    ran = re.search(r"ran under both sanitizers:\n((?:  .*\n)+)", child.stdout)
    wrong = [child.stdout[-3000:] + child.stderr[-3000:]] * (
        child.returncode != 0 or passed is None or ran is None
    )
    check_trials(
        record_parity,
        "instruments",
        "kernels under AddressSanitizer and UndefinedBehaviorSanitizer (tests)",
        "no report; each wrong kernel reported",
        tried=int(passed[1]) if passed else 0,
        wrong=wrong,
        wrong_kernels_reported=len(sanitize.WRONG_KERNELS) - 1,
        seconds=round(time.monotonic() - begun),
        instruction_sets="; ".join(line.strip() for line in ran[1].splitlines()) if ran else "",
    )
