"""What two hundred runs leave behind: nothing. Tracing slows them, so that it has two hundred of its own."""

from __future__ import annotations

import functools
import gc
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from allin1_core import Analyzer
from allin1_core.dbn import DBNDownBeatTrackingProcessor
from allin1_core.spectrogram import log_spectrogram
from bench.measure.allocator import return_freed_memory
from hard_use.networks import network, spectrogram
from hard_use.reporting import check_trials
from parity.implementations import names
from parity.reports.records import ParityRecorder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory as Linux shows it")

RUNS = 200
# Resident memory moves by what an allocator keeps; 200 leaks of a single page of 4 kB would be 0.8 MB, of an array
# of any stage 17 megabytes and more.
RESIDENT = 16 << 20
# Python objects and numpy arrays are counted to the byte: less than 400 bytes a run, which no array fits into.
TRACED = 80_000


def resident() -> int:
    """Resident memory in bytes, without what is freed but kept by the allocator for later."""
    return_freed_memory()
    return int(Path("/proc/self/statm").read_text().split()[1]) << 12


def growth(run: Callable[[int], object]) -> tuple[int, int]:
    """Growth of resident memory over `RUNS` runs, then of traced memory over as many, after a warm-up."""
    for index in range(RUNS // 5):
        run(index)
    gc.collect()
    before = resident()
    for index in range(RUNS):
        run(index)
    gc.collect()
    grown = resident() - before
    tracemalloc.start()
    try:
        # What was made before the tracing began, and is made anew now and then, would look like growth.
        for index in range(RUNS // 5):
            run(index)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for index in range(RUNS):
            run(index)
        gc.collect()
        return grown, tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def decode(index: int) -> None:
    activations = np.random.default_rng(index % 5).random((300 + index % 5, 2), np.float32) / 2
    DBNDownBeatTrackingProcessor([3, 4], fps=100)(activations)


def compute(backend: str) -> Callable[[int], object]:
    # Arrays of numpy are traced to the byte; those of libraries must be large enough to show in resident memory.
    num_samples = 10_000 if backend in ("numpy", "fused") else 60_000
    stems = np.random.default_rng(0).integers(-9000, 9000, (4, num_samples), np.int16)
    return lambda index: log_spectrogram(stems[:, index % 7 :], backend=backend)


def infer(backend: str) -> Callable[[int], object]:
    model = network(backend)
    return lambda index: model(spectrogram(40 + index % 7))


STAGES = {"decoder": lambda: decode} | {
    f"{stage}, {backend}": functools.partial(make, backend)
    for stage, make in (("spectrogram", compute), ("network", infer))
    for backend in names(stage)
}
COMPILED = ("decoder", "spectrogram, fused", "network, fused")


@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=[pytest.mark.full] * (stage not in COMPILED)) for stage in STAGES]
)
def test_stages_do_not_leak(stage: str, record_parity: ParityRecorder) -> None:
    check(stage, STAGES[stage](), record_parity)


@pytest.mark.full
def test_the_pipeline_does_not_leak(
    small_model: str, write_stems: Callable, record_parity: ParityRecorder
) -> None:
    folder = write_stems("a")
    analyzer = Analyzer(model=small_model, device="cpu")
    check("stems to result", lambda _: analyzer(folder), record_parity)


def check(what: str, run: Callable[[int], object], record_parity: ParityRecorder) -> None:
    grown, traced = growth(run)
    wrong = [f"resident memory grew by {grown} bytes"] * (grown > RESIDENT)
    wrong += [f"traced memory grew by {traced} bytes"] * (traced > TRACED)
    check_trials(
        record_parity,
        "instruments",
        f"leaks: {what}",
        f"<= {RESIDENT >> 20} MB resident, <= {TRACED // 1000} kB traced, over {RUNS} runs each",
        tried=2 * RUNS,
        wrong=wrong,
        grown_bytes=grown,
        traced_bytes=traced,
    )


@pytest.mark.parametrize("size", [1 << 10, 1 << 17])
def test_a_leak_is_noticed(size: int) -> None:
    held = []
    grown, traced = growth(lambda _: held.append(np.ones(size // 8)))
    assert traced > TRACED
    assert grown > RESIDENT or size < 1 << 17
