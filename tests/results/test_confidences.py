"""How sure a result is: asked for, what its numbers are; not asked for, nothing of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import Analyzer, analyze, load_result
from allin1_core.dbn import DBNDownBeatTrackingProcessor
from allin1_core.dbn.metrical import decoder_input
from allin1_core.structure import LABELS, Segment, section_confidences
from allin1_core.timings.recorder import Timings

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("anchors", [None, [(1.23, 2)]])
def test_they_are_those_of_the_decoder_and_of_the_network(
    song: Path, options: dict[str, Any], anchors: list[tuple[float, int]] | None
) -> None:
    timings = Timings()
    result = Analyzer(**options)(
        song, anchors=anchors, include_activations=True, include_confidences=True, timings=timings
    )
    assert result.activations is not None
    assert result.confidences is not None
    activations = decoder_input(result.activations["beat"], result.activations["downbeat"])
    decoder = DBNDownBeatTrackingProcessor([3, 4], threshold=0.0, fps=100)
    expected = np.round(decoder.confidences(activations, result.beats, anchors=anchors), 4)
    assert len(result.beats) >= 3
    assert result.confidences["beats"] == expected[:, 0].tolist()
    assert result.confidences["downbeats"] == expected[np.array(result.beat_positions) == 1, 1].tolist()
    assert len(result.confidences["labels"]) == len(result.segments)
    [line] = [line for line in timings.records if line.stage == "confidences"]
    assert line.parent == "postprocess"
    plain = analyze(song, anchors=anchors, **options)
    assert plain.confidences is None
    assert "confidences" not in plain.to_json()
    fields = json.loads(result.to_json())
    assert fields.pop("confidences") == result.confidences
    assert fields == json.loads(plain.to_json())


def test_of_sections() -> None:
    boundary = np.linspace(0, 0.9, 10, dtype=np.float32)
    label = np.zeros((10, 10), np.float32)
    label[LABELS.index("verse")] = [0.5] * 4 + [0.25] * 6
    label[LABELS.index("chorus"), 4:] = [0.25, 0.5, 0.75, 0.75, 0.5, 0.25]
    segments = [Segment(0.0, 0.04, "verse"), Segment(0.04, 0.1, "chorus")]
    boundaries, labels = section_confidences(segments, boundary, label)
    assert boundaries == [pytest.approx(0.4)]
    assert labels == [0.5, 0.5]


def test_a_result_without_them_is_made_again_where_they_are_asked_for(
    song: Path, small_model: str, options: dict[str, Any], tmp_path: Path, command: Command
) -> None:
    path = tmp_path / "song.json"
    plain = analyze(song, out_dir=tmp_path, **options)
    status, _, _ = command(
        "analyze",
        song,
        "-m",
        small_model,
        "-d",
        "cpu",
        "--spec-backend",
        "numpy",
        "-o",
        tmp_path,
        "--confidences",
    )
    assert status == 0
    made = load_result(path)
    assert made.confidences is not None
    assert (made.beats, made.segments) == (plain.beats, plain.segments)
    stamp = path.stat().st_mtime_ns
    for wanted in (True, False):
        assert (
            analyze(song, out_dir=tmp_path, include_confidences=wanted, **options).to_json() == made.to_json()
        )
    assert path.stat().st_mtime_ns == stamp
