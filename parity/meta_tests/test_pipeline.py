"""The checks of whole results: the suite's, and the one of the track comparison and the benchmark."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import AnalysisResult
from allin1_core.structure import Segment
from parity import test_pipeline
from parity.agreement import compare
from parity.full import track_agreement
from parity.full.tracks import passed as row_passed
from parity.material import STEMS
from parity.meta_tests.faults import FAULTS
from parity.oracles import pipeline
from parity.oracles.network_golden import OUTPUTS, TRACKS
from parity.oracles.pipeline import Expected, compare_results, difference_in_words, measures
from parity.oracles.tempo import compare_tempo
from parity.reports.records import ParityRecorder

EXPECTED = Expected(
    [0.27, 0.78, 1.29, 1.8, 2.32, 2.82], [4, 1, 2, 3, 4, 1], [(0.0, 0.04, "chorus"), (0.04, 3.0, "verse")]
)
# Eight bars at 117.65 BPM, whose beats are 0.51 s apart.
STEADY = Expected(
    [round(0.27 + 0.51 * beat, 2) for beat in range(32)], [4, 1, 2, 3] * 8, [(0.0, 17.0, "verse")]
)
LISTS = ("beats", "downbeats", "beat_positions")
NUMBERS = {"NaN": math.nan, "infinity": math.inf, "minus infinity": -math.inf, "a text": "1", "nothing": None}


def right(expected: Expected = EXPECTED) -> AnalysisResult:
    """A result that is as it has to be."""
    choice = {"backend": "none", "device": "cpu", "precision": "exact"}
    return AnalysisResult(
        path=Path("song"),
        bpm=118,
        beats=list(expected.beats),
        downbeats=[0.78, 2.82] if expected is EXPECTED else expected.beats[1::4],
        beat_positions=list(expected.positions),
        segments=[Segment(*section) for section in expected.segments],
        tempo=None if expected is EXPECTED else 117.65,
        tempo_spread=None if expected is EXPECTED else 0.0,
        provenance={"stages": {"nn": choice, "spectrogram": choice}},
    )


def assert_seen(wrong: AnalysisResult, name: str, expected: Expected = EXPECTED) -> None:
    """The suite's check must fail and record it, and so must the comparison that rows and benchmarks are made of."""
    record = ParityRecorder()
    test_pipeline.check(right(expected), "song", expected, record)
    with pytest.raises(AssertionError, match=f"song, {name}: "):
        test_pipeline.check(wrong, "song", expected, record)
    assert [entry.passed for entry in record.records] == [True, False]
    agreements = compare_results(wrong, expected)
    assert name in difference_in_words(agreements).split(" and ")
    row = measures(wrong, agreements)
    assert row["passed"] is False
    assert row["boundaries_apart_seconds"] >= 0.015 if name == "boundaries" else row[f"same_{name}"] is False
    good: dict[str, Any] = {"passed": True}
    assert row_passed(
        {
            "spectrogram": [good],
            "network": good,
            "pipeline": measures(right(expected), compare_results(right(expected), expected)),
        }
    )
    assert not row_passed({"spectrogram": [good], "network": good, "pipeline": row})


@pytest.mark.parametrize("index", [0, 1, -1])
@pytest.mark.parametrize("fault", [*NUMBERS, "a frame or a beat more"])
@pytest.mark.parametrize("field", LISTS)
def test_a_fault_of_one_beat_fails(field: str, fault: str, index: int) -> None:
    result = right()
    values = getattr(result, field)
    step = 1 if field == "beat_positions" else 0.01
    values[index] = NUMBERS.get(fault) if fault in NUMBERS else values[index] + step
    assert_seen(result, {"beat_positions": "positions"}.get(field, field))


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_a_network_that_rounds_its_products_may_move_a_beat_by_a_frame(backend: str) -> None:
    def check(**changes: Any) -> None:
        result = dataclasses.replace(right(), **changes)
        for choice in result.provenance["stages"].values():
            choice.update(backend=backend, precision="fast")
        test_pipeline.check(result, "song", EXPECTED, ParityRecorder())

    check(beats=[0.26, *EXPECTED.beats[1:]])
    for wrong in (0.25, 0.29, math.nan):
        with pytest.raises(AssertionError, match="song, beats: at"):
            check(beats=[wrong, *EXPECTED.beats[1:]])
    with pytest.raises(AssertionError, match="song, positions: at"):
        check(beat_positions=[3, *EXPECTED.positions[1:]])
    with pytest.raises(AssertionError, match="song, downbeats: at"):
        check(downbeats=[0.78, 2.84])


