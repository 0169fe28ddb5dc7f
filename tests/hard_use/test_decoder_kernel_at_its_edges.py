"""The compiled decoder against its numpy counterpart on the sizes where a kernel reads past an array, if it does.

`make sanitize` runs this file on the kernels built with AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import strategies as st

from allin1_core.dbn import (
    DBNBeatTrackingProcessor,
    DBNDownBeatTrackingProcessor,
    _viterbi,
    forward_numpy,
    viterbi_numpy,
)
from allin1_core.dbn.chains import Chains
from allin1_core.dbn.viterbi import viterbi
from allin1_core.simd.instruction_sets import instruction_sets
from hard_use.reporting import recorded_trials
from parity.reports.records import ParityRecorder


def activations(num_frames: int, seed: int, kind: str) -> np.ndarray:
    """Activations ``float32 (num_frames, 2)`` whose rows are valid in the way the pipeline's are."""
    random = np.random.default_rng(seed)
    if kind == "silent":
        return np.zeros((num_frames, 2), np.float32)
    if kind == "certain":
        return random.integers(0, 2, (num_frames, 2)).astype(np.float32)
    values = random.random((num_frames, 2), np.float32) ** 4 * np.float32(
        0.49
    )  # neither of them: 1 - sum > 0
    if kind == "sparse":
        values[random.random(num_frames) < 0.9] = 0
    return values


def same_path(processor: DBNDownBeatTrackingProcessor, observations: np.ndarray) -> int:
    """Decode with every model of a processor, every instruction set and numpy; the number of paths that there were."""
    found = 0
    for model in processor.hmms:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # no path: the case is here on purpose
            path, log_probability = model.viterbi(observations, backend="cython")
            expected, expected_log_probability = model.viterbi(observations, backend="numpy")
        assert log_probability == expected_log_probability
        np.testing.assert_array_equal(path, expected)
        for name in instruction_sets()[1:]:  # the best is what `cython` is
            kernel = functools.partial(_viterbi.viterbi, instruction_set=name)
            densities = model.observation_model.log_densities(observations)
            path, log_probability = viterbi(kernel, model.chains, densities, model.log_initial)
            assert log_probability == expected_log_probability
            np.testing.assert_array_equal(path, expected)
        assert path.dtype == np.uint32
        assert len(path) == 0 or path.max() < model.transition_model.num_states
        found += len(path) > 0
    return found


def test_random_models_and_activations(record_parity: ParityRecorder) -> None:
    sets = instruction_sets()

    def check(
        num_frames, seed, kind, meters, fps, slowest, span, num_tempi, observation_lambda, transition_lambda
    ) -> None:
        try:
            processor = DBNDownBeatTrackingProcessor(
                meters,
                slowest,
                slowest * span,
                num_tempi,
                transition_lambda,
                observation_lambda,
                fps=fps,
            )
        except ValueError:
            models["refused"] += 1  # no whole number of frames lies in the range: refused above the kernel
            return
        models["decoded"] += len(processor.hmms) * len(sets)
        models["paths"] += same_path(processor, activations(num_frames, seed, kind))

    models: Counter[str] = Counter()
    with recorded_trials(
        record_parity,
        "instruments",
        "compiled decoder on sizes at the edges",
        "path and log probability of numpy",
        backend="cython",
    ) as trials:
        trials.draw(
            60,
            check,
            num_frames=st.one_of(st.integers(1, 40), st.integers(41, 700)),
            seed=st.integers(0, 2**32 - 1),
            kind=st.sampled_from(["random", "sparse", "silent", "certain"]),
            meters=st.lists(st.integers(1, 8), min_size=1, max_size=3),
            fps=st.sampled_from([7, 25, 50, 100]),
            slowest=st.floats(30, 100),
            span=st.floats(1.3, 4),
            num_tempi=st.one_of(st.none(), st.integers(2, 70)),
            observation_lambda=st.integers(1, 40),
            transition_lambda=st.one_of(st.none(), st.floats(1, 300)),
        )
        trials.tried = models["decoded"]
        trials.measures |= {"paths": models["paths"], "instruction_sets": ", ".join(sets)}
        assert models["decoded"] > 45 * len(sets)
        assert models["paths"] > models["decoded"] / len(sets) / 4


