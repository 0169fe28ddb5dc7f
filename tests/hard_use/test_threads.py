"""Eight threads that share the decoder, the caches of the models, and an analyzer."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pytest

from allin1_core import Analyzer
from allin1_core.dbn import DBNBeatTrackingProcessor, DBNDownBeatTrackingProcessor, hidden_markov_model
from allin1_core.spectrogram import log_spectrogram
from allin1_core.spectrogram.filterbank import filterbank
from hard_use.reporting import check_trials
from parity.meta_tests.test_spectrogram import clear_caches
from parity.reports.records import ParityRecorder

THREADS = 8
Output = TypeVar("Output")


def all_at_once(run: Callable[[int], Output], number: int) -> list[Output]:
    """Outputs of ``run(0)``, ``run(1)`` ... from `THREADS` threads that start at the same moment."""
    start = threading.Barrier(THREADS)

    def wait_and_run(index: int) -> Output:
        if index < THREADS:
            start.wait(30)
        return run(index)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(wait_and_run, range(number)))


def check_same(
    record_parity: ParityRecorder, what: str, expected: list[Any], found: list[Any], backend: str = ""
) -> None:
    """Arrays, or texts, of a call by several threads are those of one call after the other."""
    pairs = enumerate(zip(expected, found, strict=True))
    wrong = [f"call {index} differs" for index, (one, other) in pairs if not np.array_equal(one, other)]
    bound, tried = "identical", len(found)
    check_trials(record_parity, "instruments", what, bound, tried=tried, wrong=wrong, backend=backend)


def activations(index: int) -> np.ndarray:
    random = np.random.default_rng(index)
    values = random.random((400 + 50 * (index % 8), 2), np.float32) * np.float32(0.05)
    values[:: 45 + index % 5, 0] = 0.9
    values[:: 4 * (45 + index % 5), 1] = 0.95
    values[:: 4 * (45 + index % 5), 0] = 0.01
    return values


@pytest.mark.parametrize("num_threads", [1, 2])
def test_threads_share_a_decoder(num_threads: int, record_parity: ParityRecorder) -> None:
    processor = DBNDownBeatTrackingProcessor([3, 4], fps=100, num_threads=num_threads)
    expected = [processor(activations(index)) for index in range(32)]
    assert all(len(beats) for beats in expected)
    found = all_at_once(lambda index: processor(activations(index)), 32)
    what = f"decoder from {THREADS} threads, num_threads={num_threads}"
    check_same(record_parity, what, expected, found, "cython")


def test_threads_fill_the_caches_of_the_decoder_together(record_parity: ParityRecorder) -> None:
    parameters: list[dict[str, Any]] = [
        {"beats_per_bar": meters, "num_tempi": tempi, "fps": 100}
        for meters in ([3], [4], [3, 4])
        for tempi in (30, 60)
    ]

    def decode(index: int) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return DBNDownBeatTrackingProcessor(**parameters[index % 6])(activations(index))

    def clear() -> None:
        hidden_markov_model.bar_model.cache_clear()
        hidden_markov_model.beat_model.cache_clear()

    expected, found = [decode(index) for index in range(24)], []
    for _ in range(5):
        clear()
        found += all_at_once(decode, 24)
    what = f"decoder's caches filled by {THREADS} threads"
    check_same(record_parity, what, 5 * expected, found, "cython")
    beats = DBNBeatTrackingProcessor(fps=100)
    alone = beats(activations(0)[:, 0])
    assert all(
        np.array_equal(alone, other) for other in all_at_once(lambda _: beats(activations(0)[:, 0]), 16)
    )


@pytest.mark.parametrize("backend", ["numpy", "fused"])
def test_threads_fill_the_caches_of_the_spectrogram_together(
    backend: str, record_parity: ParityRecorder
) -> None:
    rates = (44100, 22050, 48000, 8000)
    stems = np.random.default_rng(0).integers(-9000, 9000, (4, 8000), np.int16)

    def compute(index: int) -> np.ndarray:
        return log_spectrogram(stems, rates[index % 4], backend=backend)

    expected, found = [compute(index) for index in range(4)], []
    for _ in range(3):
        clear_caches()
        found += all_at_once(compute, 16)
    what = f"spectrogram's caches filled by {THREADS} threads"
    check_same(record_parity, what, 12 * expected, found, backend)
    assert filterbank.cache_info().currsize == len(rates)
    assert not filterbank(44100).flags.writeable


def test_threads_share_an_analyzer(
    small_model: str, write_stems: Callable, stems: np.ndarray, record_parity: ParityRecorder
) -> None:
    folders = [
        write_stems(f"{index}", samples=np.roll(stems, 5000 * index, axis=1)[:, : 60_000 + 9000 * index])
        for index in range(8)
    ]
    options = {"model": small_model, "device": "cpu"}
    one = Analyzer(**options)
    expected = [one(folder).to_json() for folder in folders]
    shared = Analyzer(**options)
    found = all_at_once(lambda index: shared(folders[index % 8]).to_json(), 16)
    check_same(record_parity, f"an analyzer shared by {THREADS} threads", 2 * expected, found)
