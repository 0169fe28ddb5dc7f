"""What the decoder does beyond its oracle: anchors, weights, threads, backends, and what a decoding tells."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from allin1_core import backends
from allin1_core.backends import table
from allin1_core.dbn import (
    BarStateSpace,
    BarTransitionModel,
    DBNBeatTrackingProcessor,
    DBNDownBeatTrackingProcessor,
    HiddenMarkovModel,
    RNNDownBeatTrackingObservationModel,
    load_decoder,
)
from allin1_core.dbn import viterbi as viterbi_front
from allin1_core.dbn.chains import make_chains
from allin1_core.dbn.hidden_markov_model import bar_model, beat_model
from allin1_core.dbn.hints import required_beats


def _metronome(num_frames: int, interval: int, beats_per_bar: int, offset: int = 20) -> np.ndarray:
    activations = np.full((num_frames, 2), 0.01)
    for number, frame in enumerate(range(offset, num_frames, interval)):
        activations[frame, int(number % beats_per_bar == 0)] = 0.8
    return activations


def _random(seed: int, num_frames: int = 600) -> np.ndarray:
    return np.random.default_rng(seed).random((num_frames, 2)) / 2


def _by_definition(
    model: HiddenMarkovModel, observations: np.ndarray, required: np.ndarray
) -> tuple[list[int], float]:
    """Viterbi by the textbook over every state, with the required beats as its only constraint."""
    space, transitions = model.transition_model.state_space, model.transition_model
    assert isinstance(space, BarStateSpace)
    densities = model.observation_model.log_densities(observations)[:, model.observation_model.pointers]
    beat_of = {int(state): beat for beat, states in enumerate(space.first_states, 1) for state in states}
    for frame in np.nonzero(required)[0]:
        for state in range(space.num_states):
            beat = beat_of.get(state)
            allowed = beat is not None and required[frame] in (-1, beat)
            densities[frame, state] = 0.0 if allowed else -np.inf
    value = np.asarray(model.log_initial)
    origins = np.zeros((len(observations), space.num_states), dtype=int)
    for frame in range(len(observations)):
        following = np.full(space.num_states, -np.inf)
        for state in range(space.num_states):
            for pointer in range(transitions.pointers[state], transitions.pointers[state + 1]):
                origin = transitions.states[pointer]
                candidate = (value[origin] + transitions.log_probabilities[pointer]) + densities[frame, state]
                if candidate > following[state]:
                    following[state], origins[frame, state] = candidate, origin
        value = following
    path = [int(value.argmax())]
    for frame in range(len(observations) - 1, 0, -1):
        path.append(int(origins[frame, path[-1]]))
    return path[::-1], float(value.max())


@pytest.mark.parametrize("backend", ["cython", "numpy"])
@pytest.mark.parametrize("anchors", [{}, {12: -1}, {0: 2, 30: -1}, {5: 1, 13: 2, 79: -1}], ids=str)
def test_viterbi_by_definition(anchors: dict[int, int], backend: str) -> None:
    space = BarStateSpace(3, 5, 9)
    model = HiddenMarkovModel(
        BarTransitionModel(space, [20, None, 5]), RNNDownBeatTrackingObservationModel(space, 4)
    )
    required = np.zeros(80, dtype=np.int64)
    required[list(anchors)] = list(anchors.values())
    observations = _random(1, 80)
    path, log_probability = model.decode(observations, required, backend)
    expected_path, expected = _by_definition(model, observations, required)
    assert log_probability == expected
    assert path.tolist() == expected_path


def test_initial_distribution() -> None:
    space = BarStateSpace(3, 5, 9)
    initial = np.random.default_rng(3).random(space.num_states) ** 8
    model = HiddenMarkovModel(
        BarTransitionModel(space, 50), RNNDownBeatTrackingObservationModel(space, 4), initial / initial.sum()
    )
    observations = _random(2, 60)
    expected_path, expected = _by_definition(model, observations, np.zeros(60, dtype=np.int64))
    for backend in ("cython", "numpy"):
        path, log_probability = model.viterbi(observations, backend=backend)
        assert log_probability == expected
        assert path.tolist() == expected_path


@pytest.mark.parametrize(("state", "column"), [(-1, 1), (1, 0), (0, 0)])
def test_a_beat_whose_states_see_several_densities_is_refused(state: int, column: int) -> None:
    space = BarStateSpace(3, 5, 9)
    pointers = RNNDownBeatTrackingObservationModel(space, 2).pointers.copy()
    make_chains(BarTransitionModel(space, 50), pointers)
    pointers[state] = column
    with pytest.raises(ValueError, match=r"pointers: the states of beat [13] see \[0 [12].*expected one col"):
        make_chains(BarTransitionModel(space, 50), pointers)


def test_an_anchor_without_a_position_leaves_it_open() -> None:
    """Also beside one that has it, in either order; rounded to frames."""
    known = [[0.021, 0], [0.019, 3], [0.054, 0], [0.07, 2], [0.07, 0]]
    required = required_beats(known, 100, 10, [3, 4])
    assert (required.tolist(), required.dtype) == ([0, 0, 3, 0, 0, -1, 0, 2, 0, 0], np.int64)
    decoder, activations = DBNDownBeatTrackingProcessor([3, 4], fps=100), _metronome(600, 50, 4)
    plain = decoder(activations)
    assert plain[:4, 1].tolist() == [1, 2, 3, 4]
    assert np.array_equal(decoder(activations, anchors=plain[1:4, 0]), plain)


def test_off_by_default_changes_nothing() -> None:
    activations = _random(5)
    plain = DBNDownBeatTrackingProcessor([3, 4], fps=100)
    for other in (
        DBNDownBeatTrackingProcessor([3, 4], fps=100, meter_weights=[1, 1]),
        DBNDownBeatTrackingProcessor([3, 4], fps=100, num_threads=2),
        DBNDownBeatTrackingProcessor(
            [3, 4], fps=100, transition_lambda=np.array(100), min_bpm=np.array(55.0)
        ),
    ):
        assert np.array_equal(other(activations), plain(activations))
        assert np.array_equal(other.decode(activations).path, plain.decode(activations).path)
    assert np.array_equal(plain(activations, anchors=[]), plain(activations))


def test_meter_weights() -> None:
    activations = _metronome(1200, 50, 4)
    plain = DBNDownBeatTrackingProcessor([3, 4], fps=100).decode(activations)
    assert plain.beats_per_bar == 4
    only_three = DBNDownBeatTrackingProcessor([3, 4], fps=100, meter_weights=[1, 0]).decode(activations)
    assert only_three.beats_per_bar == 3
    assert np.array_equal(only_three.log_probabilities, plain.log_probabilities)
    # The prior tips the balance exactly where the ratio of the weights makes up for the log probabilities.
    gap = float(plain.log_probabilities[1] - plain.log_probabilities[0])
    tie = _random(6)
    decoded = DBNDownBeatTrackingProcessor([3, 4], fps=100).decode(tie)
    gap = float(decoded.log_probabilities[1] - decoded.log_probabilities[0])
    for factor, meter in [(0.9, 4 if gap > 0 else 3), (1.1, 3 if gap > 0 else 4)]:
        weights = [np.exp(gap * factor), 1.0]
        weighted = DBNDownBeatTrackingProcessor([3, 4], fps=100, meter_weights=weights)
        assert weighted.decode(tie).beats_per_bar == meter


def test_anchors() -> None:
    activations = _metronome(1200, 50, 4)
    decoder = DBNDownBeatTrackingProcessor([4], fps=100)
    free = decoder(activations)
    assert 2.2 in free[:, 0]
    moved = decoder(activations, anchors=[2.45])  # between two beats
    assert 2.45 in moved[:, 0]
    assert 2.2 not in moved[:, 0] or 2.7 not in moved[:, 0]
    turned = decoder(activations, anchors=[[2.2, 3], [4.2, 3]])
    assert [2.2, 3] in turned.tolist()
    assert [4.2, 3] in turned.tolist()
    assert [2.2, 3] not in free.tolist()


def test_anchors_outside_the_threshold() -> None:
    activations = np.full((900, 2), 0.01)
    activations[300:600] = _metronome(300, 50, 4)
    decoder = DBNDownBeatTrackingProcessor([4], fps=100, threshold=0.5)
    decoded = decoder.decode(activations, anchors=[1.0, 8.0])
    assert decoded.first_frame == 100
    assert len(decoded.path) == 701
    assert decoded.beats[0, 0] == 1.0
    assert decoded.beats[-1, 0] == 8.0
    assert decoder(np.full((500, 2), 0.01), anchors=[2.0])[:, 0].tolist() == [2.0]


def test_anchors_in_successive_frames() -> None:
    """Of beats of one frame each the states are all in a beat, and would be a single one."""
    decoder = DBNDownBeatTrackingProcessor(4, min_bpm=6000, max_bpm=6000, fps=100)
    beats = decoder(np.full((300, 2), 0.1), anchors=[1.0, 1.01, (1.02, 3)])
    assert beats.tolist() == [[1.0, 1], [1.01, 2], [1.02, 3]]


def test_anchors_without_correction() -> None:
    activations = _random(7)
    anchors = [0.0, 1.23, 4.56]
    for decoder in (
        DBNDownBeatTrackingProcessor([3, 4], fps=100, correct=False, threshold=0),
        DBNDownBeatTrackingProcessor([3, 4], fps=100, threshold=0),
    ):
        assert set(anchors) <= set(decoder(activations, anchors=anchors)[:, 0])
    for correct in (True, False):
        beats = DBNBeatTrackingProcessor(fps=100, correct=correct)(activations[:, 1], anchors=anchors)
        assert set(anchors) <= set(beats)


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([1.0, 1.1], "anchors: no path goes through all 2 of them, the closest two 0.1 s apart"),
        ([[1.0, 1], [1.5, 4]], "anchors: no path goes through all 2"),
        ([7.0], "anchors: 7 s; expected a time within the song, 0 to 5.99 s"),
        ([-0.1], r"anchors: \[-0.1\]; expected times in seconds"),
        ([np.nan], r"anchors: \[nan\]; expected times in seconds"),
        (
            np.array([[1.0, 5]]),
            r"anchors: \[\[1.0, 5.0\]\]; expected .* position in the bar, 1 to 4 \(0: any\)",
        ),
        ([[1.0, 1.5]], r"anchors: \[\[1.0, 1.5\]\]; expected"),
        ([[1.0, 1], [1.001, 2]], "anchors: positions 1 and 2 both at 1 s"),
        ([[1.0, 1, 1]], r"anchors: \[\[1.0, 1, 1\]\]; expected times"),
    ],
)
def test_wrong_anchors(anchors: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DBNDownBeatTrackingProcessor([3, 4], fps=100)(_random(8), anchors=anchors)


def test_a_position_chooses_the_meter() -> None:
    activations = _metronome(1200, 50, 3)
    decoder = DBNDownBeatTrackingProcessor([3, 4], fps=100)
    assert decoder.decode(activations).beats_per_bar == 3
    decoded = decoder.decode(activations, anchors=[[2.2, 4]])
    assert decoded.beats_per_bar == 4
    assert decoded.log_probabilities[0] == -np.inf


def test_transition_lambda_by_beat() -> None:
    """A sequence within the sequence: one value for each beat of that bar."""
    decoder = DBNDownBeatTrackingProcessor(
        [3, 4], fps=100, transition_lambda=[[100, None, None], [100, None, None, None]]
    )
    decoded = decoder.decode(_random(9, 2000))
    space = decoder.hmms[[3, 4].index(decoded.beats_per_bar)].transition_model.state_space
    changes = np.nonzero(np.diff(space.state_intervals[decoded.path]))[0] + 1
    assert len(changes) > 0
    assert set(space.state_positions[decoded.path][changes].astype(int)) == {0}


def test_decoded_tempo() -> None:
    activations = np.concatenate([_metronome(1000, 50, 4), _metronome(1000, 40, 4)])
    decoded = DBNDownBeatTrackingProcessor([4], fps=100).decode(activations)
    assert decoded.first_frame == 20
    assert len(decoded.tempo) == len(decoded.path)
    assert abs(decoded.tempo[400] - 120) < 3
    assert abs(decoded.tempo[1500] - 150) < 4
    assert decoded.log_probability == decoded.log_probabilities.max()


def test_models_are_made_once() -> None:
    bar_model.cache_clear()
    beat_model.cache_clear()
    first = DBNDownBeatTrackingProcessor([3, 4], fps=100)
    again = DBNDownBeatTrackingProcessor([3, 4], fps=100, threshold=0.2)
    assert bar_model.cache_info().misses == 2
    assert all(ours is theirs for ours, theirs in zip(first.hmms, again.hmms, strict=True))
    assert DBNDownBeatTrackingProcessor([3, 4], fps=50).hmms[0] is not first.hmms[0]


@pytest.mark.parametrize("first", [0, 1], ids=["numpy's first", "Python's first"])
def test_a_model_is_the_same_whatever_type_of_number_asked_for_it_first(first: int) -> None:
    """Numbers that are equal share a model: of numpy's types as well, which decide a precision."""
    beat_model.cache_clear()
    given = [(np.float64(16), np.float32(60), 60.0, np.longdouble(100)), (16, 60, 60, 100)]
    activations = np.random.default_rng(13).random(50).astype(np.float32)
    names = ("observation_lambda", "min_bpm", "num_tempi", "transition_lambda")
    for values in (given[first], given[1 - first]):
        model = DBNBeatTrackingProcessor(fps=100, **dict(zip(names, values, strict=True))).hmm
        densities = model.observation_model.log_densities(activations)
        expected = np.stack([np.log((np.float32(1) - activations) / np.float32(15)), np.log(activations)], 1)
        np.testing.assert_array_equal(densities, expected)
        assert model.transition_model.state_space.num_intervals == 60
        assert model.chains.log_transitions.dtype == np.float64
    assert beat_model.cache_info().misses == 1


