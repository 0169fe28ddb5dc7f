"""How probable beats are: the decoder's forward-backward against that over all states, and what it has to obey."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from allin1_core.dbn import DBNDownBeatTrackingProcessor, HiddenMarkovModel, posterior
from allin1_core.dbn.posterior import BeatPosterior
from parity.inputs.activations import FPS, from_beats
from parity.oracles import naive_posterior

# Rounding of the sums of a few hundred logarithms of up to 1e3, and of the numbers before them.
_TOLERANCE = 1e-11
_SMALL: dict[str, Any] = {"fps": FPS, "min_bpm": 300, "max_bpm": 600, "num_tempi": 5}


def _random(num_frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((num_frames, 2)) ** 4 * 0.49


def _anchored(num_frames: int) -> np.ndarray:
    required = np.zeros(num_frames, dtype=np.int64)
    required[[40, 74, 116]] = 2, -1, 1
    return required


_CASES: dict[str, tuple[Callable[[], np.ndarray], dict[str, Any]]] = {
    "bars of three": (lambda: _random(300), {"beats_per_bar": 3}),
    "bars of one": (lambda: _random(200, 1), {"beats_per_bar": 1}),
    "bars that change": (lambda: _random(300, 2), {"beats_per_bar": [2, 3], "meter_change_prob": 0.2}),
    "float32": (lambda: _random(200, 3).astype(np.float32), {"beats_per_bar": 2}),
    "one frame": (lambda: _random(1, 4), {"beats_per_bar": 2}),
    "shorter than a beat": (lambda: _random(9, 5), {"beats_per_bar": 2}),
    "beats of one frame": (lambda: _random(60, 6), {"beats_per_bar": 2, "min_bpm": 2000, "max_bpm": 6000}),
    "beats that are seen all through": (
        lambda: _random(60, 9),
        {"beats_per_bar": 2, "observation_lambda": 1},
    ),
    "exact zeros": (
        lambda: np.where(_random(200, 7) > 1e-3, 0.4, 0.0) * [1, 0.5],
        {"beats_per_bar": 2},
    ),
    "nearly certain": (
        lambda: np.where(np.arange(200)[:, np.newaxis] % 17 == 3, [1e-9, 1 - 1e-8], 1e-9),
        {"beats_per_bar": 1},
    ),
}


def _starts(model: HiddenMarkovModel, states: np.ndarray) -> np.ndarray:
    """Of beats in frames from as many before the first on as the longest interval has, by the states' probabilities."""
    space = model.transition_model.state_space
    longest = int(space.intervals.max())
    starts = np.zeros((longest + len(states) - 1, model.chains.num_beats))
    for beat, firsts in enumerate(np.reshape(space.first_states, (model.chains.num_beats, -1))):
        starts[longest:, beat] = states[1:, firsts].sum(axis=1)
        for first, interval in zip(firsts, space.intervals, strict=True):
            starts[longest - interval : longest, beat] += states[0, first : first + interval][::-1]
    return starts


def check(case: str, required: Callable[[int], np.ndarray] | None = None) -> None:
    make, parameters = _CASES[case]
    activations = make()
    [model] = DBNDownBeatTrackingProcessor(**{**_SMALL, **parameters}).hmms
    beats = None if required is None else required(len(activations))
    states, log_probability = naive_posterior.posterior(model, activations, beats)
    found = BeatPosterior(model, activations, beats)
    np.testing.assert_allclose(found.starts(), _starts(model, states), rtol=0, atol=_TOLERANCE)
    assert found.log_evidence == pytest.approx(log_probability, abs=1e-10)


@pytest.mark.parametrize("case", _CASES)
def test_posterior(case: str) -> None:
    check(case)


@pytest.mark.parametrize("case", ["bars of three", "bars that change"])
def test_anchors(case: str) -> None:
    check(case, _anchored)


@pytest.mark.parametrize("frames", [1, 7, 64])
def test_parts(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posterior, "_FRAMES_IN_PART", frames)
    check("bars that change")


def test_sums_that_would_round_to_nothing() -> None:
    """Two tempi of which one is 2,000 less in the logarithm, and leads to a chain of its own."""
    matrix = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 0.3], [0.0, 0.0, 0.0]])
    logs = np.array([[-5.0, -np.inf], [-5.0, -np.inf], [-2005.0, -7.0]])
    found = posterior._log_product(matrix, logs)
    np.testing.assert_allclose(
        found[:2], [[-5, -np.inf], [-2005 + np.log(0.3), -7 + np.log(0.3)]], rtol=1e-15
    )
    assert (found[2] == -np.inf).all()


