"""The log spectrogram of every backend and precision against madmom, on every case."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allin1_core.spectrogram import select
from parity.assertions import assert_log_spectrogram, measure_agreement
from parity.cases_spectrogram import (
    SAMPLE_RATES,
    Case,
    Implementation,
    label,
    own_operations,
    spectrogram_backends,
    spectrogram_cases,
    ten_minutes,
)
from parity.oracles.madmom_import import madmom_version
from parity.oracles.madmom_spectrogram import backend as madmom
from parity.records import ParityRecord, ParityRecorder

IMPLEMENTATIONS = spectrogram_backends() + own_operations()

Expected = tuple[Case, npt.NDArray, npt.NDArray]


@pytest.fixture(scope="module", params=spectrogram_cases(), ids=str)
def case(request: pytest.FixtureRequest) -> Expected:
    """A case, its input, and what the oracle makes of it: computed once for all implementations."""
    samples = request.param.samples()
    return request.param, samples, madmom(samples, request.param.sample_rate)


@pytest.fixture(scope="module", params=("int16", pytest.param("float32", marks=pytest.mark.full)))
def long_case(request: pytest.FixtureRequest) -> Expected:
    long = ten_minutes(request.param)
    samples = long.samples()
    return long, samples, madmom(samples, long.sample_rate)


def check(expected: Expected, implementation: Implementation, record: ParityRecorder) -> None:
    """Run an implementation on a case, record how close it came, and hold it to its declared bound."""
    case, samples, reference = expected
    compute = select(implementation.backend, device=implementation.device, precision=implementation.precision)
    output = compute(samples, case.sample_rate)
    allowed = case.allowed(implementation.bound)
    comparable = output.shape == reference.shape and output.dtype == np.float32
    agreement = measure_agreement(output, reference) if comparable else None
    record(
        ParityRecord(
            stage="spectrogram",
            case=str(case),
            oracle=f"madmom {madmom_version()}",
            backend=label(compute.choice.backend, compute.choice.computed_by),
            device=compute.choice.device,
            precision=implementation.precision,
            bound="bit-identical" if allowed == 0 else f"<= {allowed:.2g}",
            passed=agreement is not None and agreement.within(allowed),
            measures={
                "kind": case.kind,
                "name": case.name,
                "dtype": case.dtype,
                "sample_rate": case.sample_rate,
                "allowed": allowed,
                "max_difference": agreement.max_difference if agreement else float("inf"),
                "p999_difference": agreement.p999_difference if agreement else float("inf"),
                "identical": agreement.identical if agreement else 0,
                "values": int(reference.size),
            },
        )
    )
    assert_log_spectrogram(
        output, reference, allowed=allowed, case=case, stems=case.stems, implementation=implementation
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
def test_case(case: Expected, implementation: Implementation, record_parity: ParityRecorder) -> None:
    check(case, implementation, record_parity)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
def test_ten_minutes(
    long_case: Expected, implementation: Implementation, record_parity: ParityRecorder
) -> None:
    check(long_case, implementation, record_parity)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    num_samples=st.integers(1, 6000),
    sample_rate=st.sampled_from([*SAMPLE_RATES, 12345, 44099]),
    is_float=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    loudness=st.sampled_from([1.0, 0.1, 1e-4]),
)
def test_any_signal(
    implementation: Implementation,
    num_samples: int,
    sample_rate: int,
    is_float: bool,
    seed: int,
    loudness: float,
) -> None:
    noise = np.random.default_rng(seed).uniform(-loudness, loudness, (1, num_samples))
    samples = noise.astype(np.float32) if is_float else np.rint(32767 * noise).astype(np.int16)
    compute = select(implementation.backend, device=implementation.device, precision=implementation.precision)
    assert_log_spectrogram(
        compute(samples, sample_rate),
        madmom(samples, sample_rate),
        allowed=implementation.bound.anything,
        case=f"{num_samples} samples of {samples.dtype} at {sample_rate} Hz, seed {seed}",
        stems=("noise",),
        implementation=implementation,
    )
