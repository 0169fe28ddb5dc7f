"""Decisions that the next float takes the other way: roundings and thresholds, against madmom and exact arithmetic.

The signals and activations of `parity.inputs.edges` run through the cases of their stages besides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from allin1_core.dbn import threshold_activations
from allin1_core.spectrogram import _transform, fused_backend, numpy_backend
from parity.agreement import compare
from parity.implementations import ours
from parity.inputs import edges
from parity.oracles.madmom_import import import_madmom, madmom_version
from parity.oracles.madmom_spectrogram import madmom_logarithm
from parity.reports.records import ParityRecord, ParityRecorder

Logarithm = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
Threshold = Callable[[npt.NDArray, float], tuple[npt.NDArray, int]]


def kernels_logarithm(
    band_sums: npt.NDArray[np.float32], precision: str, instruction_set: str
) -> npt.NDArray[np.float32]:
    """log10(1 + x) of the compiled kernels: bands of the one bin that an impulse gives a magnitude of exactly 1."""
    real = np.float64 if precision == "exact" else np.float32
    impulse = np.zeros(2048, np.float32)
    impulse[0] = 1
    tables = fused_backend._tables(precision)
    number = band_sums.size
    found = np.empty((1, number), np.float32)
    _transform.run(
        instruction_set,
        impulse,
        np.zeros(1, np.int64),
        np.full(2048, 0.5, real),
        tables.twiddles,
        tables.turns,
        tables.positions,
        1,
        np.zeros(number, np.int32),
        np.ones(number, np.int32),
        band_sums.astype(real),
        1.0,
        1.0,
        found,
        np.empty(_transform.SCRATCH_SIZE, np.uint8),
    )
    return found[0]


def numpys_logarithm(band_sums: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """log10(1 + x) of the numpy backend."""
    found = band_sums.copy()
    numpy_backend._logarithm_in_place(found)
    return found


def check_logarithm(
    logarithm: Logarithm, backend: str, precision: str, allowed: float, record: ParityRecorder
) -> None:
    """Hold a logarithm to madmom's where the exact one is beside a tie."""
    band_sums = edges.logarithm_arguments()
    agreement = compare(logarithm(band_sums), madmom_logarithm(band_sums), allowed=allowed)
    case = "logarithms beside a tie of float32"
    record(
        ParityRecord(
            stage="spectrogram",
            case=case,
            oracle=f"madmom {madmom_version()}",
            backend=backend,
            device="cpu",
            precision=precision,
            bound="bit-identical" if allowed == 0 else f"<= {allowed:.2g}",
            passed=agreement.passed,
            measures={
                "kind": "edge",
                "name": case,
                "dtype": "float32",
                "sample_rate": "-",
                "allowed": allowed,
                **agreement.measures(),
            },
        )
    )
    agreement.require(f"{backend}, {precision}, {case}")


@pytest.mark.parametrize("backend", ours("spectrogram"))
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_logarithm(backend: str, precision: str, record_parity: ParityRecorder) -> None:
    if backend == "numpy":
        check_logarithm(numpys_logarithm, backend, precision, 0, record_parity)
    elif backend == "fused":
        for name in _transform.instruction_sets():

            def of_kernels(band_sums: npt.NDArray[np.float32], name: str = name) -> npt.NDArray[np.float32]:
                return kernels_logarithm(band_sums, precision, name)

            # The oracle's own logarithm is up to 2 ULP off, which is 4.8e-7 between 2 and 4.
            check_logarithm(of_kernels, backend, precision, 1e-6, record_parity)


@pytest.mark.parametrize("instruction_set", _transform.instruction_sets())
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_the_kernels_round_the_exact_logarithm(precision: str, instruction_set: str) -> None:
    band_sums = edges.logarithm_arguments()
    exact = np.log10(1 + band_sums.astype(np.longdouble)).astype(np.float32)
    compare(kernels_logarithm(band_sums, precision, instruction_set), exact).require(instruction_set)


def check_thresholds(threshold: Threshold, dtype: str) -> None:
    """Hold a thresholding to madmom's on 3,000 thresholds, each with activations at it and beside it."""
    import_madmom()
    from madmom.features.beats import threshold_activations as oracle

    rng = np.random.default_rng(16)
    for seed, value in enumerate(rng.uniform(0.01, 0.5, 3000).tolist()):
        activations = edges.at_threshold(value, dtype, seed)
        found, first = threshold(activations, value)
        expected, expected_first = oracle(activations, value)
        compare(found, expected).require(f"{dtype}, threshold {value!r}")
        assert first == expected_first, (dtype, value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_thresholds(dtype: str) -> None:
    check_thresholds(threshold_activations, dtype)


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_chosen_values_are_beside_a_tie(dtype: str) -> None:
    """As they stand in the signals, in more precise arithmetic than they were chosen by: of every step thousands."""
    near: Counter[str] = Counter()
    for chosen, row in zip(edges.ROUNDING_STEPS, edges.signals(dtype), strict=True):
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(row, 1024), 2048)[::441]
        for step, values in edges.roundings(frames, np.longdouble).items():
            is_near = edges.ulp_from_a_tie(values) < edges.NEAR[step]
            near[step] += int(np.count_nonzero(is_near))
            # Every fifth frame is a block alone.
            assert step != chosen or np.count_nonzero(is_near[5::5]) >= 350, step
    assert min(near[step] for step in edges.ROUNDING_STEPS) >= 4000, near


def test_distance_from_a_tie() -> None:
    step = 2.0**-23
    values = np.array(
        [1, 1 + step, 1 + step / 2, 1 + step / 4, 2 - step / 2, 0.5 + 0.75 * step / 2, -1 - step / 2]
    )
    assert edges.ulp_from_a_tie(values).tolist() == [0.5, 0.5, 0, 0.25, 0, 0.25, 0]