@pytest.mark.parametrize("change", ["one missing", "one too many", "none", "others' type"])
@pytest.mark.parametrize("field", LISTS)
def test_another_shape_or_dtype_of_the_beats_fails(field: str, change: str) -> None:
    changes: dict[str, Callable[[list[Any]], list[Any]]] = {
        "one missing": lambda values: values[:-1],
        "one too many": lambda values: [*values, values[-1]],
        "none": lambda values: [],
        "others' type": lambda values: [
            float(value) if field == "beat_positions" else np.float32(value) for value in values
        ],
    }
    result = right()
    setattr(result, field, changes[change](getattr(result, field)))
    assert_seen(result, {"beat_positions": "positions"}.get(field, field))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("bpm", value, EXPECTED) for value in (*NUMBERS.values(), 117, 119, 59, 118.0, 118.4)),
        *(("tempo", value, STEADY) for value in (*NUMBERS.values(), 118, 118.0, 117.62, 117.68)),
        *(("tempo", value, STEADY) for value in (58.82, 235.29, 0.0)),
        *(("tempo_spread", value, STEADY) for value in (*NUMBERS.values(), 0, 0.01, 2.4)),
        # Of too few beats.
        *((name, 117.65, EXPECTED) for name in ("tempo", "tempo_spread")),
    ],
    ids=lambda value: "" if isinstance(value, Expected) else str(value),
)
def test_another_bpm_tempo_or_spread_fails(name: str, value: Any, expected: Expected) -> None:
    assert_seen(dataclasses.replace(right(expected), **{name: value}), name, expected)


@pytest.mark.parametrize("tempo", [*NUMBERS.values(), 45.0, 180.0], ids=str)
def test_another_tempo_of_beats_that_are_not_steady_fails(tempo: Any) -> None:
    """A minute at 90 and one at 120 BPM: more than half and less than double is all that a plain line tells."""
    beats = np.cumsum(np.repeat([0.66, 0.5], [90, 120])).tolist()
    found = compare_tempo(tempo, 15.0, beats)["tempo"]
    assert not found.passed
    for near in (91.0, 105.0, 120.0):
        assert all(agreement.passed for agreement in compare_tempo(near, 14.5, beats).values())


def test_the_tempo_of_beats_on_frames_is_held_to_their_line_from_eight_beats_on() -> None:
    beats = np.round(0.5 + 0.5137 * np.arange(100), 2).tolist()
    for tempo, passed in ((116.80, True), (116.81, True), (116.77, False), (116.83, False)):
        assert compare_tempo(tempo, 0.3, beats)["tempo"].passed is passed
    for number, has_tempo in ((7, False), (8, True)):
        assert compare_tempo(None, None, beats[:number])["tempo"].passed is not has_tempo
        assert compare_tempo(116.8, 0.0, beats[:number])["tempo"].passed is has_tempo
    # One that lies beside it, farther than a fifth of the period: only half and double are told.
    beats[50] += 0.13
    assert compare_tempo(116.0, 0.3, beats)["tempo"].passed


@pytest.mark.parametrize("tempo", [*NUMBERS.values(), 117.6, 117.7], ids=str)
def test_another_tempo_than_the_scores_fails(tempo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_pipeline, "TEMPI", {"song": 117.65})
    monkeypatch.setattr(pipeline, "compare_tempo", lambda *_: {"tempo": compare(np.array(1), np.array(1))})
    record = ParityRecorder()
    test_pipeline.check(right(STEADY), "song", STEADY, record)
    with pytest.raises(AssertionError, match="song, tempo of the score: "):
        test_pipeline.check(dataclasses.replace(right(STEADY), tempo=tempo), "song", STEADY, record)
    assert [entry.passed for entry in record.records] == [True, False]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("fault", [*NUMBERS, "two frames off"])
@pytest.mark.parametrize("field", ["start", "end"])
def test_a_fault_of_a_boundary_fails(field: str, fault: str, index: int) -> None:
    result = right()
    value: Any = NUMBERS[fault] if fault in NUMBERS else getattr(result.segments[index], field) + 0.02
    result.segments[index] = dataclasses.replace(result.segments[index], **{field: value})
    assert_seen(result, "boundaries")