@pytest.mark.parametrize("num_frames", [1, 2, 3, 7, 8, 9, 31, 32, 33, 191, 192, 193, 194, 500])
def test_lengths_around_the_kernels_blocks(num_frames: int) -> None:
    processor = DBNDownBeatTrackingProcessor([2, 3, 4, 5, 6, 7], fps=100)
    same_path(processor, activations(num_frames, num_frames, "random"))


@pytest.mark.parametrize(("fps", "slowest", "fastest"), [(1, 20, 60), (2, 30, 119), (100, 5900, 6000)])
def test_beats_of_one_or_two_frames(fps: int, slowest: float, fastest: float) -> None:
    processor = DBNDownBeatTrackingProcessor([1, 3], slowest, fastest, None, fps=fps)
    same_path(processor, activations(100, 0, "random"))


def test_more_than_256_tempi_to_choose_from() -> None:
    processor = DBNDownBeatTrackingProcessor([2], 20, 300, None, 1, fps=150)
    assert max(processor.hmms[0].transition_model.state_space.intervals) > 400
    assert processor.hmms[0].chains.max_candidates > 256
    same_path(processor, activations(600, 1, "random"))


@pytest.mark.parametrize("anchors", [[0.0], [0.0, 0.5, 1.0], [[0.5, 1], [1.0, 2]], [2.99]])
def test_anchors_at_the_ends(anchors: list) -> None:
    observations = activations(300, 2, "random")
    beats = [
        DBNDownBeatTrackingProcessor([3, 4], fps=100, backend=backend)(observations, anchors=anchors)
        for backend in ("cython", "numpy")
    ]
    np.testing.assert_array_equal(*beats)
    for time in np.atleast_2d(np.asarray(anchors).T)[0]:
        assert np.abs(beats[0][:, 0] - time).min() < 1e-9


def same_values(
    chains: Chains, densities: np.ndarray, before: float, required: np.ndarray | None = None
) -> None:
    """Decode from equal log probabilities before the first frame, with every instruction set and numpy."""
    initial = np.full(chains.num_states, before)
    expected, expected_log_probability = viterbi(viterbi_numpy.viterbi, chains, densities, initial, required)
    assert np.isfinite(expected_log_probability)
    for name in instruction_sets():
        kernel = functools.partial(_viterbi.viterbi, instruction_set=name)
        path, log_probability = viterbi(kernel, chains, densities, initial, required)
        assert log_probability == expected_log_probability
        np.testing.assert_array_equal(path, expected)


@functools.cache
def bars(meter: int = 3) -> Chains:
    """Of few tempi: 28 to 109 frames a beat."""
    return DBNDownBeatTrackingProcessor([meter], num_tempi=20, fps=100).hmms[0].chains


def log_densities(num_frames: int, seed: int, dtype: type) -> np.ndarray:
    """Of values as a network's, in that precision; ``float64 (num_frames, 3)``."""
    model = DBNDownBeatTrackingProcessor([3], fps=100).hmms[0].observation_model
    return model.log_densities(activations(num_frames, seed, "random").astype(dtype))


# Blocks whose values have one exponent are decoded in fixed point. Of 500 frames the values fall by some 1,500.
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "before",
    [-1.0, -300.0, -1100.0, -3000.0, -8192.0, -32000.0, -65535.5, -1e6, -(2.0**30), -(2.0**45), -(2.0**51)],
)
def test_log_probabilities_of_every_size(before: float, dtype: type) -> None:
    same_values(bars(), log_densities(500, 1, dtype), before)


