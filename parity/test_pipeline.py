"""The whole pipeline, from the shared stems to beats and sections, against the goldens and the scores."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import mir_eval
import numpy as np
import pytest

from allin1_core import AnalysisResult, Analyzer, load_result
from allin1_core.cli import main
from allin1_core.timings import read_timings
from bench.pipeline_scores import read_score
from parity.oracles.network_golden import ORACLE, SHORT_TRACKS, TRACKS
from parity.records import ParityRecord, ParityRecorder

# F-measures of beats and downbeats against the score that the recorded results reach; the model hears the waltz
# boogi_marabi in four.
SCORES = {
    "keep_on_rolling": (0.997, 1.000),
    "midnight_snow_run": (0.983, 0.987),
    "boogi_marabi": (0.810, 0.243),
}
# A section may start or end a frame beside the recorded one, where two neighbours are all but equally probable.
_FRAME = 0.01


@dataclasses.dataclass(frozen=True)
class Implementation:
    """Which backends run; the other stages follow by themselves."""

    nn_backend: str
    spec_backend: str


# MLX and plain torch take minutes for a long track on a CPU; the default takes seconds.
_SLOW = (Implementation("torch", "torch"), Implementation("mlx", "mlx"))


@functools.cache
def _analyzer(implementation: Implementation, weights_dir: Path) -> Analyzer:
    return Analyzer(
        nn_backend=implementation.nn_backend,
        spec_backend=implementation.spec_backend,
        weights_dir=weights_dir,
    )


def read_golden_result(shared: Path, track: str) -> dict[str, Any]:
    """``beats``, ``beat_positions`` and ``segments`` (start, end, label) as recorded."""
    golden: dict[str, Any] = json.loads((shared / "golden" / f"{track}.json").read_text(encoding="utf-8"))
    return golden


def check(result: AnalysisResult, track: str, shared: Path, record_parity: ParityRecorder) -> None:
    """Record how a result compares with the golden and with the score, then hold it to both."""
    golden = read_golden_result(shared, track)
    segments = [(segment.start, segment.end, segment.label) for segment in result.segments]
    expected = [tuple(segment) for segment in golden["segments"]]
    boundary_difference = (
        max(max(abs(a[0] - b[0]), abs(a[1] - b[1])) for a, b in zip(segments, expected, strict=True))
        if len(segments) == len(expected)
        else float("inf")
    )
    same_beats = result.beats == golden["beats"]
    same_positions = result.beat_positions == golden["beat_positions"]
    same_labels = [segment[2] for segment in segments] == [segment[2] for segment in expected]
    # Half a frame of slack for the representation of a time, none for a second frame.
    same_segments = same_labels and boundary_difference < 1.5 * _FRAME
    measures: dict[str, Any] = {
        "beats": len(result.beats),
        "same_beats": same_beats,
        "same_positions": same_positions,
        "segments": len(segments),
        "same_labels": same_labels,
        "boundary_difference_frames": round(boundary_difference / _FRAME, 3),
        "bpm": result.bpm,
    }
    scores_as_published = True
    if track in SCORES:
        beats, downbeats = read_score(track)
        measures["f_beats"] = float(mir_eval.beat.f_measure(beats, np.array(result.beats)))
        measures["f_downbeats"] = float(mir_eval.beat.f_measure(downbeats, np.array(result.downbeats)))
        found = round(measures["f_beats"], 3), round(measures["f_downbeats"], 3)
        scores_as_published = found == SCORES[track]
    choice = result.provenance["stages"]["nn"]
    spectrogram = result.provenance["stages"]["spectrogram"]
    record_parity(
        ParityRecord(
            stage="pipeline",
            case=track,
            oracle=ORACLE,
            backend=f"{spectrogram['backend']} + {choice['backend']}",
            device=choice["device"],
            precision=choice["precision"],
            bound="same beats, positions and labels, boundaries within a frame",
            passed=same_beats and same_positions and same_segments and scores_as_published,
            measures=measures,
        )
    )
    assert result.beats == golden["beats"]
    assert result.beat_positions == golden["beat_positions"]
    assert same_segments, (segments, expected)
    assert scores_as_published, measures


def test_one_command_gives_the_goldens_for_all_tracks(
    shared: Path, tmp_path: Path, record_parity: ParityRecorder
) -> None:
    arguments = ["analyze", *(str(shared / "audio" / track) for track in TRACKS)]
    arguments += ["--weights-dir", str(shared / "weights"), "--out-dir", str(tmp_path / "out"), "--quiet"]
    assert main([*arguments, "--timings", str(tmp_path / "t.jsonl")]) == 0
    for track in TRACKS:
        check(load_result(tmp_path / "out" / f"{track}.json"), track, shared, record_parity)
    assert {line.track for line in read_timings(tmp_path / "t.jsonl") if line.track} == set(TRACKS)
    # A second run makes the same files, to the byte.
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    short = [str(shared / "audio" / track) for track in SHORT_TRACKS]
    options = ["--weights-dir", str(shared / "weights"), "--out-dir", str(tmp_path / "again"), "--quiet"]
    assert main(["analyze", *short, *options]) == 0
    for track in SHORT_TRACKS:
        assert (tmp_path / "again" / f"{track}.json").read_bytes() == first[f"{track}.json"]


@pytest.mark.parametrize(
    ("implementation", "track"),
    [
        pytest.param(
            implementation,
            track,
            id=f"{track}-{implementation.nn_backend}",
            marks=() if track == "falcon69" else pytest.mark.full,
        )
        for implementation in _SLOW
        for track in TRACKS
    ],
)
def test_other_backends_give_the_goldens(
    shared: Path, track: str, implementation: Implementation, record_parity: ParityRecorder
) -> None:
    analyzer = _analyzer(implementation, shared / "weights")
    check(analyzer(shared / "audio" / track), track, shared, record_parity)


def test_the_check_fails_on_a_beat_that_is_one_frame_off(shared: Path) -> None:
    golden = read_golden_result(shared, "falcon69")
    from allin1_core.structure import Segment

    choice = {"backend": "none", "device": "cpu", "precision": "exact"}
    result = AnalysisResult(
        path=shared / "audio" / "falcon69",
        bpm=118,
        beats=list(golden["beats"]),
        downbeats=[],
        beat_positions=list(golden["beat_positions"]),
        segments=[Segment(*segment) for segment in golden["segments"]],
        provenance={"stages": {"nn": choice, "spectrogram": choice}},
    )
    recorder = ParityRecorder()
    check(result, "falcon69", shared, recorder)
    result.beats[3] = round(result.beats[3] + 0.01, 2)
    with pytest.raises(AssertionError):
        check(result, "falcon69", shared, recorder)
    result.beats[3] = golden["beats"][3]
    result.segments[1] = dataclasses.replace(result.segments[1], start=0.06)
    with pytest.raises(AssertionError):
        check(result, "falcon69", shared, recorder)
    assert [record.passed for record in recorder.records] == [True, False, False]
