"""The log spectrogram of every backend and precision against madmom, on every case.

Where madmom is not installed the oracle is our numpy backend in ``exact``, which has its bits where it is.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io.wavfile import WavFileWarning

from allin1_core.backends.devices import allocator_for, computation
from allin1_core.backends.table import module_exists
from allin1_core.spectrogram import numpy_backend, select
from allin1_core.threads import usable_cores
from parity.agreement import Agreement, compare
from parity.implementations import Implementation, implementations, label, own_operations
from parity.inputs.spectrogram import (
    DTYPES,
    SAMPLE_RATES,
    Case,
    longer_cases,
    spectrogram_cases,
    stereo_file,
    ten_minutes,
)
from parity.oracles.madmom_import import OracleMissing, import_madmom, madmom_version
from parity.oracles.madmom_spectrogram import backend as madmom
from parity.oracles.network_golden import SHORT_TRACKS
from parity.reports.records import ParityRecord, ParityRecorder

STEREO_RATES = (22050, 44100, 48000)
OWN_OPERATIONS = own_operations()
IMPLEMENTATIONS = implementations("spectrogram") + OWN_OPERATIONS
NUMPY = Implementation("numpy", "exact")

Expected = tuple[Case, npt.NDArray, npt.NDArray]


@functools.cache
def oracle() -> tuple[str, Callable[[npt.NDArray, int], npt.NDArray]]:
    """Name of the oracle of this machine, and what it computes of stems at a sample rate."""
    try:
        return f"madmom {madmom_version()}", madmom
    except OracleMissing:
        compute = functools.partial(numpy_backend.log_spectrogram, precision="exact")
        return "numpy backend, exact (madmom is not installed)", compute


@functools.lru_cache(maxsize=1)
def expected(case: Case) -> Expected:
    """A case, its input, and what the oracle makes of it; the last one is kept, as the tests come ordered by case."""
    samples = case.samples()
    return case, samples, oracle()[1](samples, case.sample_rate)


def compare_stems(
    output: npt.NDArray, reference: npt.NDArray, allowed: float, stems: tuple[str, ...]
) -> Agreement:
    """Compare log spectrograms, ``(num_stems, num_frames, num_bands)``, whose rows have these names."""
    return compare(
        output,
        reference,
        allowed=allowed,
        place=lambda index: f"stem {stems[index[0]]!r}, frame {index[1]}, band {index[2]}",
    )


def check(inputs: Expected, implementation: Implementation, record: ParityRecorder) -> None:
    """Run an implementation on a case, record how close it came, and hold it to its declared bound."""
    case, samples, reference = inputs
    if implementation == NUMPY:
        madmom_version()  # which skips it where it would be its own oracle
    compute = select(implementation.backend, device=implementation.device, precision=implementation.precision)
    # Itself, since `compute` refuses another shape or dtype, which is to be compared and recorded.
    output = compute.implementation(
        samples,
        case.sample_rate,
        precision=compute.choice.precision,
        device=compute.choice.device,
        return_native=False,
    )
    allowed = case.allowed(implementation.bound)
    agreement = compare_stems(output, reference, allowed, case.stems)
    record(
        ParityRecord(
            stage="spectrogram",
            case=str(case),
            oracle=oracle()[0],
            backend=label(compute.choice.backend, compute.choice.computed_by),
            device=compute.choice.device,
            precision=implementation.precision,
            bound="bit-identical" if allowed == 0 else f"<= {allowed:.2g}",
            passed=agreement.passed,
            measures={
                "kind": case.kind,
                "name": case.name,
                "dtype": case.dtype,
                "sample_rate": case.sample_rate,
                "allowed": allowed,
                **agreement.measures(),
            },
        )
    )
    agreement.require(f"{case}: {implementation}")


def is_full(case: Case, implementation: Implementation) -> bool:
    """Whether it is left to the full form, as long and resampled music is for libraries on a CPU.

    Their own operations are slow there; where the fused kernels compute for them, their outputs are compared already.
    """
    device = implementation.on("spectrogram")
    by = computation("spectrogram", implementation.backend, device, implementation.precision).by
    quick_music = case.sample_rate == 44100 and case.name.startswith(SHORT_TRACKS)
    is_repeated = implementation in OWN_OPERATIONS or by != implementation.backend
    return case.full or (is_repeated and case.kind == "music" and not quick_music)


@pytest.mark.parametrize(
    ("case", "implementation"),
    [
        pytest.param(
            case,
            implementation,
            marks=[pytest.mark.full] * is_full(case, implementation),
            id=f"{case}-{implementation}",
        )
        for case in spectrogram_cases()
        for implementation in IMPLEMENTATIONS
    ],
)
def test_case(case: Case, implementation: Implementation, record_parity: ParityRecorder) -> None:
    check(expected(case), implementation, record_parity)


@pytest.fixture
def blas_on_all_cores() -> Iterator[None]:
    """As many threads for numpy's products as it takes by itself: `make parity` gives it one."""
    with contextlib.ExitStack() as stack:
        if module_exists("threadpoolctl"):
            from threadpoolctl import threadpool_limits

            stack.enter_context(threadpool_limits(usable_cores(), "blas"))
        yield


