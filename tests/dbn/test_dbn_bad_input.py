"""What the decoder refuses, and what it answers where there is nothing to decode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from allin1_core.dbn import (
    BarStateSpace,
    BarTransitionModel,
    BeatStateSpace,
    DBNBeatTrackingProcessor,
    DBNDownBeatTrackingProcessor,
    HiddenMarkovModel,
    MeterStateSpace,
    OnlineDownBeatTracker,
    RNNDownBeatTrackingObservationModel,
    activations_at_beats,
    load_decoder,
    state_space,
)
from allin1_core.dbn.hidden_markov_model import bar_model
from allin1_core.errors import BackendError, HintError


@pytest.fixture
def decoder() -> DBNDownBeatTrackingProcessor:
    return DBNDownBeatTrackingProcessor([3, 4], fps=100)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.1, 1.0001, -1e-30])
def test_no_probability(value: float, decoder: DBNDownBeatTrackingProcessor) -> None:
    activations = np.full((300, 2), 0.1)
    activations[123, 1] = value
    with pytest.raises(
        ValueError, match=r"activations: .* in frame 123 \(1 such values\); expected probabilities"
    ):
        decoder(activations)
    with pytest.raises(ValueError, match="in frame 123"):
        decoder.hmms[0].viterbi(activations)
    with pytest.raises(ValueError, match="in frame 123"):
        DBNBeatTrackingProcessor(fps=100)(activations[:, 1])


@pytest.mark.parametrize("shape", [(), (0,), (10,), (10, 1), (10, 3), (2, 10, 2)])
def test_wrong_shape(shape: tuple[int, ...], decoder: DBNDownBeatTrackingProcessor) -> None:
    with pytest.raises(ValueError, match=r"activations: shape .*; expected \(num_frames, 2\)"):
        decoder(np.zeros(shape))


def test_wrong_dtype(decoder: DBNDownBeatTrackingProcessor) -> None:
    with pytest.raises(ValueError, match="activations: dtype complex128; expected real numbers"):
        decoder(np.zeros((10, 2), dtype=complex))
    with pytest.raises(ValueError, match="activations: dtype object"):
        decoder(np.zeros((10, 2), dtype=object))
    with pytest.raises(ValueError, match=r"activations: shape \(10, 2\); expected \(num_frames,\)"):
        DBNBeatTrackingProcessor(fps=100)(np.zeros((10, 2)))


def test_lists_are_taken(decoder: DBNDownBeatTrackingProcessor) -> None:
    activations = np.random.default_rng(0).random((200, 2)) / 2
    assert np.array_equal(decoder(activations.tolist()), decoder(activations))


@pytest.mark.parametrize(
    "activations",
    [np.zeros((0, 2)), np.zeros((300, 2)), np.full((300, 2), 0.01), np.eye(1, 600).reshape(300, 2)],
    ids=["no frame", "all zero", "below the threshold", "the first frame alone"],
)
def test_nothing_to_decode(activations: np.ndarray, decoder: DBNDownBeatTrackingProcessor) -> None:
    decoded = decoder.decode(activations)
    assert decoded.beats.shape == (0, 2)
    assert decoded.path.size == decoded.tempo.size == decoded.beats_per_bar == 0
    assert decoded.log_probability == -np.inf
    assert decoder(activations).shape == (0, 2)


@pytest.mark.parametrize("backend", ["cython", "numpy"])
@pytest.mark.parametrize("correct", [True, False])
def test_no_path(backend: str, correct: bool) -> None:
    """Neither beat nor its absence: beat and downbeat 0 is no beat, 1 is a beat, but 0 and 1 in turn is neither."""
    activations = np.tile([[1.0, 0.0], [0.5, 0.5]], (200, 1))
    decoder = DBNDownBeatTrackingProcessor([3, 4], fps=100, correct=correct, backend=backend)
    with pytest.warns(RuntimeWarning, match="no path through the states has more than zero probability"):
        assert decoder(activations).shape == (0, 2)
    with pytest.warns(RuntimeWarning, match="no path"):
        path, log_probability = decoder.hmms[0].viterbi(activations, backend=backend)
    assert path.shape == (0,)
    assert path.dtype == np.uint32
    assert log_probability == -np.inf


def test_viterbi_needs_a_frame(decoder: DBNDownBeatTrackingProcessor) -> None:
    with pytest.raises(ValueError, match="observations: no frames; expected at least one"):
        decoder.hmms[0].viterbi(np.zeros((0, 2)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"fps": None}, "fps: None; expected a positive number of frames per second"),
        ({"fps": 0}, "fps: 0; expected"),
        ({"fps": np.nan}, "fps: nan; expected"),
        ({"beats_per_bar": []}, "beats_per_bar: empty"),
        ({"beats_per_bar": [3, 0]}, "beats_per_bar: .*0.*; expected a whole number of at least 1"),
        ({"beats_per_bar": [3.5]}, "beats_per_bar: .*3.5.*; expected a whole number"),
        ({"fps": np.inf}, "fps: inf; expected a positive number of frames per second"),
        ({"min_bpm": 0}, "min_bpm: 0; expected a positive number"),
        ({"min_bpm": 200, "max_bpm": 100}, "min_interval: 60 frames is more than max_interval, 30"),
        ({"max_bpm": 20000}, "min_interval: 0.3 frames; expected at least one frame"),
        ({"min_bpm": [50, 60, 70]}, "min_bpm: 3 values; expected one, or one for each of the 2"),
        ({"transition_lambda": [1, 2, 3]}, "transition_lambda: 3 values; expected one"),
        (
            {"transition_lambda": [[1, 2], [1, 2, 3, 4]]},
            "transition_lambda: 2 values; expected one, or .* 3 beats",
        ),
        ({"transition_lambda": -1}, "transition_lambda: -1; expected a number of at least 0"),
        ({"num_tempi": 0}, "num_tempi: 0; expected a whole number"),
        ({"num_tempi": [[60], 60]}, r"num_tempi: \[60\]; expected a whole number"),
        ({"transition_lambda": {}}, "transition_lambda: {}; expected a number of at least 0"),
        (
            {"transition_lambda": [[100, [1], 1], 100]},
            r"transition_lambda: \[1\]; expected a number of at least 0",
        ),
        ({"observation_lambda": 0}, "observation_lambda: 0; expected"),
        (
            {"observation_lambda": np.complex128(16)},
            r"observation_lambda: .*16\+0j.*; expected a number of parts",
        ),
        ({"transition_lambda": np.complex128(3)}, r"transition_lambda: .*3\+0j.*; expected a number"),
        ({"threshold": np.complex128(0.1)}, r"threshold: .*0\.1\+0j.*; expected a probability"),
        ({"threshold": 2}, "threshold: 2; expected a probability"),
        ({"num_threads": 0}, "num_threads: 0; expected a whole number"),
        ({"meter_weights": [1]}, r"meter_weights: \[1\]; expected one weight of at least 0"),
        ({"meter_weights": [0, 0]}, "meter_weights"),
        ({"meter_weights": [1, -1]}, "meter_weights"),
        ({"meter_weights": [1, np.nan]}, "meter_weights"),
        ({"meter_weights": [1e308, 1e308]}, r"meter_weights: \[1e\+308, 1e\+308\]; expected one weight"),
        ({"transition_lambda": 10**309}, "transition_lambda: 10{309}; expected a number of at least 0"),
        ({"fps": 10**309}, "fps: 10{309}; expected a positive number"),
        ({"meter_change_prob": np.nan}, "meter_change_prob: nan; expected a probability from 0 to below 1"),
        ({"meter_change_prob": 1}, "meter_change_prob: 1; expected a probability from 0 to below 1"),
        (
            {"meter_change_prob": 0.1, "min_bpm": [50, 60]},
            "num_tempi: one for each bar length; expected the same",
        ),
        (
            {"meter_change_prob": 0.1, "beats_per_bar": 4},
            r"0.1 with beats_per_bar \[4\]; expected bar lengths to",
        ),
    ],
)
def test_wrong_parameter(parameters: dict[str, Any], message: str) -> None:
    keywords: dict[str, Any] = {"beats_per_bar": [3, 4], "fps": 100, **parameters}
    with pytest.raises(ValueError, match=message):
        DBNDownBeatTrackingProcessor(**keywords)


def test_wrong_backend() -> None:
    with pytest.raises(BackendError, match="decoder backend 'fortran': unknown"):
        DBNDownBeatTrackingProcessor([4], fps=100, backend="fortran")
    with pytest.raises(BackendError, match="a decoder of its own, not a Viterbi kernel"):
        DBNDownBeatTrackingProcessor([4], fps=100, backend="allin1_core.dbn:DBNDownBeatTrackingProcessor")
    with pytest.raises(BackendError, match="has no attribute 'nothing'"):
        load_decoder("allin1_core.dbn:nothing")


def test_state_space_limits() -> None:
    with pytest.raises(ValueError, match=r"min_interval: 0\.4 frames"):
        BeatStateSpace(0.4, 10)
    with pytest.raises(ValueError, match="num_beats: 0"):
        BarStateSpace(0, 10, 20)
    with pytest.raises(ValueError, match="max_interval: nan"):
        BeatStateSpace(10, np.nan)


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (lambda: DBNBeatTrackingProcessor(fps=44100), r"1\.08e\+09"),  # of samples, not of frames
        (lambda: DBNBeatTrackingProcessor(fps=1e12), r"1\.09e\+12"),
        (lambda: DBNDownBeatTrackingProcessor([3, 10**6], fps=100), r"3\.72e\+09"),
    ],
)
def test_states_that_no_memory_holds(make: Callable[[], Any], number: str) -> None:
    with pytest.raises(ValueError, match=f"^{number} states; expected at most 67108864. Lower fps"):
        make()


def test_states_of_all_bar_lengths_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_space, "_MOST_STATES", 1000)  # 495 and 660
    with pytest.raises(ValueError, match=r"^1.16e\+03 states; expected at most 1000. Lower fps"):
        MeterStateSpace((3, 4), 10, 20)


def test_intervals_that_the_logarithmic_grid_does_not_reach() -> None:
    """Of 14.5 to 25.5 frames, 14 to 26 rounded, it has only 15 to 25: of twelve it would be refined for ever."""
    assert BeatStateSpace(14.5, 25.5, 12).intervals.tolist() == [*range(14, 27)]
    assert BeatStateSpace(14.5, 25.5, 11).intervals.tolist() == [*range(15, 26)]


@pytest.mark.filterwarnings("error")
def test_times_beyond_every_frame(decoder: DBNDownBeatTrackingProcessor) -> None:
    activations = np.full((300, 2), 0.1)
    with pytest.raises(ValueError, match=r"beats: 0 to 1e\+300 s; expected times within the 300 frames"):
        activations_at_beats([0, 1e300], activations[:, 1])
    with pytest.raises(HintError, match=r"anchors: \[1e\+308\]; expected times in seconds"):
        decoder(activations, anchors=[1e308])
    with pytest.raises(ValueError, match=r"delay: 1e\+308; expected seconds, from 0"):
        OnlineDownBeatTracker(decoder, 1e308)
    assert decoder.confidences(activations, [1e300, 1e308]).tolist() == [[0, 0], [0, 0]]
    assert activations_at_beats([0], [0.5], fps=1e300).tolist() == [[0, 0.5]]


def test_models_must_fit() -> None:
    small, large = BarStateSpace(3, 10, 20), BarStateSpace(4, 10, 20)
    transitions = BarTransitionModel(small, 100)
    with pytest.raises(ValueError, match="observation_model: 660 states, but transition_model has 495"):
        HiddenMarkovModel(transitions, RNNDownBeatTrackingObservationModel(large, 16))
    negative = np.ones(495) / 495 + np.eye(495)[0] - np.eye(495)[1]
    for wrong in (np.ones(495), np.ones(494) / 494, negative, np.ones(495) * np.nan):
        with pytest.raises(ValueError, match="initial_distribution: shape"):
            HiddenMarkovModel(transitions, RNNDownBeatTrackingObservationModel(small, 16), wrong)
    with pytest.raises(ValueError, match="transition_lambda: 2 values"):
        BarTransitionModel(small, [100, None])


def test_models_are_read_only() -> None:
    model = bar_model(3, 10.0, 20.0, None, 100, 16)
    for array in (model.chains.origins, model.log_initial, model.transition_model.states):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
