"""A decision that one ULP turns is found: the checks of inputs on the edge fail where another float is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from allin1_core.dbn import RNNDownBeatTrackingObservationModel
from allin1_core.spectrogram import _transform, numpy_backend
from parity import test_decoder, test_edges, test_structure
from parity.implementations import Implementation
from parity.inputs import edges
from parity.inputs.decoder import Case, edge_cases
from parity.inputs.spectrogram import spectrogram_cases
from parity.oracles.madmom_spectrogram import backend as madmom
from parity.reports.records import ParityRecorder
from parity.reports.ulps import section, worst
from parity.test_spectrogram import check

NUMPY = Implementation("numpy", "exact")
# Of a value that is rounded: a thousandth of an ULP of float32, which turns none but those beside a tie.
_A_THOUSANDTH = 1e-3 * 2.0**-24


def rounded_otherwise(band_sums: npt.NDArray[np.float32], moved: float) -> npt.NDArray[np.float32]:
    """log10(1 + x), of which the exact value is moved by a part of itself before it is rounded."""
    return (np.log10(1 + band_sums.astype(np.float64)) * (1 + moved)).astype(np.float32)


def test_logarithms_beside_a_tie_turn_and_others_do_not() -> None:
    """Moved by a thousandth of an ULP up and down, half of them do; of any others a few in a thousand."""
    chosen = edges.logarithm_arguments()
    others = (10 ** np.random.default_rng(1).uniform(-3, 5, chosen.size)).astype(np.float32)
    turned = [
        np.count_nonzero(
            rounded_otherwise(values, _A_THOUSANDTH) != rounded_otherwise(values, -_A_THOUSANDTH)
        )
        for values in (chosen, others)
    ]
    assert turned[0] > 2000
    assert turned[1] < 40


def test_one_logarithm_that_is_off_by_one_ulp_is_found() -> None:
    record = ParityRecorder()

    def off(band_sums: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        found = test_edges.numpys_logarithm(band_sums)
        found[1234] = np.nextafter(found[1234], np.float32(np.inf))
        return found

    test_edges.check_logarithm(test_edges.numpys_logarithm, "numpy", "exact", 0, record)
    with pytest.raises(AssertionError, match=r"at \[1234\]: .* \(1 of 4000 values are beyond\)"):
        test_edges.check_logarithm(off, "numpy", "exact", 0, record)
    assert [entry.measures["ulp_counts"] for entry in record.records] == [[4000], [3999, 1]]
    assert worst(record.records) == "1"


def test_kernels_that_round_the_logarithm_twice_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = test_edges.kernels_logarithm

    def wrong(band_sums: npt.NDArray[np.float32], *names: str) -> npt.NDArray[np.float32]:
        moved = rounded_otherwise(band_sums, _A_THOUSANDTH)
        assert np.abs(moved - right(band_sums, *names)).max() < 5e-7
        return moved

    name = _transform.instruction_sets()[0]
    test_edges.test_the_kernels_round_the_exact_logarithm("exact", name)
    monkeypatch.setattr(test_edges, "kernels_logarithm", wrong)
    with pytest.raises(AssertionError, match="expected the same bits"):
        test_edges.test_the_kernels_round_the_exact_logarithm("exact", name)


def a_value_rounded_otherwise(stems: npt.NDArray, sample_rate: int, **keywords: Any) -> npt.NDArray:
    """A backend: numpy's, with the next float in one place."""
    output = numpy_backend.log_spectrogram(stems, sample_rate, **keywords)
    output[2, 17, 40] = np.nextafter(output[2, 17, 40], np.float32(0))
    return output