@pytest.mark.parametrize("exponent", [10, 13, 20, 52])
def test_passing_a_power_of_two(exponent: int) -> None:
    """Early, late, twice, and not quite."""
    for distance in (100, 900, 1400, 1700):
        same_values(bars(4), log_densities(500, exponent, np.float32), distance - 2.0**exponent)


@pytest.mark.parametrize("exponent", [13, 40, 52])
@pytest.mark.parametrize(
    ("transition_step", "density_step"), [(0.5, 1), (1, 0.5), (0.25, 0.25), (0.5, 0.5), (4, 4)]
)
def test_sums_halfway_between_two_numbers(exponent: int, transition_step: float, density_step: float) -> None:
    """Log probabilities in such steps of the last place, so that sums are rounded to even, and candidates are equal."""
    unit = 2.0 ** (exponent - 52)
    chains = bars()
    random = np.random.default_rng(exponent)
    steps = np.ceil(-chains.log_transitions if exponent == 52 else random.integers(0, 6, len(chains.origins)))
    chains = dataclasses.replace(chains, log_transitions=-transition_step * unit * steps)
    densities = -density_step * unit * random.integers(0, 9, (500, 3))
    same_values(chains, densities, -1.25 * 2.0**exponent - unit)


@pytest.mark.parametrize("where", [0, 100, 137, 499])
def test_a_value_that_fixed_point_cannot_hold(where: int) -> None:
    """Nothing possible but a beat, next to nothing, a gain, and a sum between two numbers, in one frame."""
    for column, value in [
        (0, -np.inf),
        (0, np.nan),
        (1, -1e9),
        (0, -3000.0),
        (1, 1e4),
        (2, -(2.0**-30) * 1.5),
    ]:
        densities = log_densities(500, 5, np.float32)
        densities[where, column] = value
        same_values(bars(), densities, -(2.0**23) - 1e5)


def test_required_beats_among_large_values() -> None:
    required = np.zeros(500, dtype=int)
    required[[57, 114, 171, 285]] = [-1, 2, 3, 2]
    same_values(bars(), log_densities(500, 6, np.float32), -3000.0, required)


def test_few_states_without_a_path_before() -> None:
    """Log probabilities of -inf before the first frame, which leave the states one after the other."""
    chains, densities = bars(), log_densities(500, 7, np.float32)
    initial = np.where(np.arange(chains.num_states) % 7 == 3, -5000.0, -np.inf)
    expected = viterbi(viterbi_numpy.viterbi, chains, densities, initial)
    for name in instruction_sets():
        found = viterbi(functools.partial(_viterbi.viterbi, instruction_set=name), chains, densities, initial)
        assert found[1] == expected[1]
        np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize("num_frames", [1, 2, 31, 33, 193, 500])
@pytest.mark.parametrize("meters", [[1, 2], [3, 4], [2, 3, 4, 5, 6, 7]])
def test_bars_that_change(meters: list[int], num_frames: int) -> None:
    processor = DBNDownBeatTrackingProcessor(meters, fps=50, num_tempi=20, meter_change_prob=0.1)
    assert same_path(processor, activations(num_frames, num_frames, "random")) == 1


@pytest.mark.parametrize(("num_frames", "num_states"), [(1, 1), (1, 7), (2, 2), (100, 9)])
def test_few_states(num_frames: int, num_states: int) -> None:
    random = np.random.default_rng(num_frames)
    matrix, densities = (
        np.log(random.random(shape)) for shape in ((num_states, num_states), (num_frames, num_states))
    )
    matrix[0, 1:] = -np.inf
    path, log_probability = _viterbi.dense_viterbi(matrix, densities, -1.0)
    expected, expected_log_probability = viterbi_numpy.dense_viterbi(matrix, densities, -1.0)
    np.testing.assert_array_equal(path, expected)
    assert log_probability == expected_log_probability > -np.inf


