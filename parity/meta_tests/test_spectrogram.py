"""The check of the log spectrogram: it fails on a backend that is wrong by 2e-6 in one value, and says where."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from allin1_core import backends
from allin1_core.backends.table import GENERAL_BOUNDS, Bound
from allin1_core.spectrogram import SPECIFICATION, numpy_backend
from parity import test_spectrogram_parts
from parity.implementations import OWN_OPERATIONS, Implementation
from parity.inputs import spectrogram as cases_spectrogram
from parity.inputs.spectrogram import Case
from parity.meta_tests.faults import FAULTS
from parity.oracles.madmom_spectrogram import backend as madmom
from parity.reports.records import ParityRecorder
from parity.reports.sections.spectrogram import render
from parity.test_spectrogram import check

_STEMS = ("bass", "drums", "other", "vocals")
_SAMPLES = np.random.default_rng(0).integers(-20000, 20000, (4, 20_000), dtype=np.int16)
_WRONG_AT = (2, 17, 40)


def _case(kind: str = "music") -> Case:
    return Case("noise", kind, "int16", 44100, _STEMS, lambda: _SAMPLES)


@functools.cache
def _reference() -> npt.NDArray[np.float32]:
    return madmom(_SAMPLES, 44100)


def run(implementation: Implementation, record: ParityRecorder) -> None:
    """The suite's check, on noise."""
    check((_case(), _SAMPLES, _reference()), implementation, record)


def wrong_in_one_value(stems: npt.NDArray, sample_rate: int, **keywords: Any) -> npt.NDArray[np.float32]:
    """A backend: numpy's, with 2e-6 added to one value."""
    output = numpy_backend.log_spectrogram(stems, sample_rate, **keywords)
    output[_WRONG_AT] += np.float32(2e-6)
    return output


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_a_value_wrong_by_2e_6_fails_and_is_named(precision: str) -> None:
    record = ParityRecorder()
    with pytest.raises(AssertionError) as caught:
        run(Implementation(f"{__name__}:wrong_in_one_value", precision), record)
    message = str(caught.value)
    output = wrong_in_one_value(_SAMPLES, 44100, precision=precision)
    for part in (
        "noise, int16, 44100 Hz",
        "wrong_in_one_value",
        precision,
        "stem 'other'",
        "frame 17",
        "band 40",
        f"found {output[_WRONG_AT]!s}",
        f"the oracle has {_reference()[_WRONG_AT]!s}",
    ):
        assert part in message, message
    assert [entry.passed for entry in record.records] == [False]


def test_the_same_check_passes_on_the_backend_that_is_right() -> None:
    record = ParityRecorder()
    run(Implementation("numpy", "exact"), record)
    assert [entry.passed for entry in record.records] == [True]
    assert record.records[0].measures["max_difference"] == 0


@pytest.mark.parametrize(
    ("implementation", "called"),
    [
        (Implementation("numpy", "exact"), "numpy"),
        (Implementation("torch", "exact", "cpu"), "torch (computed by fused)"),
        (Implementation("mlx", "exact"), "mlx (computed by fused)"),
        (Implementation(OWN_OPERATIONS["torch"], "exact"), "torch, its own operations"),
        (Implementation(OWN_OPERATIONS["mlx"], "fast"), "mlx, its own operations"),
    ],
    ids=str,
)
def test_what_another_computed_is_not_recorded_as_a_proof_of_its_own(
    implementation: Implementation, called: str, tmp_path: Path
) -> None:
    if not backends.get("spectrogram", implementation.backend).installed:
        pytest.skip(f"{implementation.backend} is not installed")
    record = ParityRecorder()
    run(implementation, record)
    assert [entry.backend for entry in record.records] == [called]
    text = render(record.records, tmp_path)
    assert f"| {called} | {implementation.precision} |" in text
    assert ("are no proofs of their own" in text) == ("computed by" in called)


FAULT = ""


