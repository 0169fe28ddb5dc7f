"""The check of online beats: it has to see a changed beat, tempo, state or probability."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from allin1_core.simd.instruction_sets import instruction_set
from parity import test_online
from parity.meta_tests.faults import FAULTS
from parity.oracles import madmom_dbn
from parity.reports.records import ParityRecorder


def _next_float(beats: np.ndarray) -> np.ndarray:
    return np.r_[beats[:3], np.nextafter(beats[3], 0), beats[4:]]


@pytest.mark.parametrize("fault", ["none", "the next float", *FAULTS])
def test_a_fault_of_the_beats_fails(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change: Any = {"none": np.copy, "the next float": _next_float, **FAULTS}[fault]
    call = madmom_dbn._OnlineProcessor.__call__
    monkeypatch.setattr(
        madmom_dbn._OnlineProcessor, "__call__", lambda *args, **kw: change(call(*args, **kw))
    )
    record = ParityRecorder()
    if fault == "none":
        test_online.test_online("pulse", "cython", record)
    else:
        with pytest.raises(AssertionError, match=r"pulse: .*beats: (found|at) "):
            test_online.test_online("pulse", "cython", record)
    assert [entry.passed for entry in record.records] == [fault == "none"]


@pytest.mark.parametrize("name", ["tempo", "last_beat"])
def test_another_tempo_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(madmom_dbn._OnlineProcessor, name, 120.0)
    with pytest.raises(AssertionError, match=f"{name}: at "):
        test_online.test_online("pulse", "cython", ParityRecorder())


def _another_state(states: np.ndarray, probabilities: np.ndarray) -> None:
    states[-1] += 1


def _next_probability(states: np.ndarray, probabilities: np.ndarray) -> None:
    probabilities[1234] = np.nextafter(probabilities[1234], 0)


@pytest.mark.parametrize("fault", [_another_state, _next_probability])
def test_a_fault_of_the_forward_algorithm_fails(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Faulty(test_online.ForwardAlgorithm):
        def advance(self, densities: np.ndarray) -> np.ndarray:
            self.found = super().advance(densities), super().probabilities()
            fault(*self.found)
            return self.found[0]

        def probabilities(self) -> np.ndarray:
            return self.found[1]

    activations = test_online._CASES["pulse"][0]()
    test_online.check_probabilities(activations, {}, instruction_set())
    monkeypatch.setattr(test_online, "ForwardAlgorithm", Faulty)
    with pytest.raises(AssertionError, match=f"{instruction_set()}: at "):
        test_online.check_probabilities(activations, {}, instruction_set())
