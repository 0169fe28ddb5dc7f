"""Bars that change within a song: madmom's Viterbi over the same states, and laws.

madmom has no such decoder, but its Viterbi decodes any model: the oracle is that, over states and transitions that are
put together from madmom's own, one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from allin1_core.dbn._viterbi import viterbi as compiled
from hypothesis import given, settings
from hypothesis import strategies as st

from allin1_core.dbn import DBNDownBeatTrackingProcessor, HiddenMarkovModel, MeterStateSpace
from allin1_core.dbn.hidden_markov_model import bar_model
from allin1_core.dbn.viterbi import viterbi
from allin1_core.simd.instruction_sets import instruction_sets
from parity import implementations
from parity.decoder_agreement import DecoderAgreement, compare_decodings, f_measure
from parity.inputs.activations import FPS, from_beats, from_song
from parity.inputs.annotations import read_annotations
from parity.inputs.decoder import songs
from parity.oracles import madmom_dbn
from parity.reports.records import ParityRecorder

_OURS = implementations.ours("decoder")
_NO_BEATS = np.empty((0, 2))
# 1 minus it is 1.
_PROHIBITIVE = 1e-300


def _random(seed: int, num_frames: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).random((num_frames, 2)) ** 4 * 0.5


def _agreement(
    activations: np.ndarray,
    meters: Sequence[int],
    change_prob: float,
    backend: str = "cython",
    *,
    tempi: tuple[float, float, int | None] = (55, 215, 12),
    transition_lambda: float = 100,
    weights: Sequence[float] | None = None,
) -> DecoderAgreement:
    slowest, fastest, num_tempi = tempi
    parameters: dict[str, Any] = {"min_bpm": slowest, "max_bpm": fastest, "num_tempi": num_tempi, "fps": FPS}
    parameters |= {"transition_lambda": transition_lambda, "meter_weights": weights, "backend": backend}
    [ours] = DBNDownBeatTrackingProcessor(list(meters), meter_change_prob=change_prob, **parameters).hmms
    intervals = 60.0 * FPS / fastest, 60.0 * FPS / slowest, num_tempi
    oracle = _oracle(
        tuple(meters), intervals, transition_lambda, change_prob, tuple(weights or [1] * len(meters))
    )
    paths = [ours.viterbi(activations, backend=backend)]
    return compare_decodings(paths, _NO_BEATS, [oracle.viterbi(activations)], _NO_BEATS)


_oracle = functools.lru_cache(maxsize=64)(madmom_dbn.meter_model)

_CASES: dict[str, tuple[Callable[[], np.ndarray], dict[str, Any]]] = {
    "3 and 4": (lambda: _random(1), {"meters": [3, 4], "change_prob": 1e-3}),
    "float32": (lambda: _random(2).astype(np.float32), {"meters": [3, 4], "change_prob": 1e-7}),
    "lengths descending": (lambda: _random(3), {"meters": [4, 3, 2], "change_prob": 0.2}),
    "half bars": (lambda: _random(4), {"meters": [2, 4], "change_prob": 0.9}),
    "bars of one beat": (lambda: _random(5), {"meters": [1, 2], "change_prob": 0.5}),
    "a length twice": (lambda: _random(6), {"meters": [3, 3, 2], "change_prob": 0.5}),
    "weights": (lambda: _random(7), {"meters": [3, 4, 5], "change_prob": 0.1, "weights": [1, 2, 0.5]}),
    "all equally likely": (lambda: np.full((200, 2), 1 / 18), {"meters": [2, 3], "change_prob": 0.5}),
    "exact zeros": (lambda: np.where(_random(8) > 0.3, 0.5, 0.0), {"meters": [2, 3], "change_prob": 0.3}),
    "prohibitive": (lambda: _random(9), {"meters": [3, 4], "change_prob": _PROHIBITIVE}),
    "more candidates than a byte counts": (
        lambda: _random(10, 250),
        {"meters": [1, 2, 3, 4], "change_prob": 0.5, "tempi": (55, 215, None), "transition_lambda": 10},
    ),
}


@pytest.mark.filterwarnings("ignore:no path through the states")
@pytest.mark.parametrize("backend", _OURS)
@pytest.mark.parametrize("case", _CASES)
def test_changing_bars(case: str, backend: str, record_parity: ParityRecorder) -> None:
    make, parameters = _CASES[case]
    agreement = _agreement(make(), backend=backend, **parameters)
    kind = "changing bars"
    madmom_dbn.require_identical(record_parity, f"{kind}: {case}", kind, backend, agreement)


def _made(bars: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Activations with a network's faults, of bars of these lengths at 110 BPM; times and positions of the beats."""
    positions = np.concatenate([np.arange(length) + 1 for length in bars])
    times = 0.5 + np.arange(len(positions)) * 60 / 110
    return from_beats(times, positions, times[-1] + 1, seed), times, positions