def broken(stems: npt.NDArray, sample_rate: int, **keywords: Any) -> npt.NDArray:
    """A backend: numpy's, with one of the faults of `faults`."""
    return FAULTS[FAULT](numpy_backend.log_spectrogram(stems, sample_rate, **keywords))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_every_fault_fails_and_is_recorded(
    precision: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.FAULT", fault)
    record = ParityRecorder()
    with pytest.raises(AssertionError, match="a difference of inf"):
        run(Implementation(f"{__name__}:broken", precision), record)
    assert [entry.passed for entry in record.records] == [False]
    assert record.records[0].measures["max_difference"] == np.inf


def clear_caches() -> None:
    """What the package computes once of its constants is computed anew."""
    for name, module in list(sys.modules.items()):
        if name.startswith("allin1_core.spectrogram."):
            for value in list(vars(module).values()):
                getattr(value, "cache_clear", lambda: None)()


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("frame_size", 1024),
        ("frames_per_second", 50),
        ("bands_per_octave", 6),
        ("minimum_frequency", 60.0),
        ("maximum_frequency", 16000.0),
        ("tuning_frequency", 442.0),
        ("multiplier", 2.0),
        ("offset", 2.0),
    ],
)
def test_a_changed_constant_of_the_method_fails(
    constant: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle has constants of its own: were they those of the code, both sides would change, and agree."""
    record = ParityRecorder()
    run(Implementation("numpy", "exact"), record)
    with monkeypatch.context() as patch:
        patch.setitem(vars(SPECIFICATION), constant, value)
        clear_caches()
        with pytest.raises(AssertionError, match="a difference of"):
            run(Implementation("numpy", "exact"), record)
        if constant in ("bands_per_octave", "minimum_frequency", "maximum_frequency", "tuning_frequency"):
            with pytest.raises(AssertionError, match="a difference of"):
                test_spectrogram_parts.test_filterbank_is_identical(44100)
    clear_caches()
    assert [entry.passed for entry in record.records] == [True, False]


def test_no_backend_declares_a_wider_bound_than_was_published() -> None:
    """The suite holds a backend to the bound that it declares, so that this has to be held to something else."""
    published = {
        "spectrogram": {"exact": Bound(1e-6, 1e-6), "fast": Bound(1.5e-6, 1e-5)},
        "network": {"exact": Bound(1e-4, 1e-4), "fast": Bound(2e-2, 2e-2)},
        "decoder": {"exact": Bound(0, 0), "fast": Bound(0, 0)},
        "structure": {"exact": Bound(0, 0), "fast": Bound(0, 0)},
    }
    for stage, most in published.items():
        rows = {row.name: row.bounds for row in backends.built_in(stage)}
        for name, bounds in {**rows, "any": GENERAL_BOUNDS[stage]}.items():
            assert set(bounds) == {"exact", "fast"}, (stage, name)
            for precision, bound in bounds.items():
                within = (bound.music <= most[precision].music, bound.anything <= most[precision].anything)
                assert within == (True, True), (stage, name, precision)
    assert backends.get("spectrogram", "numpy").bounds["exact"] == Bound(0.0, 0.0, longer=5e-7)
    assert backends.get("spectrogram", "fused").bounds["exact"] == Bound(5e-7, 5e-7)


def test_without_the_shared_material_music_is_what_stempeg_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    if importlib.util.find_spec("stempeg") is None:
        pytest.skip("stempeg is not installed")
    monkeypatch.setattr(cases_spectrogram, "shared_folder", lambda: None)
    found = [case for case in cases_spectrogram.spectrogram_cases() if case.kind == "music"]
    assert {case.name for case in found} == {
        "falcon69, from stempeg",
        "falcon69, from stempeg, resampled",
    }
    samples = found[0].samples()
    assert samples.shape[0] == 4
    assert all(stem.std() > 100 for stem in samples)
    long = cases_spectrogram.ten_minutes("float32")
    assert (long.kind, long.stems) == ("music", ("drums",))


def test_without_any_music_ten_minutes_are_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases_spectrogram, "music", dict)
    long = cases_spectrogram.ten_minutes("int16")
    assert (long.kind, long.stems) == ("signal", ("noise with a beat",))
    bound = backends.get("spectrogram", "numpy").bounds["fast"]
    assert long.allowed(bound) == bound.anything > bound.music
    assert long.samples().shape == (1, 600 * 44100)


def test_only_longer_signals_are_held_to_the_bound_of_longer_signals() -> None:
    bound = backends.get("spectrogram", "numpy").bounds["exact"]
    allowed = {kind: _case(kind).allowed(bound) for kind in ("music", "signal", "length", "stereo", "longer")}
    assert allowed == {"music": 0, "signal": 0, "length": 0, "stereo": 0, "longer": 5e-7}
    other = backends.get("spectrogram", "fused").bounds["exact"]
    assert _case("longer").allowed(other) == other.anything
