"""`make sanitize`, as a part of the long checks, and what it says about itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hard_use import sanitize
from hard_use.reporting import record_trials
from parity.records import ParityRecorder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the target needs gcc and LD_PRELOAD")


def test_every_extension_is_sanitized() -> None:
    names = {row["name"] for row in sanitize.extensions()}
    assert names == {
        "allin1_core.dbn._viterbi",
        "allin1_core.network._fused",
        "allin1_core.spectrogram._transform",
    }


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_kernels_under_both_sanitizers(record_parity: ParityRecorder) -> None:
    """Begins with kernels that break the rules, each of which must be reported."""
    child = subprocess.run(
        [sys.executable, "-m", "hard_use.sanitize"],
        cwd=Path(__file__).resolve().parents[1],
        env={name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        capture_output=True,
        text=True,
        check=False,
    )
    passed = re.search(r"(\d+) passed", child.stdout)
    wrong = [child.stdout[-3000:] + child.stderr[-3000:]] * (child.returncode != 0 or passed is None)
    record_trials(
        record_parity,
        "instruments",
        "kernels under AddressSanitizer and UndefinedBehaviorSanitizer (tests)",
        "no report; each wrong kernel reported",
        tried=int(passed[1]) if passed else 0,
        wrong=wrong,
        wrong_kernels_reported=len(sanitize.WRONG_KERNELS) - 1,
    )
    assert not wrong, wrong[0]