@functools.cache
def _in_numpy() -> tuple[HiddenMarkovModel, np.ndarray, np.ndarray, float]:
    """Some 15 s of bars that change, of which most is decoded in fixed point."""
    activations = _made([4] * 4 + [3] * 4, 0)[0]
    [hmm] = DBNDownBeatTrackingProcessor([3, 4], fps=FPS, meter_change_prob=1e-3).hmms
    return hmm, activations, *hmm.viterbi(activations, backend="numpy")


@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_instruction_sets(instruction_set: str) -> None:
    hmm, activations, expected, expected_log = _in_numpy()
    kernel = functools.partial(compiled, instruction_set=instruction_set)
    densities = hmm.observation_model.log_densities(activations)
    path, log_probability = viterbi(kernel, hmm.chains, densities, hmm.log_initial)
    np.testing.assert_array_equal(path, expected)
    assert log_probability == expected_log
    space = hmm.transition_model.state_space
    assert isinstance(space, MeterStateSpace)
    assert {*space.state_meters[path].tolist()} == {3, 4}


@pytest.mark.parametrize("song", songs()[::4])
def test_a_change_that_costs_too_much_is_none(song: str, shared: Path) -> None:
    """The path is then that of the best bar length alone, with its log probability, to the bit."""
    activations = from_song(read_annotations(shared)[song])[:6000]
    alone = DBNDownBeatTrackingProcessor([3, 4], fps=FPS).decode(activations)
    decoder = DBNDownBeatTrackingProcessor([3, 4], fps=FPS, meter_change_prob=_PROHIBITIVE)
    together = decoder.decode(activations)
    threes = bar_model(3, 6000 / 215, 6000 / 55, 60, 100, 16).transition_model.num_states
    before = 0 if alone.beats_per_bar == 3 else threes
    np.testing.assert_array_equal(together.path, alone.path + before)
    np.testing.assert_array_equal(together.beats, alone.beats)
    assert together.log_probability == alone.log_probability == alone.log_probabilities.max()
    assert together.beats_per_bar == alone.beats_per_bar


