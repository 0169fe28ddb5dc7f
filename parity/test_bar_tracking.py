"""Bars on given beats against madmom's DBNBarTrackingProcessor: the same positions, for the same activations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allin1_core.dbn import DBNBarTrackingProcessor, activations_at_beats
from parity import implementations
from parity.decoder_agreement import DecoderAgreement, compare_decodings
from parity.inputs.activations import FPS, from_song
from parity.inputs.annotations import read_annotations
from parity.inputs.decoder import songs
from parity.material import tracks
from parity.oracles import madmom_dbn
from parity.oracles.network_golden import read_golden
from parity.reports.records import ParityRecorder


def _agreement(rows: np.ndarray, backend: str = "cython", **parameters: Any) -> DecoderAgreement:
    found = DBNBarTrackingProcessor(**parameters, backend=backend)(rows)
    return compare_decodings([], found, [], madmom_dbn.track_bars(rows, **parameters))


def _check(
    record_parity: ParityRecorder, case: str, agreement: DecoderAgreement, backend: str = "cython"
) -> None:
    kind = "bars on given beats"
    madmom_dbn.require_identical(record_parity, f"{kind}: {case}", kind, backend, agreement)


def _rows(probabilities: Any, dtype: type = np.float64) -> np.ndarray:
    activations: np.ndarray = np.asarray(probabilities, dtype=dtype)
    return np.stack([np.arange(len(activations), dtype=dtype) / 2 + 0.25, activations], axis=1)


def _without_the_last(rows: np.ndarray) -> np.ndarray:
    """As madmom's RNNBarProcessor gives them."""
    rows[-1, 1] = np.nan
    return rows


def _random(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(400) ** 6


_BAR_OF_THREE = np.arange(40) % 3 == 0
_CASES: dict[str, tuple[Callable[[], np.ndarray], dict[str, Any]]] = {
    "random": (lambda: _rows(_random(1)), {}),
    "random, float32": (lambda: _rows(_random(2), np.float32), {}),
    "the last has no probability": (lambda: _without_the_last(_rows(_random(3))), {}),
    "four, then three": (lambda: _rows(np.r_[np.tile([0.9, 0, 0, 0], 20), np.tile([0.9, 0, 0], 20)]), {}),
    "ties": (lambda: _rows(np.full(50, 0.01)), {}),
    "ties with changes": (lambda: _rows(np.full(50, 0.01)), {"meter_change_prob": 0.5}),
    "exactly 0 and 1": (lambda: _rows(_BAR_OF_THREE), {}),
    "integers": (lambda: _rows(_BAR_OF_THREE, np.int64), {}),
    "all 0": (lambda: _rows(np.zeros(3)), {}),
    "two beats": (lambda: _rows([0.7, 0.1]), {}),
    "two beats, no downbeat": (lambda: _rows([0.0, 0.1]), {}),
    "one bar length": (lambda: _rows(_random(4)), {"beats_per_bar": 4}),
    "bars of one beat": (lambda: _rows(_random(5)), {"beats_per_bar": [1, 2]}),
    "lengths descending": (lambda: _rows(_random(6)), {"beats_per_bar": [7, 5, 4, 3, 2]}),
    "a length twice": (lambda: _rows(_random(7)), {"beats_per_bar": [4, 4]}),
    "weight 16": (lambda: _rows(_random(8)), {"observation_weight": 16}),
    "weight 1.5": (lambda: _rows(_random(9)), {"observation_weight": 1.5}),
    "no change": (lambda: _rows(_random(10)), {"meter_change_prob": None}),
    "always a change": (lambda: _rows(_random(11)), {"meter_change_prob": 1.0}),
}


@pytest.mark.parametrize("backend", implementations.ours("decoder"))
@pytest.mark.parametrize("case", _CASES)
def test_bars(case: str, backend: str, record_parity: ParityRecorder) -> None:
    make, parameters = _CASES[case]
    _check(record_parity, case, _agreement(make(), backend, **parameters), backend)


@pytest.mark.parametrize("track", tracks() or ["none"])
def test_goldens(track: str, shared: Path, record_parity: ParityRecorder) -> None:
    """The network's activations at the pipeline's own beats; the weight that suits them finds its downbeats, too."""
    golden = json.loads((shared / "golden" / f"{track}.json").read_text())
    rows = activations_at_beats(golden["beats"], read_golden(shared, track)["downbeat"], FPS)
    for weight in (100, 16):
        _check(record_parity, f"golden {track}, weight {weight}", _agreement(rows, observation_weight=weight))
    positions = DBNBarTrackingProcessor(observation_weight=16)(rows)[:, 1]
    assert positions.tolist() == golden["beat_positions"]


@pytest.mark.parametrize("song", songs())
def test_annotated_beats(song: str, shared: Path, record_parity: ParityRecorder) -> None:
    annotated = read_annotations(shared)[song]
    rows = activations_at_beats(annotated.times, from_song(annotated)[:, 1], FPS)
    _check(record_parity, song, _agreement(rows))


@pytest.mark.parametrize("backend", implementations.ours("decoder"))
@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    probabilities=st.lists(
        st.one_of(st.floats(1e-300, 1 - 2**-53), st.sampled_from([0.01, 0.5, 1e-8])), min_size=2, max_size=60
    ),
    parameters=st.fixed_dictionaries(
        {
            "beats_per_bar": st.lists(st.integers(1, 9), min_size=1, max_size=4),
            "observation_weight": st.one_of(st.integers(2, 200), st.floats(1.01, 200)),
            "meter_change_prob": st.floats(1e-12, 1),
        }
    ),
)
def test_no_counterexample(backend: str, probabilities: list[float], parameters: dict[str, Any]) -> None:
    agreement = _agreement(_rows(probabilities), backend, **parameters)
    assert agreement.identical, agreement