@pytest.mark.parametrize("label", ["intro", "", "no label", None])
def test_another_label_fails(label: Any) -> None:
    result = right()
    result.segments[1] = dataclasses.replace(result.segments[1], label=label)
    assert_seen(result, "labels")


@pytest.mark.parametrize("number", [0, 1, 3])
def test_another_number_of_sections_fails(number: int) -> None:
    result = right()
    result.segments = [*result.segments, result.segments[-1]][:number]
    assert_seen(result, "boundaries")


def test_a_boundary_a_frame_off_is_allowed_and_shown() -> None:
    result = right()
    result.segments[1] = dataclasses.replace(result.segments[1], start=0.05)
    record = ParityRecorder()
    test_pipeline.check(result, "song", EXPECTED, record)
    assert record.records[0].measures["boundaries_apart_seconds"] == pytest.approx(0.01)


def test_other_scores_than_the_published_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        test_pipeline, "read_score", lambda _: (np.array(EXPECTED.beats), np.array([0.78, 2.82]))
    )
    monkeypatch.setattr(test_pipeline, "SCORES", {"song": (1.0, 1.0)})
    record = ParityRecorder()
    test_pipeline.check(right(), "song", EXPECTED, record)
    monkeypatch.setattr(test_pipeline, "SCORES", {"song": (1.0, 0.999)})
    with pytest.raises(AssertionError, match=r"song: .* and .*, published"):
        test_pipeline.check(right(), "song", EXPECTED, record)
    assert [entry.passed for entry in record.records] == [True, False]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_fault_of_a_probability_fails(name: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    golden = {output: random.random((10, 30)[output != "label" :], dtype=np.float32) for output in OUTPUTS}
    monkeypatch.setattr("parity.oracles.network_golden.read_golden", lambda *_: golden)
    result, record = right(), ParityRecorder()
    result.provenance["stages"]["nn"]["backend"] = "fused"
    result.activations = dict(golden)
    test_pipeline.check_probabilities(result, "song", Path(), record)
    result.activations[name] = FAULTS[fault](golden[name])
    with pytest.raises(AssertionError, match=f"{name}: .*a difference of inf"):
        test_pipeline.check_probabilities(result, "song", Path(), record)
    assert [entry.passed for entry in record.records] == [True, False]


def test_downbeats_and_bpm_of_the_goldens(shared: Path) -> None:
    found = {track: pipeline.read_golden(shared, track) for track in TRACKS}
    assert {track: golden.bpm for track, golden in found.items()} == {
        "falcon69": 118,
        "jaxius": 130,
        "boogi_marabi": 154,
        "midnight_snow_run": 120,
        "keep_on_rolling": 103,
    }
    assert found["falcon69"].downbeats == [0.78, 2.82, 4.86]
    assert Expected([], [], []).bpm is Expected([1.0], [1], []).bpm is None
    # 100 and 120 BPM twice each.
    assert Expected([0, 0.6, 1.2, 1.7, 2.2], [1, 2, 3, 1, 2], []).bpm == 120


class _Computed:
    """A spectrogram backend that gives what it is given."""

    def __init__(self, output: np.ndarray) -> None:
        self.output, self.choice = output, self
        self.computed_by = "none"

    def __call__(self, *_: object) -> np.ndarray:
        return self.output


@pytest.mark.parametrize("stem", range(4))
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_spectrogram_fails_a_row_of_the_track_comparison(
    stem: int, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.random.default_rng(0).random((4, 20, 81), dtype=np.float32)
    wrong = FAULTS[fault](expected[stem])
    output = expected.copy()
    if wrong.shape == expected[stem].shape and wrong.dtype == expected.dtype:
        output[stem] = wrong
    else:
        output = FAULTS[fault](expected)
    for given, passes in ((expected, True), (output, False)):
        monkeypatch.setattr(track_agreement, "select", lambda *_, given=given, **__: _Computed(given))
        rows = track_agreement.compare_spectrograms(np.zeros((4, 9000), np.int16), 44100, expected)
        assert rows
        for row in rows:
            assert row["passed"] is passes
            assert row["largest"] == (0 if passes else math.inf)
            assert row["by_stem"][STEMS[stem]] == row["largest"]
