"""The checks of changing bars, confidences and online downbeats: each has to see one value that is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from allin1_core.dbn import DBNDownBeatTrackingProcessor
from parity import test_meter_changes, test_online_downbeats, test_posterior
from parity.oracles import madmom_dbn, naive_posterior
from parity.reports.records import ParityRecorder


def _another_state(path: np.ndarray, log: float) -> tuple[np.ndarray, float]:
    path = path.copy()
    path[200] += 1
    return path, log


def _another_log(path: np.ndarray, log: float) -> tuple[np.ndarray, float]:
    return path, float(np.nextafter(log, 0))


@pytest.mark.parametrize("fault", [None, _another_state, _another_log])
def test_a_fault_of_the_path_fails(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    viterbi = madmom_dbn._Model.viterbi
    monkeypatch.setattr(
        madmom_dbn._Model, "viterbi", lambda *args: (fault or (lambda *found: found))(*viterbi(*args))
    )
    record = ParityRecorder()
    if fault is None:
        test_meter_changes.test_changing_bars("half bars", "cython", record)
    else:
        with pytest.raises(AssertionError, match="half bars"):
            test_meter_changes.test_changing_bars("half bars", "cython", record)
    assert [entry.passed for entry in record.records] == [fault is None]


@pytest.mark.parametrize("where", [None, 0, 150])
def test_a_probability_that_is_a_little_off_fails(where: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    posterior = naive_posterior.posterior

    def off(*arguments: Any) -> tuple[np.ndarray, float]:
        states, log_probability = posterior(*arguments)
        if where is not None:
            states[where, 0] += 1e-10
        return states, log_probability

    monkeypatch.setattr(naive_posterior, "posterior", off)
    if where is None:
        test_posterior.test_posterior("bars of three")
    else:
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            test_posterior.test_posterior("bars of three")


def test_a_beat_that_is_reported_otherwise_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    call = DBNDownBeatTrackingProcessor.__call__

    def later(*arguments: Any, **keywords: Any) -> np.ndarray:
        beats = call(*arguments, **keywords)
        beats[2:3, 0] += 0.01
        return beats

    test_online_downbeats.test_each_beat_is_that_of_the_best_path_so_far("bars that change", 0.5, monkeypatch)
    monkeypatch.setattr(DBNDownBeatTrackingProcessor, "__call__", later)
    with pytest.raises(AssertionError, match="At index"):
        test_online_downbeats.test_each_beat_is_that_of_the_best_path_so_far(
            "bars that change", 0.5, monkeypatch
        )
