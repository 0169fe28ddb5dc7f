"""The check of the decoder: it has to see a missing beat, a single frame, the last bit of a log probability."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest

from allin1_core.dbn import DBNDownBeatTrackingProcessor
from parity import test_decoder
from parity.decoder_agreement import (
    DecoderAgreement,
    Paths,
    against_annotations,
    compare_decodings,
    decode_all,
    f_measure,
)
from parity.inputs.activations import regular
from parity.inputs.decoder import Case
from parity.meta_tests.faults import FAULTS, VALUE_FAULTS
from parity.oracles import madmom_dbn
from parity.reports.records import ParityRecorder

_ACTIVATIONS = regular(1200, 50, 4)


@functools.cache
def _decoded() -> tuple[np.ndarray, Paths]:
    return decode_all(DBNDownBeatTrackingProcessor([3, 4], fps=100), _ACTIVATIONS)


def _decode() -> tuple[np.ndarray, Paths]:
    beats, paths = _decoded()
    return beats.copy(), [(path.copy(), log) for path, log in paths]


def _against_itself(change: Any) -> DecoderAgreement:
    beats, paths = _decode()
    changed_beats, changed_paths = change(*_decode())
    return compare_decodings(changed_paths, changed_beats, paths, beats)


def test_itself() -> None:
    agreement = _against_itself(lambda beats, paths: (beats, paths))
    assert agreement.identical
    assert agreement.num_beats == agreement.beats_matched == 24
    assert agreement.num_frames == 2 * (1200 - 25 - 25 + 1)
    assert agreement.f_measure == 1


def _another_position(beats: np.ndarray, paths: Paths) -> Any:
    beats[4, 1] = 2 if beats[4, 1] != 2 else 3
    return beats, paths


def _another_state(beats: np.ndarray, paths: Paths) -> Any:
    paths[1][0][500] += 1
    return beats, paths


@pytest.mark.parametrize(
    ("change", "measures"),
    [
        (
            lambda beats, paths: (np.delete(beats, 7, axis=0), paths),
            {"beats_matched": 23, "f_measure": 46 / 47},
        ),
        (lambda beats, paths: (np.insert(beats, 3, [1.6, 2], axis=0), paths), {"beats_matched": 24}),
        (_another_position, {"beats_matched": 23, "f_measure": 1}),
        (_another_state, {"frames_different": 1, "beats_matched": 24}),
        (
            lambda beats, paths: (beats, [(paths[0][0][:0], -np.inf), paths[1]]),
            {"log_probability_difference": np.inf, "frames_different": 1151},
        ),
    ],
    ids=["missing beat", "extra beat", "another position", "another state", "no path"],
)
def test_what_differs_is_counted(change: Any, measures: dict[str, Any]) -> None:
    agreement = _against_itself(change)
    assert not agreement.identical
    assert {name: getattr(agreement, name) for name in measures} == pytest.approx(measures)


def test_last_bit_of_the_log_probability() -> None:
    def change(beats: np.ndarray, paths: Paths) -> Any:
        path, log = paths[0]
        return beats, [(path, float(np.nextafter(log, 0))), paths[1]]

    agreement = _against_itself(change)
    assert not agreement.identical
    assert 0 < agreement.log_probability_difference < 1e-10


def test_a_missing_model_is_no_agreement() -> None:
    with pytest.raises(AssertionError):
        _against_itself(lambda beats, paths: (beats, paths[:1]))


class _Found:
    """A decoder that finds what it is given."""

    def __init__(self, beats: np.ndarray, paths: Paths) -> None:
        self.found = beats, paths

    def decode_all(self, activations: np.ndarray) -> tuple[np.ndarray, Paths]:
        return self.found


def _measures_of_failure(beats: np.ndarray, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The suite's test of the decoder has to fail, with another decoding beside ours in the place of madmom's."""
    record = ParityRecorder()
    case = Case("metronome", "synthetic", lambda: _ACTIVATIONS, {}, True)
    monkeypatch.setattr(test_decoder, "_oracle", lambda _: _decode())
    monkeypatch.setattr(test_decoder, "load_decoder", lambda _: (lambda **_: _Found(*_decode()), None))
    test_decoder.test_decoder("cython", case, record)
    monkeypatch.setattr(test_decoder, "load_decoder", lambda _: (lambda **_: _Found(beats, paths), None))
    with pytest.raises(AssertionError, match=r"(path [01]|log probability [01]|beats): (found|at) "):
        test_decoder.test_decoder("cython", case, record)
    assert [entry.passed for entry in record.records] == [True, False]
    return record.records[1].measures


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_path_fails(fault: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    beats, paths = _decode()
    paths[index] = (FAULTS[fault](paths[index][0]), paths[index][1])
    measures = _measures_of_failure(beats, paths, monkeypatch)
    assert not measures["identical_path"]
    assert measures["frames_different"] >= 1
    assert measures["identical_beats"]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.float32(-1), None], ids=str)