LONG = {dtype: ten_minutes(dtype) for dtype in DTYPES}
# On a CPU what it runs by default and what is bit-identical, in float32, as other long music is in int16; the others in
# the full form.
_LONG = (Implementation("fused", "exact"), NUMPY)


@pytest.mark.parametrize(
    ("dtype", "implementation"),
    [
        pytest.param(
            dtype,
            implementation,
            marks=[pytest.mark.full]
            * (
                is_full(LONG[dtype], implementation)
                or (dtype == "float32" and implementation not in _LONG)
                or (dtype == "int16" and implementation.on("spectrogram") == "cpu")
            ),
            id=f"{dtype}-{implementation}",
        )
        for dtype in DTYPES
        for implementation in IMPLEMENTATIONS
    ],
)
@pytest.mark.usefixtures("blas_on_all_cores")
def test_ten_minutes(dtype: str, implementation: Implementation, record_parity: ParityRecorder) -> None:
    check(expected(LONG[dtype]), implementation, record_parity)


@pytest.fixture(scope="module", params=itertools.product(DTYPES, STEREO_RATES), ids=str)
def stereo_case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """A stereo file, our mix of it, and what the oracle makes of its own mix."""
    import_madmom()
    from madmom.audio.signal import Signal

    dtype, sample_rate = request.param
    path = tmp_path_factory.mktemp("stereo") / "noise.wav"
    case = stereo_file(dtype, sample_rate, path)
    with warnings.catch_warnings():
        # Of a float file's `fact` chunk, which its reader passes over.
        warnings.simplefilter("ignore", WavFileWarning)
        signal = Signal(str(path), num_channels=1)
    assert (signal.dtype, signal.sample_rate) == (np.dtype(dtype), sample_rate)
    return case, case.samples(), madmom(np.asarray(signal)[np.newaxis], sample_rate)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
def test_stereo_file_mixed_to_mono(
    stereo_case: Expected, implementation: Implementation, record_parity: ParityRecorder
) -> None:
    check(stereo_case, implementation, record_parity)


@pytest.mark.parametrize("implementation", [one for one in IMPLEMENTATIONS if one == NUMPY], ids=str)
def test_products_cut_as_beyond_33_minutes(
    implementation: Implementation, record_parity: ParityRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy_backend, "PRODUCT_FRAMES", 50)
    for case in longer_cases(frames=50):
        check(expected(case), implementation, record_parity)


@pytest.mark.parametrize(
    "implementation", [one for one in IMPLEMENTATIONS if "torch" in one.backend], ids=str
)
@pytest.mark.parametrize("sample_rate", [11025, 44100])
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_pieces(
    dtype: str, sample_rate: int, implementation: Implementation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In torch, 30 pieces of two stems, with buffers that are used again where the device has such.

    On CUDA from memory that is pinned, too, as the pipeline has it.
    """
    module = pytest.importorskip("allin1_core.spectrogram.torch_backend")
    monkeypatch.setattr(module, "CPU_FRAMES", 14)
    monkeypatch.setattr(module, "GPU_FRAMES", 14)
    samples, reference = _two_stems(dtype, sample_rate)
    compute = select(implementation.backend, device=implementation.device, precision=implementation.precision)
    held = allocator_for(compute.choice.computed_on)(samples.shape, samples.dtype)
    held[:] = samples
    for stems in (samples, held):
        output = compute(stems, sample_rate)
        agreement = compare_stems(output, reference, implementation.bound.anything, ("a", "b"))
        agreement.require(str(implementation))


@functools.cache
def _two_stems(dtype: str, sample_rate: int) -> tuple[npt.NDArray, npt.NDArray]:
    """Two seconds of noise, and what the oracle makes of it."""
    noise = np.random.default_rng(3).integers(-32768, 32768, (2, round(2.08 * sample_rate)), dtype=np.int16)
    samples = noise if dtype == "int16" else (noise / 32768).astype(np.float32)
    samples.setflags(write=False)
    return samples, oracle()[1](samples, sample_rate)


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
    samples, reference = _noise(num_samples, sample_rate, is_float, seed, loudness)
    if implementation == NUMPY:
        madmom_version()
    compute = select(implementation.backend, device=implementation.device, precision=implementation.precision)
    output = compute(samples, sample_rate)
    agreement = compare_stems(output, reference, implementation.bound.anything, ("noise",))
    agreement.require(
        f"{num_samples} samples of {samples.dtype} at {sample_rate} Hz, seed {seed}: {implementation}"
    )


# Every implementation is given the same examples.
@functools.lru_cache(maxsize=100)
def _noise(
    num_samples: int, sample_rate: int, is_float: bool, seed: int, loudness: float
) -> tuple[npt.NDArray, npt.NDArray]:
    """Uniform noise, and what the oracle makes of it."""
    noise = np.random.default_rng(seed).uniform(-loudness, loudness, (1, num_samples))
    samples = noise.astype(np.float32) if is_float else np.rint(32767 * noise).astype(np.int16)
    samples.setflags(write=False)
    return samples, oracle()[1](samples, sample_rate)
