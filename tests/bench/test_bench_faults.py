"""What benchmarks and gate call agreement can fail: by NaN, infinity, a shape, a dtype, and what only they compare."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import bench_decoder, bench_decoder_forms, bench_network, bench_pipeline, bench_spectrogram
from bench.gate import cases, checks
from bench.gate.forms import OURS_ALONE, form_case
from parity.inputs.activations import regular, steady
from parity.material import SAMPLE_RATE, Track
from parity.meta_tests.faults import FAULTS
from parity.meta_tests.test_network import made_up, spoilt
from parity.meta_tests.test_pipeline import EXPECTED, right
from parity.oracles import madmom_spectrogram
from parity.oracles.network_golden import OUTPUTS

needs_oracle = pytest.mark.skipif(
    not cases.madmom_is_installed(), reason="the oracle madmom has no wheel for this Python"
)


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", OUTPUTS)
def test_of_a_network(name: str, fault: str, precision: str) -> None:
    expected = dataclasses.asdict(made_up())
    assert bench_network.agreement_of(made_up(), expected, "torch", precision)[1]
    words, agrees = bench_network.agreement_of(spoilt(made_up(), name, fault), expected, "torch", precision)
    assert not agrees
    assert words.startswith("max inf of a probability")


@pytest.mark.parametrize("bound", [0.0, 1e-5])
@pytest.mark.parametrize("fault", FAULTS)
def test_of_a_spectrogram(fault: str, bound: float) -> None:
    expected = np.random.default_rng(0).random((4, 9, 81), dtype=np.float32)
    assert bench_spectrogram.agreement_of(expected.copy(), expected, bound) == ("bit-identical", True)
    words, agrees = bench_spectrogram.agreement_of(FAULTS[fault](expected), expected, bound)
    assert not agrees
    assert words.startswith("max inf in log10 of magnitude")


@pytest.mark.parametrize("fault", FAULTS)
def test_of_beats(fault: str) -> None:
    expected = np.stack([np.arange(1, 9) / 2, np.arange(8) % 4 + 1.0], axis=-1)
    assert bench_decoder._differences(expected.copy(), expected) == "same beats"
    words = bench_decoder._differences(FAULTS[fault](expected), expected)
    assert words.startswith(("of 8 beats ", "0 beats instead of 8", "found shape ", "found dtype "))
    assert "nan" not in words.lower()
    assert "of 8 beats 0 at other times (up to 0 ms), 0 in other positions" not in words


@pytest.mark.parametrize("form", OURS_ALONE)
def test_of_a_form_that_madmom_has_not(form: str) -> None:
    activations, case = steady(20), form_case("cython", form, 20)
    found, expected = case.candidate(), case.reference()
    assert bench_decoder_forms._agreement(form, activations, found, expected)[1]
    for name, fault in {**FAULTS, "half of them": lambda array: array[: len(array) // 2]}.items():
        assert not bench_decoder_forms._agreement(form, activations, fault(found), expected)[1], name


def test_beats_that_differ_are_counted() -> None:
    expected = np.array([[0.5, 1.0], [1.0, 2.0], [1.5, 3.0]])
    moved = expected + np.array([[0, 0], [0.01, 0], [0, 1]])
    assert bench_decoder._differences(moved, expected) == (
        "of 3 beats 1 at other times (up to 10 ms), 1 in other positions; F-measure 1.000"
    )
    assert bench_decoder._differences(expected[:2], expected) == "2 beats instead of 3, F-measure 0.800"


def test_states_and_transitions_that_differ_are_named() -> None:
    names = ("states", "pointers", "probabilities", "log_probabilities", "num_states")
    names += ("state_positions", "state_intervals", "first_states", "last_states")

    def processor(**changed: np.ndarray) -> types.SimpleNamespace:
        model = types.SimpleNamespace(**{**{name: np.arange(3) for name in names}, **changed})
        model.state_space = model.transition_model = model
        return types.SimpleNamespace(hmms=[model])

    assert bench_decoder._models_differ(processor(), processor()) == []
    for name in names:
        assert bench_decoder._models_differ(processor(**{name: np.ones(3)}), processor()) == [name]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bpm", 117),
        ("bpm", math.nan),
        ("beats", [*EXPECTED.beats[:-1], math.nan]),
        ("downbeats", [0.78, math.inf]),
        ("downbeats", []),
        ("beat_positions", [float(position) for position in EXPECTED.positions]),
    ],
)
def test_of_a_result(field: str, value: Any) -> None:
    setting = bench_pipeline.Setting(Path("song"), "song", 3.0, "model", None, EXPECTED)
    assert setting.agreement(right(), EXPECTED)[1]
    wrong = dataclasses.replace(right(), **{field: value})
    words, agrees = setting.agreement(wrong, EXPECTED)
    assert not agrees
    assert field.removeprefix("beat_") in words
    # One that the other pipeline shares, and the golden does not.
    moved = dataclasses.replace(EXPECTED, beats=[*EXPECTED.beats[:-1], 2.83])
    assert setting.agreement(
        dataclasses.replace(right(), beats=moved.beats, downbeats=moved.downbeats), moved
    ) == ("differs from the golden", False)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at_most", [0.0, 1e-4])
def test_a_row_of_the_gate_fails(fault: str, at_most: float) -> None:
    expected = np.random.default_rng(0).random((5, 81), dtype=np.float32)
    for output, passes in ((expected.copy(), True), (FAULTS[fault](expected), False)):
        difference = cases.largest_difference(output, expected)
        verdict = checks.check_difference("stage/backend", difference, at_most)
        assert verdict.passed is passes
        assert verdict.measured == ("bit-identical" if passes else "inf")


NOISE = np.random.default_rng(0).integers(-9000, 9000, (4, 9000), dtype=np.int16)
ORACLE = madmom_spectrogram.madmom_spectrogram


@functools.cache
def madmoms_spectrogram(signal: bytes) -> np.ndarray:
    return ORACLE(np.frombuffer(signal, np.int16), SAMPLE_RATE)


@functools.cache
def madmoms_beats(activations: bytes) -> np.ndarray:
    return cases.madmom_decoder()(np.frombuffer(activations).reshape(-1, 2))


@pytest.fixture
def short_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate's checks on little, of which the oracle's outputs are kept: every fault is compared with the same."""
    kept = lambda signal, _: madmoms_spectrogram(signal.tobytes())  # noqa: E731
    monkeypatch.setattr(madmom_spectrogram, "madmom_spectrogram", kept)
    monkeypatch.setattr(checks, "default_track", lambda: Track("noise", NOISE, "made up"))
    monkeypatch.setattr(checks, "_signals", lambda track: [track.stems, track.stems[:, ::-1].copy()])
    monkeypatch.setattr(checks, "madmom_decoder", lambda: lambda inputs: madmoms_beats(inputs.tobytes()))
    monkeypatch.setattr(checks, "drifting", lambda seconds, seed: regular(400, 50 + seed, 4))


