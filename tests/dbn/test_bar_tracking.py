"""Bars on given beats: downbeat activations at beats, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from allin1_core.dbn import DBNBarTrackingProcessor, activations_at_beats


def _rows(*probabilities: float) -> np.ndarray:
    return np.stack([np.arange(len(probabilities)) / 2, probabilities], axis=1)


def test_the_last_beat_follows_from_the_one_before() -> None:
    found = DBNBarTrackingProcessor([3])(_rows(0.001, 0.001, 0.9, 0.001, 0.9))
    assert found.tolist() == [[0, 2], [0.5, 3], [1, 1], [1.5, 2], [2, 3]]


def test_no_beats() -> None:
    found = DBNBarTrackingProcessor()(np.empty((0, 2)))
    assert found.shape == (0, 2)
    assert found.dtype == np.float64
    assert activations_at_beats([], np.zeros(0)).shape == (0, 2)


def test_activations_at_beats() -> None:
    """The highest within 7 frames at 100 a second, and nearer to this beat than to another; never 0 or 1."""
    downbeat = np.zeros(100, np.float32)
    downbeat[[13, 38, 55, 59, 70]] = 0.5, 0.3, 0.25, 1, 0.75
    rows = activations_at_beats([0.2, 0.3, 0.54, 0.6, 0.78], downbeat)
    assert rows[:, 0].tolist() == [0.2, 0.3, 0.54, 0.6, 0.78]
    assert rows[:, 1].tolist() == [0.5, 1e-6, 0.25, 1 - 1e-6, 1e-6]


def test_activations_at_beats_that_share_frames() -> None:
    downbeat = np.linspace(0.1, 0.5, 5)
    rows = activations_at_beats([0, 0.004, 0.01, 0.02, 0.04], downbeat)
    assert rows[:, 1].tolist() == [0.1, 0.1, 0.2, 0.4, 0.5]


@pytest.mark.parametrize(
    ("beats", "downbeat", "fps", "message"),
    [
        ([0.1, 0.1], np.zeros(50), 100, "beats: 0.1 s is followed by 0.1 s; expected ascending times"),
        ([0.1, np.nan], np.zeros(50), 100, "beats: nan at index 1; expected finite times"),
        ([[0.1]], np.zeros(50), 100, r"beats: float64 of shape \(1, 1\); expected seconds"),
        (["a"], np.zeros(50), 100, "beats: .* expected seconds"),
        ([0.1, 0.5], np.zeros(50), 100, r"beats: 0.1 to 0.5 s; .* 50 frames .* 0 to 0.49 s at 100"),
        ([-0.1, 0.2], np.zeros(50), 100, "beats: -0.1 to 0.2 s; expected times within"),
        ([0.1], np.zeros((50, 2)), 100, r"activations: shape \(50, 2\); expected \(num_frames,\)"),
        ([0.1], np.full(50, np.nan), 100, "activations: nan in frame 0"),
        ([0.1], np.zeros(50), np.nan, "fps: nan; expected a positive number"),
    ],
)
def test_what_has_no_activation_at_beats(beats: Any, downbeat: np.ndarray, fps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        activations_at_beats(beats, downbeat, fps)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_rows(0.5), "data: one beat; expected at least two"),
        (np.zeros(4), r"data: float64 of shape \(4,\); expected rows of time and downbeat probability"),
        (np.zeros((4, 3)), r"data: float64 of shape \(4, 3\)"),
        (np.zeros((4, 2)), "beats: 0 s is followed by 0 s"),
        (_rows(0.5, np.nan, 0.5), "activations: nan in frame 1"),
        (_rows(0.5, 1.5, 0.5), "activations: 1.5 in frame 1"),
        (_rows(1, 1, 0), "data: the downbeat probabilities rule out every .* bars of 3, 4 beats"),
    ],
)
def test_wrong_data(data: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DBNBarTrackingProcessor()(data)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"beats_per_bar": []}, "beats_per_bar: empty"),
        ({"beats_per_bar": [3, 0]}, "beats_per_bar: .*0.*; expected a whole number"),
        ({"beats_per_bar": [4, 8189]}, "beats_per_bar: 8193 beats in all bars; expected at most 8192"),
        ({"observation_weight": 1}, "observation_weight: 1; expected a number above 1"),
        ({"observation_weight": np.nan}, "observation_weight: nan; expected"),
        ({"meter_change_prob": 1.1}, "meter_change_prob: 1.1; expected a probability"),
        ({"meter_change_prob": np.nan}, "meter_change_prob: nan; expected a probability"),
        ({"meter_change_prob": [[1]]}, "meter_change_prob: .*; expected a probability"),
    ],
)
def test_wrong_parameter(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DBNBarTrackingProcessor(**parameters)
