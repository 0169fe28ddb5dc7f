"""Online beat tracking: its state, and what it refuses."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from allin1_core.dbn import DBNBeatTrackingProcessor

_PULSE = np.where(np.arange(500) % 50 == 20, 0.9, 0.02)


@pytest.fixture
def decoder() -> DBNBeatTrackingProcessor:
    return DBNBeatTrackingProcessor(fps=100, online=True)


def test_a_pulse(decoder: DBNBeatTrackingProcessor) -> None:
    beats = decoder(_PULSE)
    assert beats.dtype == np.float64
    assert beats[-3:].tolist() == [3.7, 4.2, 4.7]
    assert decoder.last_beat == 4.7
    assert decoder.tempo == 60 / (4.7 - 4.2)


def test_a_stream_goes_on_and_begins_anew(decoder: DBNBeatTrackingProcessor) -> None:
    whole = decoder.process_online(_PULSE)
    for _ in range(2):
        decoder.reset()
        assert (decoder.tempo, decoder.last_beat) == (0, 0)
        pieces = [decoder.process_forward(value, reset=False) for value in _PULSE.tolist()]
        assert np.concatenate(pieces).tolist() == whole.tolist()
    assert decoder(_PULSE).tolist() == whole.tolist()


@pytest.mark.parametrize("backend", ["cython", "numpy"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("observation_lambda", [16, 7.3, np.float64(7.7)], ids=repr)
def test_one_frame_a_call_rounds_as_all_together(
    observation_lambda: float, dtype: type, backend: str
) -> None:
    activations = np.random.default_rng(1).random(50).astype(dtype)
    decoder = DBNBeatTrackingProcessor(
        fps=100, observation_lambda=observation_lambda, online=True, backend=backend
    )
    decoder(activations)
    expected = decoder._forward.probabilities()
    assert expected.sum() == pytest.approx(1)
    decoder.reset()
    for row in activations[:, np.newaxis]:
        decoder(row, reset=False)
    np.testing.assert_array_equal(decoder._forward.probabilities(), expected)


def test_pieces_and_an_earlier_stream_change_no_bit(decoder: DBNBeatTrackingProcessor) -> None:
    random = np.random.default_rng(2)
    activations = np.concatenate([_PULSE, random.random(700) ** 3])
    beats = decoder(activations).tolist()
    expected = decoder._forward.probabilities()
    for _ in range(3):
        decoder(random.random(300))
        pieces = np.split(activations, np.cumsum(random.choice([0, 1, 2, 63, 400], 8)))
        found = [decoder(piece, reset=number == 0) for number, piece in enumerate(pieces)]
        assert np.concatenate(found).tolist() == beats
        np.testing.assert_array_equal(decoder._forward.probabilities(), expected)


@pytest.mark.parametrize("backend", ["cython", "numpy"])
def test_a_pickled_decoder_goes_on_from_its_place(backend: str) -> None:
    decoder = DBNBeatTrackingProcessor(fps=100, online=True, backend=backend)
    before = decoder(_PULSE[:230]).tolist()
    arrived = pickle.loads(pickle.dumps(decoder))
    after = [one(_PULSE[230:], reset=False).tolist() for one in (decoder, arrived)]
    assert (
        before + after[1]
        == before + after[0]
        == DBNBeatTrackingProcessor(fps=100, online=True)(_PULSE).tolist()
    )
    assert arrived.tempo == decoder.tempo
    np.testing.assert_array_equal(arrived._forward.probabilities(), decoder._forward.probabilities())
    arrived(_PULSE)
    assert decoder.last_beat == 4.7


def test_offline_beside_online(decoder: DBNBeatTrackingProcessor) -> None:
    offline = DBNBeatTrackingProcessor(fps=100)
    expected = [0.2, 0.7, 1.2, 1.7, 2.2, 2.7, 3.2, 3.7, 4.2, 4.7]
    assert offline(_PULSE).tolist() == decoder.process_offline(_PULSE).tolist() == expected
    assert decoder.process_viterbi(_PULSE, anchors=[0.2]).tolist() == expected


def test_anchors_are_for_decoding_offline(decoder: DBNBeatTrackingProcessor) -> None:
    with pytest.raises(ValueError, match="anchors: given to an online decoder; expected None, or a call of"):
        decoder(_PULSE, anchors=[0.2])


def test_only_an_online_decoder_has_a_state() -> None:
    decoder = DBNBeatTrackingProcessor(fps=100)
    for reset in (True, False):
        with pytest.raises(ValueError, match="online: False; expected a decoder made with online=True"):
            decoder.process_online(_PULSE, reset=reset)
    with pytest.raises(ValueError, match="online: False"):
        decoder.reset()


@pytest.mark.parametrize("backend", ["cython", "numpy"])
def test_a_stream_that_is_lost_says_so_once(backend: str) -> None:
    """Exact zeros for longer than the longest beat leave no state."""
    decoder = DBNBeatTrackingProcessor(fps=100, online=True, backend=backend)
    with pytest.warns(RuntimeWarning, match=r"no path through the states .* decoder is reset") as caught:
        found = [decoder(np.zeros(60), reset=False) for _ in range(4)]
    assert len(caught) == 1
    assert [len(beats) > 0 for beats in found] == [False, True, True, True]
    with pytest.warns(RuntimeWarning, match="no path"):
        decoder(np.zeros(200))


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        (1.5, "activations: 1.5 in frame 0"),
        (np.nan, "activations: nan in frame 0"),
        (-0.1, "activations: -0.1 in frame 0"),
        (np.array([0.5, np.nan]), "activations: nan in frame 1"),
        (np.zeros((3, 2)), r"activations: shape \(3, 2\); expected \(num_frames,\)"),
        (np.array(0.5), r"activations: shape \(\); expected"),
        ("0.5", "activations: dtype"),
    ],
)
def test_a_refused_frame_leaves_the_stream_as_it_was(
    activations: Any, message: str, decoder: DBNBeatTrackingProcessor
) -> None:
    expected = decoder(_PULSE)
    found = [decoder(_PULSE[:300])]
    with pytest.raises(ValueError, match=message):
        decoder(activations, reset=False)
    found.append(decoder(_PULSE[300:], reset=False))
    assert np.concatenate(found).tolist() == expected.tolist()
