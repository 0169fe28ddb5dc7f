"""The parts of the decoder's model against madmom's: states, transitions, observations, thresholding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from allin1_core.dbn import (
    BarStateSpace,
    BarTransitionModel,
    BeatStateSpace,
    BeatTransitionModel,
    RNNBeatTrackingObservationModel,
    RNNDownBeatTrackingObservationModel,
    exponential_transition,
    threshold_activations,
)
from allin1_core.dbn.chains import make_chains
from parity.agreement import compare
from parity.oracles import madmom_dbn
from parity.oracles.madmom_import import import_madmom

_INTERVALS = [
    (27.906976744186046, 109.0909090909091, 60),
    (27.906976744186046, 109.0909090909091, None),
    (13.9, 54.5, 60),
    (55.8, 218.2, 60),
    (5.5, 9.5, 3),
    (1.0, 4.0, None),
    (50.0, 50.0, 1),
    (279.1, 1090.9, None),
]

_BEAT_ATTRIBUTES = ["num_states", "num_intervals", "intervals", "state_positions", "state_intervals"]
_BEAT_ATTRIBUTES += ["first_states", "last_states"]


def _madmom_parts() -> Any:
    import_madmom()
    from madmom.features import beats_hmm

    return beats_hmm


def _assert_equal(ours: Any, oracle: Any, names: list[str]) -> None:
    for name in names:
        compare(np.asarray(getattr(ours, name)), np.asarray(getattr(oracle, name))).require(name)


@pytest.mark.parametrize(("shortest", "longest", "number"), _INTERVALS)
def test_beat_state_space(shortest: float, longest: float, number: int | None) -> None:
    _assert_equal(
        BeatStateSpace(shortest, longest, number),
        _madmom_parts().BeatStateSpace(shortest, longest, number),
        _BEAT_ATTRIBUTES,
    )


@pytest.mark.parametrize("num_beats", [1, 3, 4, 7])
@pytest.mark.parametrize(("shortest", "longest", "number"), _INTERVALS[:6])
def test_bar_model(shortest: float, longest: float, number: int | None, num_beats: int) -> None:
    parts = _madmom_parts()
    space = BarStateSpace(num_beats, shortest, longest, number)
    oracle_space = parts.BarStateSpace(num_beats, shortest, longest, number)
    names = ["num_beats", "num_states", "state_positions", "state_intervals", "first_states", "last_states"]
    _assert_equal(space, oracle_space, names)
    for transition_lambda in (100, 1, None):
        model = BarTransitionModel(space, transition_lambda)
        oracle = parts.BarTransitionModel(oracle_space, transition_lambda)
        names = ["states", "pointers", "probabilities", "log_probabilities", "num_states", "num_transitions"]
        _assert_equal(model, oracle, names)
        _assert_kernel_sees(model, oracle)
    for observation_lambda in (1, 2, 3, 16, 48):
        _assert_equal(
            RNNDownBeatTrackingObservationModel(space, observation_lambda),
            parts.RNNDownBeatTrackingObservationModel(oracle_space, observation_lambda),
            ["pointers", "observation_lambda"],
        )


def _assert_kernel_sees(model: BarTransitionModel, oracle: Any) -> None:
    """The candidates that the kernels compare are the oracle's, in its order, with its log probabilities."""
    space = model.state_space
    assert isinstance(space, BarStateSpace)
    pointers = RNNDownBeatTrackingObservationModel(space, 16).pointers
    chains = make_chains(model, pointers)
    last_states = np.concatenate(space.last_states)
    for chain, first in enumerate(np.concatenate(space.first_states)):
        candidates = slice(oracle.pointers[first], oracle.pointers[first + 1])
        ours = slice(chains.offsets[chain], chains.offsets[chain + 1])
        states = last_states[chains.origins[ours]].astype(np.uint32)
        compare(states, oracle.states[candidates]).require(chain)
        compare(chains.log_transitions[ours], oracle.log_probabilities[candidates]).require(chain)


def test_beat_model() -> None:
    parts = _madmom_parts()
    space, oracle_space = BeatStateSpace(28, 109, 60), parts.BeatStateSpace(28, 109, 60)
    _assert_equal(
        BeatTransitionModel(space, 100.0),
        parts.BeatTransitionModel(oracle_space, 100.0),
        ["states", "pointers", "probabilities", "log_probabilities", "transition_lambda"],
    )
    model = RNNBeatTrackingObservationModel(space, 16)
    oracle = parts.RNNBeatTrackingObservationModel(oracle_space, 16)
    _assert_equal(model, oracle, ["pointers", "observation_lambda"])
    for dtype in (np.float32, np.float64):
        activations = np.concatenate([np.random.default_rng(0).random(1001), [0, 1]]).astype(dtype)
        with madmom_dbn.quiet():
            expected = oracle.log_densities(activations)
        compare(model.log_densities(activations), expected, documented=(-np.inf,)).require(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_log_densities(dtype: type, order: Any) -> None:
    space = BarStateSpace(3, 28, 109, 60)
    oracle_space = _madmom_parts().BarStateSpace(3, 28, 109, 60)
    activations = np.random.default_rng(1).random((1001, 2))
    activations[5] = 0
    activations[6] = [1, 0]
    activations[7] = [0, 1]
    activations = np.array(activations, dtype=dtype, order=order)
    with madmom_dbn.quiet():
        oracle = _madmom_parts().RNNDownBeatTrackingObservationModel(oracle_space, 16)
        expected = oracle.log_densities(activations)
    found = RNNDownBeatTrackingObservationModel(space, 16).log_densities(activations)
    # The logarithm of 0, and of 1 minus a sum above 1.
    compare(found, expected, documented=(-np.inf, np.nan)).require(dtype)


@pytest.mark.parametrize("transition_lambda", [100, 0, 1.5, None])
@pytest.mark.parametrize("norm", [True, False])
def test_exponential_transition(transition_lambda: float | None, norm: bool) -> None:
    intervals = np.array([20, 25, 31, 40, 80])
    expected = _madmom_parts().exponential_transition(intervals, intervals, transition_lambda, norm=norm)
    found = exponential_transition(intervals, intervals, transition_lambda, norm=norm)
    compare(found, expected).require(transition_lambda)


def test_no_transition_is_made_where_none_is_possible() -> None:
    """The oracle divides by zero there."""
    with pytest.raises(ValueError, match="to_intervals: none can follow 30 frames"):
        exponential_transition(np.array([20, 30]), np.array([20]), 1000)


@pytest.mark.parametrize("threshold", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("peaks", [[], [0], [1], [0, 1], [3, 9], [9]], ids=str)
def test_threshold_activations(peaks: list[int], threshold: float) -> None:
    import_madmom()
    from madmom.features.beats import threshold_activations as oracle

    for shape in [(10,), (10, 2)]:
        activations = np.full(shape, 0.01)
        activations[peaks] = 0.5
        found, first = threshold_activations(activations, threshold)
        expected, expected_first = oracle(activations, threshold)
        compare(found, expected).require(shape)
        assert first == expected_first