@pytest.mark.parametrize("num_frames", [1, 2, 100, 777])
def test_beats_without_bars(num_frames: int) -> None:
    values = activations(num_frames, 3, "random")[:, 0]
    found = [DBNBeatTrackingProcessor(fps=100, backend=name)(values) for name in ("cython", "numpy")]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("name", ["SSE9", "", "avx2", "NEON, AVX2"])
def test_an_absent_instruction_set_is_refused_not_replaced(name: str) -> None:
    model = DBNDownBeatTrackingProcessor([3], fps=100).hmms[0]
    densities = model.observation_model.log_densities(activations(50, 0, "random"))
    kernel = functools.partial(_viterbi.viterbi, instruction_set=name)
    with pytest.raises(ValueError, match=rf"instruction_set: '{name}' has no kernels here; expected one of "):
        viterbi(kernel, model.chains, densities, model.log_initial)


@pytest.mark.parametrize("name", instruction_sets())
@pytest.mark.parametrize(
    ("slowest", "fastest", "num_tempi"),
    [(55, 215, None), (60, 60, None), (100, 101, 1), (600, 6000, None), (55, 215, 7), (93.75, 93.75, None)],
)
def test_forward_algorithm(slowest: float, fastest: float, num_tempi: int | None, name: str) -> None:
    """States in number beside a block's (64 for 93.75 BPM), one interval or many; frames without any probability."""
    hmm = DBNBeatTrackingProcessor(slowest, fastest, num_tempi, fps=100).hmm
    transitions = hmm.transition_model.beat_transitions[0]
    compiled = _viterbi.ForwardAlgorithm(hmm.chains, transitions, instruction_set=name)
    plain = forward_numpy.ForwardAlgorithm(hmm.chains, transitions)
    for kind in ("plain", "sparse", "certain", "silent"):
        for num_frames in (0, 1, 130):
            observed = activations(num_frames, 1, kind)[:, 0]
            densities = np.exp(hmm.observation_model.log_densities(observed))
            np.testing.assert_array_equal(compiled.advance(densities), plain.advance(densities))
            np.testing.assert_array_equal(compiled.probabilities(), plain.probabilities())
            assert compiled.is_lost == plain.is_lost
            for precision, one in itertools.product("df", observed[(observed > 0) & (observed < 1)][:5]):
                alone = np.array([one], dtype=precision)
                [expected] = plain.advance(np.exp(hmm.observation_model.log_densities(alone)))
                assert compiled.advance_one(alone, hmm.observation_model.observation_lambda) == expected
                np.testing.assert_array_equal(compiled.probabilities(), plain.probabilities())
        compiled.reset()
        plain.reset()


@pytest.mark.parametrize("name", instruction_sets())
def test_the_likeliest_state_lies_where_sums_began_as_bounds(name: str) -> None:
    """A slow pulse leaves fast states unlikely; then one of these is the likeliest, before many nearly as likely."""
    hmm = DBNBeatTrackingProcessor(fps=100).hmm
    transitions = hmm.transition_model.beat_transitions[0]
    compiled = _viterbi.ForwardAlgorithm(hmm.chains, transitions, instruction_set=name)
    plain = forward_numpy.ForwardAlgorithm(hmm.chains, transitions)
    pulse = np.exp(hmm.observation_model.log_densities(np.where(np.arange(600) % 100 == 9, 0.99, 1e-3)))
    seen = np.ones((1, 2))
    for likeliest in range(3000, 3500, 30):
        compiled.reset()
        compiled.advance(pulse)
        room, first, _ = compiled.__reduce__()[2]
        values = np.where(np.arange(hmm.chains.num_states) < 3500, 0, 0.9)
        values[likeliest] = 1
        changed = np.zeros(len(room))
        changed[first : first + len(values)] = values
        compiled.__setstate__((changed, first, 1.0))
        plain._values = values
        assert compiled.advance(seen) == plain.advance(seen)
        np.testing.assert_array_equal(compiled.probabilities(), plain.probabilities())
