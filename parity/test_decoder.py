"""The decoder against madmom: the same states, the same log probabilities, the same beats, bit for bit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allin1_core.dbn import (
    BarStateSpace,
    BarTransitionModel,
    DBNBeatTrackingProcessor,
    DBNDownBeatTrackingProcessor,
    HiddenMarkovModel,
    RNNDownBeatTrackingObservationModel,
    load_decoder,
)
from parity import implementations
from parity.decoder_agreement import DecoderAgreement, Paths, compare_decodings, decode_all
from parity.inputs import decoder as cases_decoder
from parity.inputs.activations import steady
from parity.inputs.decoder import Case, runs
from parity.material import read_stems, tracks
from parity.oracles import madmom_dbn
from parity.reports.records import ParityRecorder

_CASES = [
    *cases_decoder.synthetic_cases(),
    *cases_decoder.edge_cases(),
    *cases_decoder.parameter_cases(),
    *cases_decoder.golden_cases(),
    *cases_decoder.hint_cases(),
    *cases_decoder.song_cases(),
]
# madmom's network takes as long as the music lasts.
_SHORT_TRACK = "falcon69"
_OURS = implementations.ours("decoder")


def _agreement(
    backend: str, parameters: dict[str, Any], activations: np.ndarray, oracle: tuple[np.ndarray, Paths]
) -> DecoderAgreement:
    decoder = load_decoder(backend)[0](**parameters)
    beats, paths = decode_all(decoder, activations)
    oracle_beats, oracle_paths = oracle
    beats_only = backend == implementations.requested("decoder") and not hasattr(decoder, "hmms")
    return compare_decodings(paths, beats, [] if beats_only else oracle_paths, oracle_beats)


def _hashable(parameters: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Parameters for a cache, in the order of their names; lists and arrays as tuples, which madmom takes as well."""
    by_name = sorted(parameters.items())
    return tuple((name, tuple(value) if np.ndim(value) else value) for name, value in by_name)


@functools.lru_cache(maxsize=256)
def _oracle(case: Case) -> tuple[np.ndarray, Paths]:
    return decode_all(_madmom(_hashable(case.parameters)), case.activations())


@functools.cache
def _madmom(parameters: tuple[tuple[str, Any], ...]) -> Any:
    """madmom's decoder, made once for the same parameters: that takes longer than a short decoding."""
    return madmom_dbn.make_decoder(**dict(parameters))


@pytest.mark.parametrize(("backend", "case"), runs(_CASES), ids=str)
def test_decoder(backend: str, case: Case, record_parity: ParityRecorder) -> None:
    agreement = _agreement(backend, case.parameters, case.activations(), _oracle(case))
    madmom_dbn.require_identical(record_parity, case.name, case.kind, backend, agreement)


@functools.cache
def _network_activations(track: str) -> np.ndarray:
    mixed = read_stems(track).astype(np.int32).sum(axis=0)
    return madmom_dbn.downbeat_activations(np.clip(mixed, -32768, 32767).astype(np.int16))


@pytest.mark.parametrize("backend", [name for name in implementations.names("decoder") if name != "numpy"])
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(
    "track",
    [pytest.param(track, marks=[] if track == _SHORT_TRACK else pytest.mark.full) for track in tracks()]
    or ["none"],
)
def test_madmom_network(track: str, backend: str, record_parity: ParityRecorder) -> None:
    """Activations of madmom's own RNNDownBeatProcessor on the mixed audio."""
    activations = _network_activations(track)
    parameters = {"beats_per_bar": [3, 4], "fps": 100}
    oracle = decode_all(_madmom(_hashable(parameters)), activations)
    agreement = _agreement(backend, parameters, activations, oracle)
    madmom_dbn.require_identical(record_parity, f"madmom's network on {track}", "network", backend, agreement)


@pytest.mark.parametrize("backend", _OURS)
@pytest.mark.parametrize(
    ("num_beats", "transition_lambda"),
    [(3, [100, None, None]), (4, [100, None, None, None]), (4, [10, 50, None, 1000]), (2, [None, None])],
    ids=str,
)
def test_transition_lambda_by_beat(
    num_beats: int,
    transition_lambda: list[float | None],
    backend: str,
    record_parity: ParityRecorder,
) -> None:
    space = BarStateSpace(num_beats, 28.3, 109.1, 40)
    model = HiddenMarkovModel(
        BarTransitionModel(space, transition_lambda), RNNDownBeatTrackingObservationModel(space, 16)
    )
    oracle = madmom_dbn.bar_model(num_beats, 28.3, 109.1, 40, transition_lambda, 16)
    activations = np.random.default_rng(num_beats).random((1500, 2)) ** 4 * 0.5
    none = np.empty((0, 2))
    paths = [model.viterbi(activations, backend=backend)]
    agreement = compare_decodings(paths, none, [oracle.viterbi(activations)], none)
    madmom_dbn.require_identical(
        record_parity, f"transition lambda {transition_lambda}", "parameters", backend, agreement
    )


_BEAT_PARAMETERS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "60 tempi": {"num_tempi": 60},
    "50 frames a second": {"fps": 50},
    "threshold": {"threshold": 0.3},
    "not corrected": {"correct": False},
    "not corrected, threshold": {"correct": False, "threshold": 0.3},
    "lambda 10": {"transition_lambda": 10},
}


