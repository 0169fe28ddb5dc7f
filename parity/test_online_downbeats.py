"""Online downbeats: with a delay of the whole song those of the decoder, with any those of decoding all so far."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from allin1_core.dbn._viterbi import viterbi as compiled

from allin1_core.dbn import (
    DBNDownBeatTrackingProcessor,
    OnlineDownBeatTracker,
    online_downbeats,
    viterbi_numpy,
)
from allin1_core.dbn.viterbi import viterbi
from allin1_core.simd.instruction_sets import instruction_sets
from parity.inputs.activations import FPS, from_song, regular, steady
from parity.inputs.annotations import read_annotations
from parity.inputs.decoder import songs

_CHANGES: dict[str, Any] = {"beats_per_bar": [3, 4], "meter_change_prob": 1e-3}
_PARAMETERS: dict[str, dict[str, Any]] = {
    "bars of one length": {"beats_per_bar": [3, 4], "meter_weights": [1, 2]},
    "bars that change": _CHANGES,
    "not corrected": {"beats_per_bar": 4, "correct": False},
}


def _decoder(name: str) -> DBNDownBeatTrackingProcessor:
    return DBNDownBeatTrackingProcessor(**_PARAMETERS[name], fps=FPS, threshold=0)


def _pieces(activations: np.ndarray, seed: int) -> list[np.ndarray]:
    """Of 0 to 80 frames."""
    sizes = np.random.default_rng(seed).integers(0, 81, len(activations) // 40)
    return np.split(activations, np.minimum(np.cumsum(sizes), len(activations)))


@pytest.mark.parametrize("name", _PARAMETERS)
@pytest.mark.parametrize("song", songs()[::8])
def test_with_a_delay_of_the_whole_song_they_are_the_decoders(song: str, shared: Path, name: str) -> None:
    activations = from_song(read_annotations(shared)[song])
    decoder = _decoder(name)
    expected = decoder(activations)
    online = OnlineDownBeatTracker(decoder, delay=len(activations) / FPS)
    assert sum(len(online(piece)) for piece in _pieces(activations, 0)) == 0
    np.testing.assert_array_equal(online.finish(), expected)
    assert len(expected) > 100
    # After the end of one stream another begins.
    for piece in _pieces(activations[:1000], 1):
        assert len(online(piece)) == 0
    np.testing.assert_array_equal(online.finish(), decoder(activations[:1000]))


@pytest.mark.parametrize("delay", [0, 0.5, 2])
@pytest.mark.parametrize("name", _PARAMETERS)
def test_each_beat_is_that_of_the_best_path_so_far(
    name: str, delay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder is given all frames so far again and again; online, frames are left behind."""
    monkeypatch.setattr(online_downbeats, "_FRAMES_LEFT_BEHIND", 30)
    random = np.random.default_rng(3)
    activations = steady(8) * random.uniform(0.05, 0.6, (800, 1)).astype(np.float32)
    decoder = _decoder(name)
    online = OnlineDownBeatTracker(decoder, delay)
    last, seen, found, expected = -1.0, 0, [], []
    for piece in _pieces(activations, 2):
        seen += len(piece)
        found += online(piece).tolist()
        beats = decoder(activations[:seen]) if seen else np.empty((0, 2))
        settled = (seen - round(delay * FPS)) / FPS
        new = beats[(beats[:, 0] < settled) & (beats[:, 0] >= last + 60 / 215)] if len(piece) else beats[:0]
        last = new[-1, 0] if len(new) else last
        expected += new.tolist()
    assert found == expected
    assert len(found) >= 8


@pytest.mark.parametrize(("max_bpm", "interval"), [(200, 30), (213, 28), (100, 60)])
def test_no_beat_of_the_fastest_tempo_is_left_out(max_bpm: float, interval: int) -> None:
    decoder = DBNDownBeatTrackingProcessor(4, fps=FPS, max_bpm=max_bpm, threshold=0)
    activations = regular(1200, interval, 4)
    online = OnlineDownBeatTracker(decoder, delay=2)
    found = np.concatenate([*map(online, np.split(activations, range(10, 1200, 10))), online.finish()])
    np.testing.assert_array_equal(found, decoder(activations))
    assert len(found) == pytest.approx(1200 / interval, abs=1)


@functools.cache
def _whole() -> tuple[Any, np.ndarray, np.ndarray, float]:
    [hmm] = DBNDownBeatTrackingProcessor(**_CHANGES, fps=FPS).hmms
    activations = np.random.default_rng(5).random((900, 2)) ** 4 * 0.49
    return hmm, activations, *hmm.viterbi(activations)


@pytest.mark.parametrize("frames", [1, 27, 300])
@pytest.mark.parametrize("instruction_set", [*instruction_sets(), "numpy"])
def test_going_on_is_decoding_all_at_once(instruction_set: str, frames: int) -> None:
    """To the bit: the path of the second part, and its log probability, which is that of the whole."""
    hmm, activations, path, log_probability = _whole()
    kernel: Any = functools.partial(compiled, instruction_set=instruction_set)
    kernel = viterbi_numpy.viterbi if instruction_set == "numpy" else kernel
    log_densities = hmm.observation_model.log_densities(activations)
    last = np.empty(len(hmm.log_initial))
    viterbi(kernel, hmm.chains, log_densities[:frames], hmm.log_initial, last=last)
    found, found_log = viterbi(kernel, hmm.chains, log_densities[frames:], last)
    np.testing.assert_array_equal(found, path[frames:])
    assert found_log == log_probability


def test_a_stream_may_begin_with_whole_numbers() -> None:
    activations = regular(600, 50, 4)
    beats = []
    for first in ([[0, 0]], [[0.0, 0.0]]):
        online = OnlineDownBeatTracker(_decoder("bars that change"), 1.0)
        found = [online(first), *map(online, np.split(activations, 6)), online.finish()]
        beats.append(np.concatenate(found))
    np.testing.assert_array_equal(beats[0], beats[1])
    assert len(beats[0]) > 5


def test_bad_input() -> None:
    decoder = _decoder("not corrected")
    for delay in (-1, np.nan, np.inf, None):
        with pytest.raises(ValueError, match=r"delay: .*; expected seconds, from 0"):
            OnlineDownBeatTracker(decoder, delay)  # type: ignore[arg-type]
    online = OnlineDownBeatTracker(decoder, 0.1)
    with pytest.raises(ValueError, match="activations: nan in frame 1"):
        online(np.array([[0.1, 0.1], [0.1, np.nan]]))
    assert online.finish().shape == (0, 2)
    online(np.zeros((5, 2)))
    with warnings.catch_warnings(action="error"):
        assert online.finish().shape == (0, 2)
    with pytest.warns(RuntimeWarning, match="There are no more beats in this stream"):
        online(np.zeros((300, 2)))