def test_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numpy kernel steps in, with one warning, and is recorded."""
    activations = _random(10, 300)
    expected = DBNDownBeatTrackingProcessor([3, 4], fps=100)(activations)
    exists = table.module_exists
    missing = "allin1_core.dbn._viterbi"
    monkeypatch.setattr(table, "module_exists", lambda name: name != missing and exists(name))
    viterbi_front.choose_kernel.cache_clear()
    viterbi_front._warn_not_compiled.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # as it was asked for
            DBNDownBeatTrackingProcessor([3, 4], fps=100, backend="numpy")
        with pytest.warns(RuntimeWarning, match="not compiled; decoding with numpy") as caught:
            decoder = DBNDownBeatTrackingProcessor([3, 4], fps=100)
        assert len(caught) == 1
        assert decoder.choice.backend == "numpy"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.array_equal(DBNDownBeatTrackingProcessor([3, 4], fps=100)(activations), expected)
        with pytest.raises(backends.BackendError, match="not installed"):
            DBNDownBeatTrackingProcessor([3, 4], fps=100, backend="cython")
    finally:
        viterbi_front.choose_kernel.cache_clear()
        viterbi_front._warn_not_compiled.cache_clear()


def test_load_decoder() -> None:
    activations = _random(11)
    expected = DBNDownBeatTrackingProcessor([3, 4], fps=100)(activations)
    for name in ("auto", "cython", "numpy", "allin1_core.dbn:DBNDownBeatTrackingProcessor"):
        make_decoder, choice = load_decoder(name)
        assert np.array_equal(make_decoder(beats_per_bar=[3, 4], fps=100)(activations), expected)
        assert choice.requested_backend == name