def _beat_signals() -> dict[str, Callable[[], np.ndarray]]:
    pulse = np.where(np.arange(900) % 47 == 11, 0.9, 0.02)
    return {
        "pulse": lambda: pulse,
        "random": lambda: np.random.default_rng(8).random(900).astype(np.float32),
        "exact zeros": lambda: np.where(pulse > 0.5, 1.0, 0.0),
        "silent": lambda: np.zeros(200),
        "one frame": lambda: np.full(1, 0.5),
        "four frames": lambda: np.full(4, 0.5),
    }


@functools.cache
def _madmom_beats(parameters: str) -> Any:
    return madmom_dbn.make_beat_decoder(**{"fps": 100, **_BEAT_PARAMETERS[parameters]})


@functools.cache
def _beat_oracle(parameters: str, signal: str) -> tuple[np.ndarray, Paths]:
    return decode_all(_madmom_beats(parameters), _beat_signals()[signal]())


@pytest.mark.parametrize("backend", _OURS)
@pytest.mark.parametrize("parameters", _BEAT_PARAMETERS)
@pytest.mark.parametrize("signal", _beat_signals())
def test_beat_decoder(parameters: str, signal: str, backend: str, record_parity: ParityRecorder) -> None:
    """DBNBeatTrackingProcessor: one beat a bar."""
    keywords = {"fps": 100, **_BEAT_PARAMETERS[parameters]}
    activations = _beat_signals()[signal]()
    beats, paths = decode_all(DBNBeatTrackingProcessor(**keywords, backend=backend), activations)
    oracle_beats, oracle_paths = _beat_oracle(parameters, signal)
    agreement = compare_decodings(paths, beats, oracle_paths, oracle_beats)
    madmom_dbn.require_identical(
        record_parity, f"beats only: {signal}, {parameters}", "beats only", backend, agreement
    )


def test_more_candidates_than_a_byte_counts(record_parity: ParityRecorder) -> None:
    """406 tempi, of which more than 256 lead to another."""
    keywords: dict[str, Any] = {"fps": 500, "num_tempi": None, "transition_lambda": 5}
    activations = np.random.default_rng(9).random(400)
    decoder = DBNBeatTrackingProcessor(**keywords)
    assert decoder.hmm.chains.max_candidates > 256
    beats, paths = decode_all(decoder, activations)
    oracle_beats, oracle_paths = decode_all(madmom_dbn.make_beat_decoder(**keywords), activations)
    agreement = compare_decodings(paths, beats, oracle_paths, oracle_beats)
    backend = decoder.choice.backend
    madmom_dbn.require_identical(
        record_parity, "beats only: 500 frames a second", "beats only", backend, agreement
    )


@pytest.mark.parametrize("backend", _OURS)
@pytest.mark.parametrize("parameters", [{}, {"meter_change_prob": 1e-3}, {"threshold": 0.0}], ids=str)
def test_an_anchor_that_is_a_decoded_beat_changes_nothing(parameters: dict[str, Any], backend: str) -> None:
    """The best path of all is the best of those through one of its states; and silence stays left out."""
    silence = np.full((150, 2), 0.01, np.float32)
    activations = np.concatenate([silence, steady(12), silence])
    decoder = DBNDownBeatTrackingProcessor([3, 4], fps=100, backend=backend, correct=False, **parameters)
    beats = decoder(activations)
    assert len(beats) >= 19
    for beat in (0, 1, len(beats) // 2, -2, -1):
        np.testing.assert_array_equal(decoder(activations, anchors=[tuple(beats[beat])]), beats)


_PROBABILITIES = st.one_of(
    st.floats(0, 1),
    st.sampled_from([0.0, 1.0, 0.5, 0.05, 0.25, float(np.float32(0.05)), 5e-324, 1 - 2**-53]),
)


@pytest.mark.parametrize("backend", _OURS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    values=st.lists(st.tuples(_PROBABILITIES, _PROBABILITIES), min_size=1, max_size=120),
    single=st.booleans(),
    parameters=st.fixed_dictionaries(
        {
            "beats_per_bar": st.lists(st.integers(1, 7), min_size=1, max_size=3),
            "min_bpm": st.floats(40, 110),
            "max_bpm": st.floats(120, 300),
            "num_tempi": st.one_of(st.none(), st.integers(1, 70)),
            "transition_lambda": st.one_of(st.none(), st.floats(0, 500)),
            "observation_lambda": st.integers(2, 32),
            "threshold": st.one_of(st.none(), st.floats(0, 0.5)),
            "correct": st.booleans(),
            "fps": st.sampled_from([20, 50, 86.1328125, 100]),
        }
    ),
)
def test_no_counterexample(
    backend: str, values: list[tuple[float, float]], single: bool, parameters: dict[str, Any]
) -> None:
    dtype = np.float32 if single else np.float64
    oracle = _oracle_of_example(tuple(values), dtype, _hashable(parameters))
    agreement = _agreement(backend, parameters, np.array(values, dtype), oracle)
    assert agreement.identical, agreement


# Every backend is given the same examples.
@functools.cache
def _oracle_of_example(
    values: tuple[tuple[float, float], ...], dtype: type, parameters: tuple[tuple[str, Any], ...]
) -> tuple[np.ndarray, Paths]:
    return decode_all(madmom_dbn.make_decoder(**dict(parameters)), np.array(values, dtype))