def test_one_value_of_a_spectrogram_that_is_off_by_one_ulp_is_found(tmp_path: Path) -> None:
    case = next(case for case in spectrogram_cases() if case.kind == "edge")
    samples = case.samples()[:, :20_000]
    expected = madmom(samples, case.sample_rate)
    record = ParityRecorder()
    check((case, samples, expected), Implementation("numpy", "exact"), record)
    assert list(section("spectrogram", record.records, tmp_path)) == [
        "",
        f"In ULP: all {expected.size:,} values have the oracle's bits.",
    ]
    # One that is held to more than a bound of 0 says so, too, in the histogram.
    check((case, samples, expected), Implementation(f"{__name__}:a_value_rounded_otherwise", "exact"), record)
    assert record.records[1].measures["max_ulp"] == 1
    assert record.records[1].measures["ulp_counts"] == [expected.size - 1, 1]
    assert worst(record.records) == "1"
    *_, plot = section("spectrogram", record.records, tmp_path)
    assert plot == "![Differences in ULP from the oracle](parity_ulp_spectrogram.png)"
    assert (tmp_path / "parity_ulp_spectrogram.png").read_bytes().startswith(b"\x89PNG")


def _above_it(activations: npt.NDArray, threshold: float) -> tuple[npt.NDArray, int]:
    """Takes what reaches the next float above the threshold."""
    kept = np.nonzero(activations > np.asarray(threshold, activations.dtype))[0]
    return (activations[kept[0] : kept[-1] + 1], int(kept[0])) if kept.any() else (activations[:0], 0)


def _in_float64(activations: npt.NDArray, threshold: float) -> tuple[npt.NDArray, int]:
    """Compares with the threshold itself, which float32 does not hold."""
    kept = np.nonzero(activations.astype(np.float64) >= threshold)[0]
    return (activations[kept[0] : kept[-1] + 1], int(kept[0])) if kept.any() else (activations[:0], 0)


@pytest.mark.parametrize(
    ("threshold", "dtype"), [(_above_it, "float32"), (_above_it, "float64"), (_in_float64, "float32")]
)
def test_a_threshold_that_is_off_by_one_ulp_is_found(threshold: test_edges.Threshold, dtype: str) -> None:
    with pytest.raises(AssertionError):
        test_edges.check_thresholds(threshold, dtype)


@pytest.mark.parametrize("threshold", [_above_it, _in_float64])
def test_beats_that_are_decoded_from_another_threshold_are_found(
    threshold: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [case for case in edge_cases() if case.name.startswith("at the threshold")]
    assert _failures(found) == 0
    monkeypatch.setattr("allin1_core.dbn.decoding.threshold_activations", threshold)
    assert _failures(found) > 0


def test_a_density_that_is_off_by_one_ulp_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = RNNDownBeatTrackingObservationModel.log_densities

    def wrong(model: RNNDownBeatTrackingObservationModel, observations: npt.NDArray) -> npt.NDArray:
        densities = right(model, observations)
        densities[600] = np.nextafter(densities[600].astype(observations.dtype), observations.dtype.type(-9))
        return densities

    found = [case for case in edge_cases() if case.name == "densities that tie, float32"]
    assert _failures(found) == 0
    monkeypatch.setattr(RNNDownBeatTrackingObservationModel, "log_densities", wrong)
    assert _failures(found) == 1


def _failures(cases: list[Case]) -> int:
    assert cases
    record = ParityRecorder()
    for case in cases:
        try:
            test_decoder.test_decoder("cython", case, record)
        except AssertionError:
            assert not record.records[-1].passed
    return sum(not entry.passed for entry in record.records)


@pytest.mark.parametrize("direction", [0.0, 1.0])
def test_a_peak_that_is_off_by_one_ulp_is_found(direction: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right = test_structure.native
    spacings = (47, 48, 49, 50)
    record = ParityRecorder()
    test_structure.test_values_that_tie(NUMPY, spacings, record)

    def wrong(stage: str, backend: str, segment: npt.NDArray, device: str) -> Any:
        moved = segment.copy()
        highest = int(np.argmax(moved))
        moved[highest] = np.nextafter(moved[highest], np.float32(direction))
        return right(stage, backend, moved, device)

    monkeypatch.setattr(test_structure, "native", wrong)
    with pytest.raises(AssertionError, match="local maxima"):
        test_structure.test_values_that_tie(NUMPY, spacings, record)
    assert [entry.passed for entry in record.records] == [True, False]
    assert record.records[1].measures["max_ulp"] >= 1
