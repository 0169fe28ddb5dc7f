"""The thread pool: what it returns and raises, that it waits for its helpers, and that every stage keeps to a limit."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import Analyzer
from allin1_core.network import _fused, build_model
from allin1_core.threads import (
    Lock,
    Slots,
    ThreadPool,
    at_most_usable,
    cores_of_a_reader,
    limited_cores,
    readers,
    usable_cores,
)
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


@pytest.mark.parametrize(("num_threads", "seen"), [(1, {"MainThread"}), (3, {"pool_1", "pool_2", "pool_3"})])
def test_a_caller_that_waits_works_where_it_is_alone(num_threads: int, seen: set[str]) -> None:
    all_there = threading.Barrier(num_threads)

    def name(item: int) -> str:
        all_there.wait(30)
        return threading.current_thread().name

    with ThreadPool(num_threads, "pool", caller_waits=True) as pool:
        assert {*pool.map(name, range(num_threads))} == seen
    assert helpers_alive() == []


def test_a_helper_that_cannot_be_started_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "pool_2":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"), ThreadPool(3, "pool") as pool:
        pool.map(time.sleep, [0.01] * 3)
    assert helpers_alive() == []


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


@pytest.mark.parametrize(
    ("errors", "raised"),
    [
        ((ValueError("item 0"), ValueError("item 1")), "item 0"),
        ((ValueError("item 0"), KeyboardInterrupt("item 1")), "item 1"),
    ],
)
def test_of_several_errors_the_foremost_is_raised_but_an_interruption_before_others(
    errors: tuple[BaseException, BaseException], raised: str
) -> None:
    both = threading.Barrier(2)

    def run(item: int) -> None:
        both.wait(30)
        time.sleep(0.2 * (item == 0))
        raise errors[item]

    with ThreadPool(2) as pool, pytest.raises(type(errors[int(raised[-1])]), match=raised):
        pool.map(run, range(2))


def test_callers_of_one_model_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)
    run_pass = _fused.run_pass

    def together(*arguments: Any, **more: Any) -> None:
        both.wait(30)
        run_pass(*arguments, **more)

    monkeypatch.setattr(_fused, "run_pass", together)
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


def test_every_stage_of_an_analysis_keeps_to_its_number_of_threads(
    small_model: str, song: Path, started: list[str]
) -> None:
    one = Analyzer(model=small_model, device="cpu", num_threads=1)(song)
    assert started == ["model_load"]
    assert one.to_json() == Analyzer(model=small_model, device="cpu")(song).to_json()
    kinds = {name.rpartition("_")[0] for name in started[2:]}
    assert kinds == ({"stems", "log_spectrogram", "allin1-network", "dbn"} if usable_cores() > 1 else {"dbn"})


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


def test_slots_are_held_by_so_many_and_found_free_in_a_child() -> None:
    slots, inside, seen = Slots(3), [], []

    def enter(item: int) -> None:
        with slots:
            inside.append(item)
            seen.append(len(inside))
            time.sleep(0.02)
            inside.remove(item)

    with ThreadPool(6) as pool:
        pool.map(enter, range(18))
    assert max(seen) == 3
    with slots, slots, slots:
        child = os.fork()
        if child == 0:
            with slots:
                os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_limit_holds_inside_its_block_and_nests() -> None:
    cores = usable_cores()
    with limited_cores(10 * cores):
        assert usable_cores() == cores
        with limited_cores(1):
            assert usable_cores() == 1
        assert usable_cores() == cores
    assert usable_cores() == cores


def test_a_limit_holds_in_the_helpers_of_a_pool() -> None:
    both = threading.Barrier(2)

    def most(item: int) -> int:
        both.wait(30)
        return at_most_usable(99)

    with limited_cores(2), ThreadPool(9) as pool:
        assert pool.map(most, range(2)) == [2, 2]


def test_a_limit_is_the_callers_own() -> None:
    seen = []
    with limited_cores(1):
        other = threading.Thread(target=lambda: seen.append(usable_cores()))
        other.start()
        other.join()
    assert seen == [usable_cores()]


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="most: 0; expected at least 1 core"), limited_cores(0):
        pass


def test_readers_share_the_cores_and_one_has_at_least_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    assert cores_of_a_reader() == 16
    with readers(3), ThreadPool(2) as pool:
        assert pool.map(lambda item: cores_of_a_reader(), range(2)) == [5, 5]
        with readers(2):
            assert cores_of_a_reader() == 2
        with readers(6):
            assert cores_of_a_reader() == 1
        with limited_cores(7):
            assert cores_of_a_reader() == 2
    assert cores_of_a_reader() == 16


def test_what_helpers_make_ahead_comes_in_order_and_within_its_bound() -> None:
    begun, threads, two = [], set(), threading.Barrier(2)

    def run(item: int) -> int:
        begun.append(item)
        threads.add(threading.current_thread())
        if item < 2:
            two.wait(30)  # which two helpers must come to
        time.sleep(0.001 * (item % 3))
        return item

    with ThreadPool(2) as pool:
        for number, output in enumerate(pool.map_ahead(run, range(30), 4)):
            assert output == number
            time.sleep(0.002)
            assert max(begun) <= number + 4
    assert number == 29
    assert len(threads) == 2
    assert threading.current_thread() not in threads


def test_an_error_of_what_is_made_ahead_comes_in_its_place() -> None:
    def run(item: int) -> float:
        return 1 / (item - 3)

    outputs = []
    with pytest.raises(ZeroDivisionError), ThreadPool(3) as pool:
        outputs.extend(pool.map_ahead(run, range(9), 4))
    assert outputs == [1 / -3, 1 / -2, 1 / -1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("allin1-core_")]
