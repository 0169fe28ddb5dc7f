"""The check of bars on given beats: it has to see a changed position, time, type or length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from parity import test_bar_tracking
from parity.meta_tests.faults import FAULTS
from parity.oracles import madmom_dbn
from parity.reports.records import ParityRecorder


def _another_position(rows: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    rows[200, 1] = rows[200, 1] % 3 + 1
    return rows


@pytest.mark.parametrize("fault", ["none", "another position", *FAULTS])
def test_a_fault_fails(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change: Any = {"none": np.copy, "another position": _another_position, **FAULTS}[fault]
    oracle = madmom_dbn.track_bars

    def changed(rows: np.ndarray, **parameters: Any) -> np.ndarray:
        return change(np.ascontiguousarray(oracle(rows, **parameters)))

    monkeypatch.setattr(madmom_dbn, "track_bars", changed)
    record = ParityRecorder()
    if fault == "none":
        test_bar_tracking.test_bars("random", "cython", record)
    else:
        with pytest.raises(AssertionError, match=r"random: .*beats: (found|at) "):
            test_bar_tracking.test_bars("random", "cython", record)
    assert [entry.passed for entry in record.records] == [fault == "none"]