@pytest.mark.parametrize(
    ("parameters", "before", "after"),
    [
        ({"max_bpm": 400}, 7, 7),
        ({"max_bpm": 400, "meter_change_prob": 1e-3}, 7, 7),
        # Of beats that may be 10 frames apart less than half of that; and where the first half of up to 20 is one.
        ({"max_bpm": 600}, 4, 4),
        ({"max_bpm": 400, "observation_lambda": 2}, 9, 7),
    ],
    ids=str,
)
def test_confidences_are_those_of_all_models_together(
    parameters: dict[str, Any], before: int, after: int
) -> None:
    """Of each bar length by how well it explains all; a beat's own frame and those before and after it."""
    weights = [1.0, 3.0]
    decoder = DBNDownBeatTrackingProcessor(
        [2, 3],
        meter_weights=weights,
        threshold=0.0,
        **{**_SMALL, **parameters},
    )
    activations = _random(250, 8)
    times = np.array([0.02, 0.3, 1.0, 1.01, 2.2, 2.49])
    expected = np.zeros((len(times), 2))
    total = 0.0
    for model, weight in zip(decoder.hmms, weights, strict=False):
        states, log_probability = naive_posterior.posterior(model, activations)
        starts = _starts(model, states)
        start = len(starts) - len(activations)
        share = weight * np.exp(log_probability + 400)
        total += share
        for row, time in enumerate(times):
            window = starts[start + round(time * FPS) - before :][: before + 1 + after]
            expected[row] += share * np.array([window.sum(), window[:, model.chains.numbers == 1].sum()])
    np.testing.assert_allclose(decoder.confidences(activations, times), expected / total, rtol=0, atol=1e-10)


def test_what_is_clear_is_sure_and_what_is_missing_is_not() -> None:
    """Of a song at 120 BPM: decoded beats, beats between them, and beats of noise alone."""
    times = 0.5 + np.arange(64) / 2
    positions = np.arange(64) % 4 + 1
    clear = np.zeros((3300, 2)) + 1e-3
    clear[np.round(times * FPS).astype(int), (positions == 1).astype(int)] = 0.95
    decoder = DBNDownBeatTrackingProcessor([3, 4], fps=FPS)
    beats = decoder(clear)
    found = decoder.confidences(clear, beats[:, 0])
    assert found[:, 0].min() > 0.995  # the last, which nothing follows, might have come later
    np.testing.assert_allclose(found[:, 1], beats[:, 1] == 1, atol=1e-3)
    assert decoder.confidences(clear, times[:-1] + 0.25).max() < 1e-3
    noise = DBNDownBeatTrackingProcessor([3, 4], fps=FPS, threshold=0.0)
    assert noise.confidences(np.full((3300, 2), 1 / 18), times).max() < 0.5
    assert decoder.confidences(np.zeros((100, 2)), [0.5]).tolist() == [[0.0, 0.0]]
    assert decoder.confidences(clear, []).shape == (0, 2)
    # Anchored they are certain, and what they leave no room for is impossible.
    anchored = decoder.confidences(clear, [10.1, 10.25], anchors=[(10.1, 2)])
    np.testing.assert_allclose(anchored, [[1, 0], [0, 0]], atol=1e-12)


def test_made_songs_are_as_sure_as_they_are_right() -> None:
    """Of some 600 beats of bad activations, the share of right ones is near the mean confidence."""
    sure, right = [], []
    for seed in range(4):
        random = np.random.default_rng(seed)
        times = 0.5 + np.cumsum(np.full(160, 0.5) * random.normal(1, 0.02, 160))
        activations = from_beats(times, np.arange(160) % 4 + 1, times[-1] + 1, seed)
        decoder = DBNDownBeatTrackingProcessor([3, 4], fps=FPS)
        beats = decoder(activations * 0.5)[:, 0]
        sure.append(decoder.confidences(activations * 0.5, beats)[:, 0])
        right.append(np.abs(beats[:, np.newaxis] - times).min(axis=1) <= 0.07)
    assert np.concatenate(sure).mean() == pytest.approx(np.concatenate(right).mean(), abs=0.02)