_MADE = {
    "4/4, 3/4, 4/4": ([4] * 16 + [3] * 16 + [4] * 16, [3, 4]),
    "4/4, 7/8, 4/4": ([4] * 12 + [7] * 12 + [4] * 12, [4, 7]),
    "half bars": (([4] * 8 + [2]) * 3 + [4] * 8, [2, 4]),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("song", _MADE)
def test_known_changes(song: str, seed: int) -> None:
    """Of activations with a network's faults; without changes the downbeats are lost at the first."""
    bars, meters = _MADE[song]
    activations, times, positions = _made(bars, seed)

    def score(change_prob: float | None) -> float:
        beats = DBNDownBeatTrackingProcessor(meters, fps=FPS, meter_change_prob=change_prob)(activations)
        return f_measure(times[positions == 1], beats[beats[:, 1] == 1, 0])

    assert score(1e-3) >= 0.95
    assert score(None) < 0.8


@pytest.mark.parametrize("backend", _OURS)
def test_anchors_hold_in_bars_that_change(backend: str) -> None:
    """Downbeats two, three and four beats apart, which no single bar length allows."""
    anchors = [(1.0, 1), (2.0, 1), (3.5, 1), (5.0, 4), (5.5, 1)]
    decoder = DBNDownBeatTrackingProcessor(
        [2, 3, 4], fps=FPS, meter_change_prob=1e-3, min_bpm=110, max_bpm=130, backend=backend
    )
    beats = decoder(_random(12, 700), anchors=anchors)
    assert {*anchors} <= {*map(tuple, beats.tolist())}
    downbeats = beats[beats[:, 1] == 1, 0]
    np.testing.assert_array_equal(downbeats[(downbeats >= 1) & (downbeats <= 5.5)], [1.0, 2.0, 3.5, 5.5])


@pytest.mark.filterwarnings("ignore:no path through the states")
@pytest.mark.parametrize("backend", _OURS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    values=st.lists(
        st.tuples(st.floats(0, 0.5), st.sampled_from([0.0, 0.25, 1e-8, 0.499])), min_size=1, max_size=120
    ),
    parameters=st.fixed_dictionaries(
        {
            "meters": st.lists(st.integers(1, 5), min_size=2, max_size=3, unique=True),
            "change_prob": st.floats(1e-12, 0.99),
            "tempi": st.tuples(st.floats(100, 150), st.floats(200, 400), st.integers(1, 9)),
            "transition_lambda": st.floats(1, 300),
        }
    ),
)
def test_no_counterexample(
    backend: str, values: list[tuple[float, float]], parameters: dict[str, Any]
) -> None:
    agreement = _agreement(np.array(values), backend=backend, **parameters)
    assert agreement.identical, agreement


def test_the_model_is_one_of_probabilities() -> None:
    [hmm] = DBNDownBeatTrackingProcessor(
        [3, 4, 6], fps=FPS, meter_change_prob=0.3, meter_weights=[1, 2, 3]
    ).hmms
    assert isinstance(hmm, HiddenMarkovModel)
    model = hmm.transition_model
    leaving = np.bincount(model.states, weights=model.probabilities, minlength=model.num_states)
    np.testing.assert_allclose(leaving, 1, rtol=1e-12)  # a sum of up to 60 rounded terms
    # From the last state of a bar of three at a tempo: stay, and go on in four and six by their weights.
    last = model.state_space.last_states[2][30]
    firsts = [model.state_space.first_states[beat] for beat in (0, 3, 7)]
    to = np.repeat(np.arange(model.num_states), np.diff(model.pointers.astype(int)))
    leads = model.states == last
    shares = [model.probabilities[leads & np.isin(to, states)].sum() for states in firsts]
    np.testing.assert_allclose(shares, [0.7, 0.3 * 2 / 5, 0.3 * 3 / 5], rtol=1e-12)


def test_only_first_beats_have_more_to_choose_from() -> None:
    """Choosing is what a decoding takes longest for: of 3 and 4 beats two have twice the candidates, so 9 for 7."""
    parameters: dict[str, Any] = {"beats_per_bar": [3, 4], "fps": FPS}
    alone = DBNDownBeatTrackingProcessor(**parameters).hmms
    [together] = DBNDownBeatTrackingProcessor(**parameters, meter_change_prob=1e-3).hmms
    separate = sum(len(hmm.chains.origins) for hmm in alone)
    assert separate == 7 * 1753
    assert len(together.chains.origins) == 9 * 1753
    assert together.chains.num_states == sum(hmm.chains.num_states for hmm in alone)


def test_weights_and_tempo_changes_of_each_beat_hold_where_bars_change() -> None:
    """A length of weight 0 never comes; the tempo changes at bar lines alone if only those allow it."""
    activations = _made([4] * 4 + [3] * 4, 1)[0]
    parameters: dict[str, Any] = {"beats_per_bar": [3, 4], "fps": FPS, "meter_change_prob": 0.1}
    never = DBNDownBeatTrackingProcessor(**parameters, meter_weights=[0, 1]).decode(activations)
    assert {*np.diff(np.flatnonzero(never.beats[:, 1] == 1)).tolist()} == {4}
    held = [[100, None, None], [100, None, None, None]]
    decoder = DBNDownBeatTrackingProcessor(**parameters, transition_lambda=held)
    found = decoder.decode(activations)
    space = decoder.hmms[0].transition_model.state_space
    numbers = space.state_positions[found.path].astype(int)
    changed = np.flatnonzero(np.diff(space.state_intervals[found.path]))
    assert (numbers[changed + 1] == 0).all()
    assert len({*space.state_meters[found.path].tolist()}) == 2  # type: ignore[union-attr]
