"""What must be true of a log spectrogram whatever the music: laws, not stored values, for every backend.

Where a law holds to the bit (the arithmetic is the same, only its signs or places are not) the test demands the bit.
Elsewhere it demands `LAST_BITS`: a matrix product sums a band in an order that depends on how many frames it is given,
which moves a sum of up to 150 products by a few times 2^-24, and log10(1 + m) turns that into less than 1e-6.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import strategies as st

from allin1_core import backends
from allin1_core import threads as cores_module
from allin1_core.spectrogram import log_spectrogram, num_frames
from allin1_core.threads import limited_cores, usable_cores
from hard_use.reporting import Trials, recorded_trials
from hard_use.signals import Signal, signals
from parity.implementations import OWN_OPERATIONS, label, own_operations
from parity.reports.records import ParityRecorder

LAST_BITS = 1e-6
HOP = 441
HALF_FRAME = 1024
# Examples of each law: of what computes on a CPU, and of torch's and MLX's arithmetic for a GPU, which is slower here.
NUMBER = {"cpu": 20, "gpu": 5}
NUMBER_IN_FULL = 100


@dataclasses.dataclass(frozen=True)
class Compute:
    """The log spectrogram by one backend at one precision."""

    backend: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backend}-{self.precision}"

    def __call__(self, stems: np.ndarray, sample_rate: int = 44100) -> np.ndarray:
        return log_spectrogram(stems, sample_rate, backend=self.backend, precision=self.precision)

    @property
    def tolerance(self) -> float:
        return LAST_BITS if self.precision == "exact" else 1e-5

    def recorded(
        self, record_parity: ParityRecorder, law: str, bound: str
    ) -> contextlib.AbstractContextManager[Trials]:
        """Record the trials of a law, whether it holds or not."""
        backend, precision = label(self.backend), self.precision
        law = f"spectrogram: {law}"
        return recorded_trials(record_parity, "properties", law, bound, backend=backend, precision=precision)


# The backends of torch and MLX compute as `fused` does on a CPU; the laws are for what they compute on a GPU.
CASES = [
    *itertools.starmap(Compute, itertools.product(("numpy", "fused"), backends.PRECISIONS)),
    *(Compute(implementation.backend, implementation.precision) for implementation in own_operations()),
]


@pytest.fixture(params=CASES, ids=str)
def compute(request: pytest.FixtureRequest) -> Compute:
    return request.param


@pytest.fixture
def trial(
    compute: Compute, pytestconfig: pytest.Config, record_parity: ParityRecorder
) -> Callable[..., None]:
    """Run a check on drawn inputs, and record how many were tried and what failed first."""

    def run(law: str, bound: str, check: Callable[..., None], **drawn: st.SearchStrategy) -> None:
        on_gpu = compute.backend in OWN_OPERATIONS.values()
        full = pytestconfig.getoption("--full")
        number = NUMBER_IN_FULL if full else NUMBER["gpu" if on_gpu else "cpu"]
        with compute.recorded(record_parity, law, bound) as trials:
            trials.draw(number, check, **drawn)

    return run


def test_silence_in_silence_out(compute: Compute, trial: Callable) -> None:
    def check(num_samples: int, dtype: str) -> None:
        output = compute(np.zeros((4, num_samples), dtype))
        assert output.shape == (4, num_frames(num_samples), 81)
        assert output.dtype == np.float32
        assert not output.any()

    trial(
        "silence in, silence out",
        "exactly 0",
        check,
        num_samples=st.integers(0, 10_000),
        dtype=st.sampled_from(["int16", "float32"]),
    )


def test_values_are_finite_and_not_negative(compute: Compute, trial: Callable) -> None:
    def check(signal: Signal) -> None:
        output = compute(signal.stems())
        assert np.isfinite(output).all()
        assert output.min() >= 0

    trial("values are finite and >= 0", "always", check, signal=signals())


def test_polarity_does_not_matter(compute: Compute, trial: Callable) -> None:
    """Negation is exact at every step before the absolute value; int16 has no +32768, so -32768 is left out."""

    def check(signal: Signal) -> None:
        stems = signal.stems()
        np.testing.assert_array_equal(compute(-stems), compute(stems))

    trial("polarity", "bit-identical", check, signal=signals())


def test_the_one_sample_without_a_negative(compute: Compute) -> None:
    """-32768 is as loud as 32768 / 32767 of full scale, not its clipped negative."""
    stems = np.zeros((1, 4410), np.int16)
    stems[0, 2205] = -32768
    louder = compute(stems)
    stems[0, 2205] = 32767
    ratio = (10.0 ** louder.astype(float) - 1).max() / (10.0 ** compute(stems).astype(float) - 1).max()
    assert abs(ratio - 32768 / 32767) < 2e-6


def test_stem_order(compute: Compute, trial: Callable) -> None:
    def check(signal: Signal, order: list[int]) -> None:
        stems = signal.stems()
        np.testing.assert_array_equal(compute(stems[order]), compute(stems)[order])

    trial("stem order", "bit-identical", check, signal=signals(), order=st.permutations(range(4)))


def test_a_stem_does_not_hear_the_others(compute: Compute, trial: Callable) -> None:
    def check(signal: Signal, stem: int) -> None:
        stems = signal.stems()
        np.testing.assert_allclose(compute(stems[stem]), compute(stems)[stem], rtol=0, atol=compute.tolerance)

    trial("a stem alone", "<= 1e-6 (fast 1e-5)", check, signal=signals(), stem=st.integers(0, 3))


@pytest.mark.parametrize(("sample_rate", "hops"), [(44100, 1), (22050, 2)])
def test_a_delay_of_whole_hops_delays_the_frames(
    compute: Compute, trial: Callable, sample_rate: int, hops: int
) -> None:
    """At 22,050 Hz a hop is 220.5 samples, so two hops are whole."""

    def check(signal: Signal, times: int) -> None:
        stems = signal.stems()
        delayed = np.pad(stems, ((0, 0), (times * 441, 0)))
        output, frames = compute(delayed, sample_rate), times * hops
        expected = compute(stems, sample_rate)
        np.testing.assert_allclose(output[:, frames:], expected, rtol=0, atol=compute.tolerance)
        hears_nothing = max(0, (times * 441 - HALF_FRAME) * hops // 441 + 1)
        assert not output[:, :hears_nothing].any()

    law = f"delay of whole hops at {sample_rate:,} Hz"
    trial(law, "<= 1e-6 (fast 1e-5)", check, signal=signals(), times=st.integers(1, 40))


def test_in_sections_against_whole(compute: Compute, trial: Callable) -> None:
    """Cut anywhere on a hop, with half a frame of context on either side, and put together."""

    def check(signal: Signal, frames_per_section: int) -> None:
        stems = signal.stems()
        whole = compute(stems)
        context = -(-HALF_FRAME // HOP)
        sections = []
        for first in range(0, whole.shape[1], frames_per_section):
            start = max(0, first - context)
            section = compute(stems[:, start * HOP : (first + frames_per_section + context) * HOP])
            sections.append(section[:, first - start : first - start + frames_per_section])
        np.testing.assert_allclose(np.concatenate(sections, 1), whole, rtol=0, atol=compute.tolerance)

    trial(
        "in sections against whole",
        "<= 1e-6 (fast 1e-5)",
        check,
        signal=signals(),
        frames_per_section=st.sampled_from([1, 2, 7, 64, 65]),
    )


# Constants of each backend that say how many frames are computed at a time, and other values for them.
CHUNK_SIZES = {
    "numpy": [{"CHUNK_FRAMES": 1}, {"CHUNK_FRAMES": 13}, {"CHUNK_FRAMES": 10**6}, {"PRODUCT_FRAMES": 7}],
    "fused": [{"CHUNK_FRAMES": 1}, {"CHUNK_FRAMES": 13}, {"CHUNK_FRAMES": 10**6}],
    OWN_OPERATIONS["torch"]: [{"CPU_FRAMES": 1}, {"CPU_FRAMES": 13}, {"CPU_FRAMES": 10**6}],
    OWN_OPERATIONS["mlx"]: [{"PASS_FRAMES": 1}, {"PASS_FRAMES": 13}, {"PASS_FRAMES": 10**6}],
}


@pytest.mark.parametrize(
    ("compute", "sizes"),
    [(compute, sizes) for compute in CASES for sizes in CHUNK_SIZES[compute.backend]],
    ids=str,
)
def test_chunk_size_does_not_matter(
    compute: Compute, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch, record_parity: ParityRecorder
) -> None:
    recipes = [
        Signal("noise", 1, 441 * frames + 5, dtype) for frames in (13, 30) for dtype in ("int16", "float32")
    ]
    expected = [compute(recipe.stems()) for recipe in recipes]
    module = importlib.import_module(backends.get("spectrogram", compute.backend).target.partition(":")[0])
    for name, value in sizes.items():
        monkeypatch.setattr(module, name, value)
    with compute.recorded(record_parity, "chunk size", "<= 1e-6 (fast 1e-5)") as trials:
        for recipe, one in zip(recipes, expected, strict=True):
            trials.tried += 1
            difference = trials.differ_by(np.abs(compute(recipe.stems()) - one).max())
            assert difference <= compute.tolerance, f"{sizes}, {recipe}"


def test_repetitions_and_what_ran_before(compute: Compute, trial: Callable) -> None:
    def check(signal: Signal, other: Signal) -> None:
        stems = signal.stems()
        first = compute(stems)
        np.testing.assert_array_equal(stems, signal.stems())
        compute(other.stems(), 48000)
        compute(other.stems(1))
        np.testing.assert_array_equal(compute(stems), first)

    trial("repetition, whatever ran between", "bit-identical", check, signal=signals(), other=signals())


@pytest.mark.parametrize("compute", CASES[:4], ids=str)
def test_number_of_threads(compute: Compute, record_parity: ParityRecorder) -> None:
    """A frame is computed by one thread, in the same way whichever it is."""

    def check(signal: Signal) -> None:
        stems = signal.stems()
        outputs = []
        for cores in (1, 2, 5):
            # As many threads as that even where the machine has fewer cores.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(cores_module, "usable_cores", lambda cores=cores: cores)
                outputs.append(compute(stems))
        for other in outputs[1:]:
            np.testing.assert_array_equal(other, outputs[0])

    with compute.recorded(record_parity, "1, 2 and 5 threads", "bit-identical") as trials:
        trials.draw(10, check, signal=signals(60_000))


@pytest.mark.parametrize("backend", ["numpy", "fused"])
def test_one_core_is_one_thread(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the law above varies is what the library's users vary."""
    started = []
    start = threading.Thread.start
    monkeypatch.setattr(
        threading.Thread, "start", lambda thread: started.append(thread.name) or start(thread)
    )
    stems = Signal("noise", 0, 300_000, "int16").stems()
    with limited_cores(1):
        one = log_spectrogram(stems, backend=backend)
    assert started == []
    with limited_cores(2):
        np.testing.assert_array_equal(one, log_spectrogram(stems, backend=backend))
    assert started == ["log_spectrogram_1"] * (min(usable_cores(), 2) - 1)


def test_eight_threads_at_once(compute: Compute, record_parity: ParityRecorder) -> None:
    recipes = [
        Signal(kind, 3, 9_000 + 1000 * index, dtype)
        for index, kind in enumerate(("noise", "tones", "square", "impulses"))
        for dtype in ("int16", "float32")
    ]
    inputs = [recipe.stems() for recipe in recipes] * 2
    with compute.recorded(record_parity, "8 threads at once", "bit-identical") as trials:
        trials.tried = len(inputs)
        expected = [compute(stems) for stems in inputs]
        with ThreadPoolExecutor(8) as pool:
            outputs = list(pool.map(compute, inputs))
        trials.wrong += [
            str(recipes[index % 8])
            for index, (one, other) in enumerate(zip(expected, outputs, strict=True))
            if not np.array_equal(one, other)
        ]
        assert not trials.wrong
