"""What the benchmarks call agreement: each check that stands beside a time can fail, and says what differs."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import AnalysisResult
from allin1_core.structure import Segment
from bench.bench_decoder import _differences, _models_differ
from bench.measure.memory import peak_memory_and_seconds
from parity.oracles.pipeline import Expected, compare_results, difference_in_words, passed

SEGMENTS = [Segment(0.0, 10.0, "intro"), Segment(10.0, 20.0, "verse")]
EXPECTED = Expected([0.5, 1.0, 1.5], [1, 2, 3], [(0.0, 10.0, "intro"), (10.0, 20.0, "verse")])


def result(expected: Expected = EXPECTED, segments: list[Segment] | None = None) -> AnalysisResult:
    return AnalysisResult(
        path=Path("song"),
        bpm=120,
        beats=expected.beats,
        downbeats=expected.downbeats,
        beat_positions=expected.positions,
        segments=SEGMENTS if segments is None else segments,
        provenance={},
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (result(), ""),
        (result(Expected([0.5, 1.0, 1.51], [1, 2, 3], [])), "beats"),
        (result(Expected([0.5, 1.0, 1.5], [1, 2, 1], [])), "positions and downbeats"),
        (dataclasses.replace(result(), bpm=121), "bpm"),
        (
            result(segments=[SEGMENTS[0], dataclasses.replace(SEGMENTS[1], label="chorus")]),
            "labels",
        ),
        (
            result(segments=[SEGMENTS[0], dataclasses.replace(SEGMENTS[1], start=10.02)]),
            "boundaries",
        ),
        (result(segments=SEGMENTS[:1]), "boundaries and labels"),
    ],
)
def test_a_result_that_differs_from_the_replaced_pipelines(found: AnalysisResult, words: str) -> None:
    compared = compare_results(found, EXPECTED)
    assert passed(compared) is (words == "")
    assert difference_in_words(compared) == words


def test_beats_that_differ_are_counted() -> None:
    expected = np.array([[0.5, 1.0], [1.0, 2.0], [1.5, 3.0]])
    moved = expected + np.array([[0, 0], [0.01, 0], [0, 1]])
    assert _differences(expected, expected) == "same beats"
    assert _differences(moved, expected) == (
        "of 3 beats 1 at other times (up to 10 ms), 1 in other positions; F-measure 1.000"
    )
    assert _differences(expected[:2], expected) == "2 beats instead of 3, F-measure 0.800"


class _Model:
    """As much of a hidden Markov model as is compared."""

    def __init__(self, **changed: Any) -> None:
        names: tuple[str, ...] = ("states", "pointers", "probabilities", "log_probabilities", "num_states")
        names += ("state_positions", "state_intervals", "first_states", "last_states")
        for name in names:
            setattr(self, name, changed.get(name, np.arange(3)))
        self.state_space = self
        self.transition_model = self
        self.hmms = [self]


def test_states_and_transitions_that_differ_are_named() -> None:
    assert _models_differ(_Model(), _Model()) == []
    assert _models_differ(_Model(pointers=np.ones(3), last_states=np.ones(3)), _Model()) == [
        "pointers",
        "last_states",
    ]


def test_a_fresh_process_tells_how_long_the_call_took() -> None:
    start = time.perf_counter()
    peak, seconds = peak_memory_and_seconds(time.sleep, 0.05)
    assert 0.05 <= seconds < time.perf_counter() - start
    assert peak < 2**20
