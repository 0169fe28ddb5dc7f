"""The comparison itself: it has to see a missing beat, a single frame, the last bit of a log probability."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from allin1_core.dbn import DBNDownBeatTrackingProcessor
from parity.activations import regular
from parity.decoder_agreement import Agreement, Paths, compare, decode_all

_ACTIVATIONS = regular(1200, 50, 4)


def _decode() -> tuple[np.ndarray, Paths]:
    return decode_all(DBNDownBeatTrackingProcessor([3, 4], fps=100), _ACTIVATIONS)


def _against_itself(change: Any) -> Agreement:
    beats, paths = _decode()
    changed_beats, changed_paths = change(beats.copy(), [(path.copy(), log) for path, log in paths])
    return compare(changed_paths, changed_beats, paths, beats)


def test_itself() -> None:
    agreement = _against_itself(lambda beats, paths: (beats, paths))
    assert agreement.identical
    assert agreement.num_beats == agreement.beats_matched == 24
    assert agreement.num_frames == 2 * (1200 - 25 - 25 + 1)
    assert agreement.f_measure == 1


def test_missing_beat() -> None:
    agreement = _against_itself(lambda beats, paths: (np.delete(beats, 7, axis=0), paths))
    assert not agreement.identical
    assert agreement.beats_matched == agreement.num_beats - 1
    assert agreement.f_measure == pytest.approx(46 / 47)


def test_extra_beat() -> None:
    agreement = _against_itself(lambda beats, paths: (np.insert(beats, 3, [1.6, 2], axis=0), paths))
    assert not agreement.identical
    assert agreement.beats_matched == agreement.num_beats


def test_wrong_position() -> None:
    def change(beats: np.ndarray, paths: Paths) -> Any:
        beats[4, 1] = 2 if beats[4, 1] != 2 else 3
        return beats, paths

    agreement = _against_itself(change)
    assert not agreement.identical
    assert agreement.beats_matched == agreement.num_beats - 1
    assert agreement.f_measure == 1


def test_one_frame_of_the_path() -> None:
    def change(beats: np.ndarray, paths: Paths) -> Any:
        paths[1][0][500] += 1
        return beats, paths

    agreement = _against_itself(change)
    assert not agreement.identical
    assert agreement.frames_different == 1


def test_last_bit_of_the_log_probability() -> None:
    def change(beats: np.ndarray, paths: Paths) -> Any:
        path, log = paths[0]
        return beats, [(path, float(np.nextafter(log, 0))), paths[1]]

    agreement = _against_itself(change)
    assert not agreement.identical
    assert 0 < agreement.log_probability_difference < 1e-10


def test_no_path() -> None:
    agreement = _against_itself(lambda beats, paths: (beats, [(paths[0][0][:0], -np.inf), paths[1]]))
    assert not agreement.identical
    assert agreement.frames_different == len(_decode()[1][0][0])
    assert agreement.log_probability_difference == np.inf


def test_a_missing_model_is_no_agreement() -> None:
    with pytest.raises(AssertionError):
        _against_itself(lambda beats, paths: (beats, paths[:1]))