@needs_oracle
@pytest.mark.usefixtures("short_checks")
def test_the_gates_checks_pass() -> None:
    assert checks.check_spectrogram_difference("numpy", "exact", 0.0).passed
    assert checks.check_decoder("cython", cases.our_decoder("cython")).passed


@needs_oracle
@pytest.mark.usefixtures("short_checks")
@pytest.mark.parametrize("fault", FAULTS)
def test_the_gates_check_of_a_spectrogram_fails(fault: str) -> None:
    def wrong(stems: np.ndarray) -> np.ndarray:
        """In the first of several signals: it may not be forgotten over the next."""
        output = np.stack([madmoms_spectrogram(stem.tobytes()) for stem in stems])
        return FAULTS[fault](output) if stems[0, 0] == NOISE[0, 0] else output

    verdict = checks.check_spectrogram_difference("numpy", "exact", 1e-4, wrong)
    assert verdict.passed is False
    assert verdict.measured == "inf"


@needs_oracle
@pytest.mark.usefixtures("short_checks")
@pytest.mark.parametrize("fault", FAULTS)
def test_the_gates_check_of_the_decoder_fails(fault: str) -> None:
    right = cases.our_decoder("cython")
    verdict = checks.check_decoder("cython", lambda inputs: FAULTS[fault](right(inputs)))
    assert verdict.passed is False
    assert verdict.measured == "0 of 8 (0%)"


@needs_oracle
@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_timed_case_returns_is_held_to_the_oracle(fault: str) -> None:
    right = cases.our_decoder("cython")
    case = cases.decoder_case(
        "cython", threads=1, seconds=5, decode=lambda inputs: FAULTS[fault](right(inputs))
    )
    assert case.difference(case.candidate(), case.reference()) == math.inf
    assert case.difference(right(regular(500, 50, 4)), right(regular(500, 50, 4))) == 0
