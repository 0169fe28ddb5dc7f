"""Online beats against madmom's DBNBeatTrackingProcessor(online=True): the same states, probabilities and beats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from allin1_core.dbn._viterbi import ForwardAlgorithm
from hypothesis import given, settings
from hypothesis import strategies as st

from allin1_core.dbn import DBNBeatTrackingProcessor
from allin1_core.simd.instruction_sets import instruction_sets
from parity import implementations
from parity.agreement import compare
from parity.decoder_agreement import DecoderAgreement, compare_decodings
from parity.inputs.activations import FPS, from_song
from parity.inputs.annotations import read_annotations
from parity.inputs.decoder import EXCERPT_SECONDS, songs
from parity.material import tracks
from parity.oracles import madmom_dbn
from parity.oracles.network_golden import read_golden
from parity.reports.records import ParityRecorder

_OURS = implementations.ours("decoder")
_LOST = pytest.mark.filterwarnings("ignore:no path through the states")


def _agreement(
    activations: np.ndarray, sizes: list[int] | None = None, backend: str = "auto", **parameters: Any
) -> DecoderAgreement:
    """With the activations given in pieces of these sizes, the last of which goes on to the end."""
    keywords = {"fps": FPS, **parameters, "online": True}
    ours = DBNBeatTrackingProcessor(**keywords, backend=backend)
    oracle = madmom_dbn.make_online_decoder(**keywords)
    found: list[np.ndarray] = []
    expected: list[np.ndarray] = []
    for piece in np.split(activations, np.cumsum(sizes or [])):
        found.append(ours(piece, reset=not found))
        expected.append(oracle(piece, reset=not expected))
        for name in ("tempo", "last_beat"):
            compare(np.array(getattr(ours, name)), np.array(getattr(oracle, name))).require(name)
    return compare_decodings([], np.concatenate(found), [], np.concatenate(expected))


def _check(record_parity: ParityRecorder, case: str, backend: str, agreement: DecoderAgreement) -> None:
    madmom_dbn.require_identical(record_parity, f"online: {case}", "online", backend, agreement)


def _random(seed: int, num_frames: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).random(num_frames) ** 3


_PULSE = np.where(np.arange(600) % 47 == 11, 0.9, 0.02)
_CASES: dict[str, tuple[Callable[[], np.ndarray], dict[str, Any]]] = {
    "pulse": (lambda: _PULSE, {}),
    "random": (lambda: _random(1), {}),
    "random, float32": (lambda: _random(2).astype(np.float32), {}),
    "every third frame of another array": (lambda: _random(3, 1200)[::3], {}),
    "constant": (lambda: np.full(400, 1 / 16), {}),
    "constant tiny": (lambda: np.full(200, 1e-300), {}),
    "no frame": (lambda: np.zeros(0), {}),
    "one frame": (lambda: np.full(1, 0.5), {}),
    "silent": (lambda: np.zeros(250), {}),
    "silent after a pulse": (lambda: np.r_[_PULSE, np.zeros(150), _PULSE], {}),
    "all one": (lambda: np.ones(50), {}),
    "exact zeros": (lambda: np.where(_PULSE > 0.5, 1.0, 0.0), {}),
    "60 tempi": (lambda: _random(4), {"num_tempi": 60}),
    "one tempo": (lambda: _random(5), {"min_bpm": 120, "max_bpm": 120}),
    "two tempi": (lambda: _random(6), {"min_bpm": 600, "max_bpm": 1000}),
    "up to 6000 BPM": (lambda: _random(7), {"max_bpm": 6000}),
    "50 frames a second": (lambda: _random(8), {"fps": 50}),
    "transition lambda 0": (lambda: _random(9), {"transition_lambda": 0}),
    "transition lambda 1000": (lambda: _random(10), {"transition_lambda": 1000}),
    "observation lambda 1": (lambda: _random(11), {"observation_lambda": 1}),
    "observation lambda 64": (lambda: _random(12), {"observation_lambda": 64}),
    "threshold, not corrected": (lambda: _random(13), {"threshold": 0.9, "correct": False}),
}


@_LOST
@pytest.mark.parametrize("backend", _OURS)
@pytest.mark.parametrize("case", _CASES)
def test_online(case: str, backend: str, record_parity: ParityRecorder) -> None:
    make, parameters = _CASES[case]
    _check(record_parity, case, backend, _agreement(make(), None, backend, **parameters))


@pytest.mark.parametrize("backend", _OURS)
@pytest.mark.parametrize("sizes", [[1] * 399, [0, 1, 7, 0, 150]], ids=["one by one", "pieces"])
def test_pieces(sizes: list[int], backend: str, record_parity: ParityRecorder) -> None:
    _check(record_parity, f"in {len(sizes) + 1} pieces", backend, _agreement(_random(14), sizes, backend))


@_LOST
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("observation_lambda", [1, 16, 7.3])
def test_one_by_one(dtype: type, observation_lambda: float, record_parity: ParityRecorder) -> None:
    """Frames of all kinds: where an activation is 0 or 1, what is done with one goes another way."""
    activations = np.r_[_random(15, 200), 0, 1, 1e-300, 1 - 2**-53, _PULSE[:100]].astype(dtype)
    agreement = _agreement(activations, [1] * len(activations), observation_lambda=observation_lambda)
    case = f"one by one, {np.dtype(dtype)}, lambda {observation_lambda}"
    _check(record_parity, case, "cython", agreement)


@pytest.mark.parametrize("track", tracks() or ["none"])
def test_goldens(
    track: str, shared: Path, record_parity: ParityRecorder, pytestconfig: pytest.Config
) -> None:
    """Their first minute; the whole in the full form."""
    activations = read_golden(shared, track)["beat"][: None if pytestconfig.getoption("--full") else 60 * FPS]
    _check(record_parity, f"golden {track}", "cython", _agreement(activations))


@pytest.mark.parametrize("song", songs())
def test_songs(song: str, shared: Path, record_parity: ParityRecorder, pytestconfig: pytest.Config) -> None:
    """Their beginnings; all of them whole in the full form."""
    activations = np.minimum(from_song(read_annotations(shared)[song]).sum(axis=1), 1)
    activations = activations if pytestconfig.getoption("--full") else activations[: EXCERPT_SECONDS * FPS]
    # In pieces, because madmom keeps the probabilities of a whole call: 1 GB of a song.
    pieces = [500] * (len(activations) // 500)
    _check(record_parity, song, "cython", _agreement(activations, pieces))


def check_probabilities(activations: np.ndarray, parameters: dict[str, Any], instruction_set: str) -> None:
    """Hold every state's probability after the last frame, and the likeliest after each, to madmom's."""
    oracle = madmom_dbn.make_online_decoder(fps=FPS, **parameters).hmm
    hmm = DBNBeatTrackingProcessor(fps=FPS, **parameters).hmm
    transitions = hmm.transition_model.beat_transitions[0]
    forward = ForwardAlgorithm(hmm.chains, transitions, instruction_set=instruction_set)
    with madmom_dbn.quiet():
        expected = oracle.forward(activations)
    states = forward.advance(np.exp(hmm.observation_model.log_densities(activations)))
    compare(states, expected.argmax(axis=1)).require(instruction_set)
    compare(forward.probabilities(), expected[-1], documented=(np.nan,)).require(instruction_set)


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("case", [case for case in _CASES if case not in ("no frame", "50 frames a second")])
def test_probabilities(case: str, instruction_set: str) -> None:
    make, parameters = _CASES[case]
    check_probabilities(make(), parameters, instruction_set)


@_LOST
@pytest.mark.parametrize("backend", _OURS)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    values=st.lists(
        st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 1 / 16, 5e-324])), min_size=1, max_size=150
    ),
    parameters=st.fixed_dictionaries(
        {
            "min_bpm": st.floats(40, 110),
            "max_bpm": st.floats(120, 300),
            "num_tempi": st.one_of(st.none(), st.integers(1, 70)),
            "transition_lambda": st.floats(0, 500),
            "observation_lambda": st.integers(2, 32),
            "fps": st.sampled_from([20, 50, 86.1328125, 100]),
        }
    ),
)
def test_no_counterexample(backend: str, values: list[float], parameters: dict[str, Any]) -> None:
    agreement = _agreement(np.array(values), None, backend, **parameters)
    assert agreement.identical, agreement
