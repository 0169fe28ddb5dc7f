"""The decoder's input, and the tempo."""

from __future__ import annotations

import numpy as np
import pytest

from allin1_core.metrical import Beats, beats_from_decoder, decoder_input, tempo


def test_decoder_input_is_disjoint_and_normalised() -> None:
    beat = np.array([0.8, 0.5, 0.2, 0.0, 1.0], np.float32)
    downbeat = np.array([0.2, 0.5, 0.6, 0.0, 1.0], np.float32)
    activations = decoder_input(beat, downbeat)
    assert activations.dtype == np.float32
    beat_only = np.maximum(1e-8, beat.astype(float) - downbeat)
    neither = ((1.0 - beat) + (1.0 - downbeat)) / 2
    expected = np.stack([beat_only, downbeat], axis=1) / (beat_only + downbeat + neither)[:, None]
    np.testing.assert_allclose(activations, expected, rtol=3e-7)
    assert (activations[:, 0] > 0).all()


def test_decoder_input_is_that_of_torch_to_the_bit() -> None:
    """All-In-One computes it in torch; a decoder that compares log probabilities sees the last bit."""
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    beat, downbeat = random.random((2, 5000), dtype=np.float32)
    b, d = torch.from_numpy(beat), torch.from_numpy(downbeat)
    rows = [torch.maximum(torch.tensor(1e-8), b - d), d, ((1.0 - b) + (1.0 - d)) / 2]
    together = torch.stack(rows, dim=-1)
    together /= together.sum(dim=-1, keepdim=True)
    np.testing.assert_array_equal(decoder_input(beat, downbeat), together.numpy()[:, :2])


@pytest.mark.parametrize(
    ("beats", "expected"),
    [
        ([], None),
        ([1.0], None),
        ([0.0, 0.5], 120),
        ([0.0, 0.5, 1.0, 1.5, 2.1], 120),
        # 60 / 0.58 = 103.4 and 60 / 0.57 = 105.3: as often as each other, so the faster.
        ([0.0, 0.58, 1.15], 105),
    ],
)
def test_tempo_is_the_most_frequent_rounded_rate(beats: list[float], expected: int | None) -> None:
    assert tempo(beats) == expected


def test_beats_of_a_decoder_that_found_none() -> None:
    beats = beats_from_decoder(np.empty((0, 2)))
    assert beats == Beats([], [])
    assert beats.downbeats == []


def test_downbeats_are_the_beats_at_position_one() -> None:
    beats = beats_from_decoder(np.array([[0.1, 4.0], [0.6, 1.0], [1.1, 2.0], [1.6, 1.0]]))
    assert beats.positions == [4, 1, 2, 1]
    assert beats.downbeats == [0.6, 1.6]
