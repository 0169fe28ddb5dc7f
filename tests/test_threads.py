"""The thread pool: what it returns and raises, that it waits for its helpers, and that every stage keeps to a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import Analyzer, self_test
from allin1_core.dbn import DBNDownBeatTrackingProcessor
from allin1_core.dbn.metrical import decoder_input
from allin1_core.errors import BackendError
from allin1_core.network import _fused, build_model
from allin1_core.separation import folder as stems_folder
from allin1_core.separation import read_stems_folder
from allin1_core.threads import Lock, ThreadPool, limited_cores, usable_cores
from parity.inputs.networks import random_checkpoint, random_spectrogram

pytestmark = pytest.mark.timeout(120)


def helpers_alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pool_")]


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_outputs_are_in_the_order_of_the_items(num_threads: int) -> None:
    seen = set()

    def square(number: int) -> int:
        seen.add(threading.current_thread().name)
        time.sleep(0.001 * (number % 3))
        return number * number

    with ThreadPool(num_threads, "pool") as pool:
        assert pool.map(square, []) == []
        assert pool.map(square, range(40)) == [number * number for number in range(40)]
        assert pool.map(square, range(40)) == [number * number for number in range(40)]
        assert len(helpers_alive()) == num_threads - 1
    assert helpers_alive() == []
    assert seen == {
        threading.current_thread().name,
        *(f"pool_{number}" for number in range(1, num_threads)),
    }


@pytest.mark.parametrize("fails_in_helper", [True, False])
def test_an_error_is_raised_when_all_that_was_begun_has_ended(fails_in_helper: bool) -> None:
    """The other thread may be at work on memory that belongs to the caller."""
    both, begun, ended = threading.Barrier(2), [], []

    def run(item: int) -> None:
        begun.append(item)
        both.wait(30)
        if (threading.current_thread().name == "pool_1") == fails_in_helper:
            raise ValueError(f"item {item}")
        time.sleep(0.3)
        ended.append(item)

    with ThreadPool(2, "pool") as pool:
        with pytest.raises(ValueError, match="item"):
            pool.map(run, range(10))
        assert sorted(begun) == [0, 1]
        assert len(ended) == 1
    assert helpers_alive() == []


def test_of_several_errors_the_foremost_items_is_raised() -> None:
    both = threading.Barrier(2)

    def run(item: int) -> None:
        both.wait(30)
        time.sleep(0.2 * (item == 0))
        raise ValueError(f"item {item}")

    with ThreadPool(2) as pool, pytest.raises(ValueError, match="item 0"):
        pool.map(run, range(2))


def test_an_interruption_goes_before_other_errors() -> None:
    both = threading.Barrier(2)

    def run(item: int) -> None:
        both.wait(30)
        raise KeyboardInterrupt if item else ValueError("item 0")

    with ThreadPool(2) as pool, pytest.raises(KeyboardInterrupt):
        pool.map(run, range(2))


def test_a_pass_of_the_network_that_fails_leaves_no_thread_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread left behind would write into the buffers, and into the scratch memory of the next call."""
    both, at_work = threading.Barrier(2), []
    run_block = _fused.run_block

    def failing(*arguments: Any) -> None:
        both.wait(30)
        if threading.current_thread() is threading.main_thread():
            raise MemoryError("no more")
        at_work.append("begun")
        time.sleep(0.3)
        run_block(*arguments)
        at_work.append("ended")

    spectrogram = random_spectrogram(700)
    model = build_model([random_checkpoint(0)], backend="fused", device="cpu", num_threads=2)
    expected = model(spectrogram)
    with monkeypatch.context() as patch:
        patch.setattr(_fused, "run_block", failing)
        with pytest.raises(MemoryError, match="no more"):
            model(spectrogram)
        assert at_work == ["begun", "ended"]
    np.testing.assert_array_equal(model(spectrogram).label, expected.label)


def test_callers_of_one_model_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)
    run_stem = _fused.run_stem

    def together(*arguments: Any) -> None:
        both.wait(30)
        run_stem(*arguments)

    monkeypatch.setattr(_fused, "run_stem", together)
    model = build_model([random_checkpoint(0)], backend="fused", device="cpu", num_threads=1)
    with ThreadPool(2) as pool:
        one, other = pool.map(model, [random_spectrogram(300)] * 2)
    np.testing.assert_array_equal(one.label, other.label)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that were started."""
    names: list[str] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: names.append(thread.name) or start(thread))
    return names


def test_stems_are_read_by_as_many_threads_as_may_be_used(
    write_stems: Callable[..., Path], started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_stems("song")
    monkeypatch.setattr(stems_folder, "_read_mono", slowly(stems_folder._read_mono))
    with limited_cores(1):
        stems = read_stems_folder(folder)
    assert started == []
    np.testing.assert_array_equal(read_stems_folder(folder).samples, stems.samples)
    assert started == [f"stems_{number}" for number in range(1, min(usable_cores(), 4))]


def slowly(run: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*arguments: Any) -> Any:
        time.sleep(0.05)
        return run(*arguments)

    return slow


def test_the_decoder_keeps_to_a_limit(started: list[str]) -> None:
    activations = decoder_input(*self_test.probabilities())
    decode = DBNDownBeatTrackingProcessor([3, 4], fps=100, num_threads=2)
    with limited_cores(1):
        alone = decode(activations)
    assert started == []
    np.testing.assert_array_equal(decode(activations), alone)
    assert started == ["dbn_1"]


def test_every_stage_of_an_analysis_keeps_to_its_number_of_threads(
    small_model: str, write_stems: Callable[..., Path], started: list[str]
) -> None:
    folder = write_stems("song")
    one = Analyzer(model=small_model, device="cpu", num_threads=1)(folder)
    assert started == ["model_load"]
    assert one.to_json() == Analyzer(model=small_model, device="cpu")(folder).to_json()
    kinds = {name.rpartition("_")[0] for name in started[2:]}
    assert kinds == ({"stems", "log_spectrogram", "allin1-network", "dbn"} if usable_cores() > 1 else {"dbn"})


@pytest.mark.parametrize("num_threads", [0, -1])
def test_no_thread_at_all_is_refused_before_any_work(num_threads: int) -> None:
    with pytest.raises(BackendError, match=f"num_threads: {num_threads}; expected at least 1, or None"):
        Analyzer(device="cpu", num_threads=num_threads)


def test_a_lock_keeps_others_out() -> None:
    lock, inside = Lock(), []

    def enter(item: int) -> None:
        with lock:
            inside.append(item)
            time.sleep(0.01)
            assert inside == [item]
            inside.clear()

    with ThreadPool(4) as pool:
        pool.map(enter, range(12))