def test_a_fault_of_a_log_probability_fails(value: Any, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    beats, paths = _decode()
    paths[index] = (paths[index][0], value)
    measures = _measures_of_failure(beats, paths, monkeypatch)
    assert measures["log_probability_difference"] == np.inf
    assert measures["identical_path"]


@pytest.mark.parametrize(
    ("column", "fault"),
    [
        *(("both", fault) for fault in FAULTS),
        *itertools.product(("times", "positions"), VALUE_FAULTS),
    ],
)
def test_a_fault_of_the_beats_fails(column: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    beats, paths = _decode()
    if column == "both":
        beats = FAULTS[fault](beats)
    else:
        index = ("times", "positions").index(column)
        beats[:, index] = FAULTS[fault](beats[:, index])
    measures = _measures_of_failure(beats, paths, monkeypatch)
    assert not measures["identical_beats"]
    assert measures["identical_path"]
    assert 0 <= measures["f_measure"] <= 1


def test_no_path_on_both_sides_agrees_and_a_log_probability_that_is_no_number_does_not() -> None:
    beats, paths = _decode()
    for log, agrees in ((-np.inf, True), (np.nan, False), (np.inf, False)):
        both = [(path, log) for path, _ in paths]
        assert compare_decodings(both, beats, both, beats).identical is agrees


def test_scores_against_annotations() -> None:
    """Within 70 ms, and from five seconds on."""
    times = np.arange(0.5, 20.5, 0.5)
    exact = np.column_stack([times, np.arange(len(times)) % 4 + 1])

    def scores(beats: np.ndarray) -> list[float]:
        found = against_annotations(times, times[::4], beats)
        return [found[name] for name in ("f_measure", "cmlt", "amlt", "downbeat_f_measure")]

    assert scores(exact) == [1, 1, 1, 1]
    assert scores(exact + np.where(times < 4.5, 0.2, 0)[:, None] * [1, 0]) == [1, 1, 1, 1]
    assert scores(exact + np.array([0.069, 0])) == [1, 1, 1, 1]
    assert scores(exact + np.array([0.071, 0]))[::3] == [0, 0]
    assert scores(np.column_stack([times, np.roll(exact[:, 1], 1)])) == [1, 1, 1, 0]
    assert scores(exact[1::2]) == pytest.approx([2 * 16 / (31 + 16), 0, 1, 0])


@pytest.mark.parametrize(
    ("reference", "estimate", "expected"),
    [
        ([], [], 1),
        ([1], [], 0),
        ([], [1], 0),
        ([1, 2], [1, 1, 2], 4 / 5),
        ([1, 2], [2, 1], 0),
        ([1, 2], [1, np.nan], 0),
        ([1, np.inf], [1, np.inf], 0),
        ([[1, 2]], [[1, 2]], 0),
    ],
)
def test_the_f_measure_of_nothing_and_of_what_is_no_times(
    reference: list[Any], estimate: list[Any], expected: float
) -> None:
    assert f_measure(np.array(reference, float), np.array(estimate, float)) == pytest.approx(expected)


def test_madmom_in_processes_decodes_the_same_and_leaves_none_behind() -> None:
    activations, parameters = regular(600, 48, 4), {"beats_per_bar": [3, 4], "fps": 100}
    with madmom_dbn.decoder_in_processes(2, **parameters) as decoder:
        processes = decoder.processor.map.__self__._pool
        assert len(processes) == 2
        np.testing.assert_array_equal(
            decoder(activations), madmom_dbn.make_decoder(**parameters)(activations)
        )
    for process in processes:
        process.join(20)
    assert not any(process.is_alive() for process in processes)
