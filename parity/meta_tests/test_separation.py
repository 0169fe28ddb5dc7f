"""The checks of the separation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("demucs_infer", reason="demucs-infer is not installed (extra 'demucs')")

from allin1_core.separation import overlap_add  # noqa: E402
from parity import test_separation  # noqa: E402
from parity.inputs.separation import signal_to_noise  # noqa: E402
from parity.meta_tests.faults import FAULTS  # noqa: E402
from parity.reports.records import ParityRecorder  # noqa: E402

CASE = "shifted, three segments"


def _fails(match: str = "a difference of") -> None:
    recorder = ParityRecorder()
    with pytest.raises(AssertionError, match=match):
        test_separation.test_mixes(CASE, "cpu", recorder)
    assert [record.passed for record in recorder.records] == [False]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_stems_fails(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = np.zeros((4, 2, 5), np.float32)
    monkeypatch.setattr(test_separation, "theirs", lambda *_: right)
    monkeypatch.setattr(test_separation, "ours", lambda *_, **__: FAULTS[fault](right))
    _fails()


def _wrong_at_the_border(length: int, device: Any) -> Any:
    weights = right_triangle(length, device)
    weights[0] *= 2
    return weights


right_triangle, right_starts = overlap_add.triangle, overlap_add._starts

MISTAKES: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "a weight at the border of a segment": (overlap_add, "triangle", _wrong_at_the_border),
    "weights all equal": (overlap_add, "triangle", lambda length, device: torch.ones(length, device=device)),
    "no shift": (overlap_add.random.Random, "randint", lambda *_: 0),
    "a shift of one sample more": (
        overlap_add.random.Random,
        "randint",
        lambda *_: test_separation.SHIFT + 1,
    ),
    "a segment left out": (overlap_add, "_starts", lambda *given: list(right_starts(*given))[:-1]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_the_driver_fails(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = test_separation.theirs(
        test_separation.small(),
        test_separation.separation.mixes(test_separation.music(), test_separation.SHIFT)[CASE],
        "cpu",
        0.25,
    )
    monkeypatch.setattr(test_separation, "theirs", lambda *_: expected)
    test_separation.test_mixes(CASE, "cpu", ParityRecorder())
    monkeypatch.setattr(*MISTAKES[mistake])
    _fails()


def test_noise_lowers_the_ratio_and_nan_leaves_none() -> None:
    signal = np.ones((4, 2, 100), np.float32)
    noisy = signal.copy()
    noisy[1] += 0.1
    noisy[2, 0, 0] = np.nan
    noisy[3] += 0.01
    assert signal_to_noise(noisy, signal) == pytest.approx([math.inf, 20, -math.inf, 40], abs=1e-3)
