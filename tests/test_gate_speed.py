"""The gate's checks of speed fail where a backend became slower, and only there, on a noisy machine and a busy one.

Most of it runs on a seeded clock; one backend is really slowed here, every kind in `make parity-full`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from allin1_core.simd import instruction_sets
from bench.gate import judge
from bench.gate.bars import Row, read_bars
from bench.gate.cases import Case, madmom_is_installed
from bench.gate.speed import PromiseCheck, SlowdownCheck, Timing, time_case
from bench.measure.busy_core import busy_core, short_cases
from bench.measure.paired import Ratio

needs_oracle = pytest.mark.skipif(
    not madmom_is_installed(), reason="the oracle madmom has no wheel for this Python"
)


def slowed(call: Callable[[], Any], factor: float) -> Callable[[], Any]:
    """The call, taking `factor` times the CPU seconds, by which one thread is timed."""

    def slow() -> Any:
        start = time.process_time()
        output = call()
        end = start + factor * (time.process_time() - start)
        while time.process_time() < end:
            pass
        return output

    return slow


@pytest.fixture
def beside_a_busy_core() -> Iterator[None]:
    with busy_core():
        yield


class NoisyMachine:
    """A clock, and work that takes longer than it should: by some per cent always, by a quarter in some seconds."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self._generator = np.random.default_rng(seed)
        self._spells = self._generator.random(1000) < 0.25

    def work(self, seconds: float) -> Callable[[], float]:
        def run() -> float:
            spell = 1.25 if self._spells[int(self.now / 2) % 1000] else 1.0
            self.now += seconds * spell * (1 + abs(self._generator.normal(0, 0.02)))
            return 0.0

        return run

    def case(self, seconds: float) -> Case:
        return Case(
            "stage",
            "backend",
            "exact",
            1,
            self.work(seconds),
            self.work(0.5),
            lambda *_: 0.0,
            "oracle",
        )


@pytest.fixture
def whatever_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict is that of the ratios; what the gate says of a machine that is too busy has tests of its own."""
    monkeypatch.setattr("bench.gate.speed.usable_cores", lambda: 64)


def check_of(case: Case, before: float) -> SlowdownCheck:
    bars = read_bars()
    return SlowdownCheck(case, before, bars.max_slowdown, bars.slowdown_rounds)


@pytest.fixture(scope="module")
def reached() -> dict[str, float]:
    """What the rows that are timed against the baseline reach on this tree."""
    rounds = read_bars().slowdown_rounds
    return {case.key: time_case(case, rounds).undisturbed for case in short_cases()}


@pytest.fixture
def noisy_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], NoisyMachine]:
    """Makes a seeded machine by whose clock cases are timed, without the collections of garbage around every call."""

    def make(seed: int) -> NoisyMachine:
        machine = NoisyMachine(seed)
        clock = types.SimpleNamespace(process_time=lambda: machine.now, perf_counter=lambda: machine.now)
        monkeypatch.setattr("bench.gate.speed.time", clock)
        monkeypatch.setattr("bench.measure.paired._undisturbed", lambda: contextlib.nullcontext(int))
        return machine

    return make


@pytest.mark.usefixtures("whatever_else_runs")
@pytest.mark.parametrize("seed", range(6))
def test_a_backend_slowed_by_30_percent_fails_on_a_noisy_machine(
    seed: int, noisy_machine: Callable[[int], NoisyMachine]
) -> None:
    machine, rounds = noisy_machine(seed), read_bars().slowdown_rounds
    before = time_case(machine.case(0.05), rounds).undisturbed
    slow = check_of(machine.case(0.05 * 1.3), before).measure_until_clear()
    assert slow.passed is False, slow
    assert slow.measured.endswith(f"in {3 * rounds} rounds")  # it was given further chances
    assert slow.asked == f"at least {before / 1.15:.3g}x"
    unchanged = check_of(machine.case(0.05), before).measure()
    assert unchanged.passed is True, unchanged


@needs_oracle
@pytest.mark.full
@pytest.mark.usefixtures("whatever_else_runs")
@pytest.mark.parametrize("index", range(4))
def test_a_real_backend_slowed_by_30_percent_fails(index: int, reached: dict[str, float]) -> None:
    case = short_cases()[index]
    slow = dataclasses.replace(case, candidate=slowed(case.candidate, 1.3))
    verdict = check_of(slow, reached[case.key]).measure_until_clear()
    assert verdict.passed is False, verdict
    assert verdict.row == case.key


@needs_oracle
@pytest.mark.full
@pytest.mark.usefixtures("beside_a_busy_core", "whatever_else_runs")
@pytest.mark.parametrize("repetition", range(3))
def test_an_unchanged_tree_passes_beside_a_busy_core(repetition: int, reached: dict[str, float]) -> None:
    for case in short_cases():
        verdict = check_of(case, reached[case.key]).measure_until_clear()
        assert verdict.passed is True, verdict


def timing(ratio: float, reference: float = 1.0, busy_elsewhere: float = 0.0) -> Timing:
    return Timing(np.full(4, reference / ratio), np.full(4, reference), busy_elsewhere=busy_elsewhere)


def test_a_loss_counts_where_no_round_of_any_measurement_is_free_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case("stage", "backend", "exact", 1, int, int, lambda *_: 0.0, "oracle")
    monkeypatch.setattr("bench.gate.speed.usable_cores", lambda: 64)
    for seen, passed in (
        ([timing(4.0), timing(9.0)], [False, True]),  # a spell that slowed the candidate down is over
        ([timing(4.0), timing(9.0, reference=2.25)], [False, False]),  # now one slows the reference down
        ([timing(4.0), timing(4.1), timing(4.0)], [False, False, False]),
    ):
        left = iter(seen)
        monkeypatch.setattr("bench.gate.speed.time_case", lambda *_, left=left: next(left))
        check = SlowdownCheck(case, 7.0, 1.15, 4)
        verdicts = [check.measure() for _ in seen]
        assert [verdict.passed for verdict in verdicts] == passed
        assert verdicts[-1].asked == "at least 6.09x"
        assert verdicts[-1].measured.endswith(f"in {4 * len(seen)} rounds")
    monkeypatch.setattr("bench.gate.speed.usable_cores", lambda: 2)
    monkeypatch.setattr("bench.gate.speed.time_case", lambda *_: timing(4.0, busy_elsewhere=2.0))
    busy = SlowdownCheck(case, 7.0, 1.15, 4).measure_until_clear()
    assert busy.passed is None
    assert "other processes kept 2.0 cores busy" in busy.measured


def test_a_loss_that_a_slow_reference_hides_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("stage", "backend", "exact", 1, int, int, lambda *_: 0.0, "oracle")
    monkeypatch.setattr("bench.gate.speed.usable_cores", lambda: 64)
    for seen, passed in (
        ([timing(6.3, reference=1.17), timing(5.4), timing(5.4)], False),  # 7 slowed by 30 %
        ([timing(6.3, reference=1.17), timing(6.7)], True),
        ([timing(6.6)], True),
        ([timing(6.2)] * 3, True),  # slower than it was, but by less than is asked
    ):
        left = iter(seen)
        monkeypatch.setattr("bench.gate.speed.time_case", lambda *_, left=left: next(left))
        assert SlowdownCheck(case, 7.0, 1.15, 4).measure_until_clear().passed is passed
        assert not list(left)


@needs_oracle
@pytest.mark.usefixtures("whatever_else_runs")
def test_the_gate_as_a_whole_names_the_backend_that_was_really_slowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In rounds of some tens of milliseconds: two seconds of music, and a dozen rounds a measurement."""
    monkeypatch.setattr(judge, "_SHORT", {"spectrogram": 2.0})
    monkeypatch.setattr(judge, "_LONG", {"spectrogram": 2.0})
    monkeypatch.setattr("bench.measure.instructions.valgrind_is_installed", lambda: False)
    monkeypatch.setattr(judge, "check_import", lambda *_: [])
    everywhere = dict.fromkeys(instruction_sets.NAMES, 0.01)
    row = Row("spectrogram", "numpy", "exact", min_ratio=everywhere, max_difference=0.0)
    bars = dataclasses.replace(read_bars(), rows=(row,), rounds=2, slowdown_rounds=12, f_measures={})
    case = judge.short_case(row)
    before = judge.ratio_to_keep(case, bars)
    monkeypatch.setattr(judge, "section_here", lambda _: {"ratios": {case.key: before}})
    slow = dataclasses.replace(case, candidate=slowed(case.candidate, 1.5))
    for timed, passed in ((case, True), (slow, False)):
        monkeypatch.setattr(judge, "short_case", lambda _, timed=timed: timed)
        verdicts = judge.judge(bars, [], lambda _: None)
        assert {verdict.check: verdict.passed for verdict in verdicts} == {
            f"ratio, {before:.3g}x in the baseline": passed,
            "what runs when asked for by name": True,
            f"ratio to {case.oracle}": True,
            "difference from the oracle": True,
            "instructions": None,
        }


PAIR = Case("stage", "backend", "exact", 2, int, int, lambda *_: 0.0, "oracle")


def promise(
    bar: float, timings: list[Timing], monkeypatch: pytest.MonkeyPatch, case: Case = PAIR
) -> PromiseCheck:
    """A check of a bar, after measurements that gave these times."""
    left = iter(timings)
    monkeypatch.setattr("bench.gate.speed.time_case", lambda *_: next(left))
    check = PromiseCheck(case, bar, 4)
    check.measure_until_clear(len(timings))
    return check


def test_a_loss_counts_only_if_there_were_cores_to_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.gate.speed.usable_cores", lambda: 2)
    busy, quiet = timing(2.0, busy_elsewhere=0.9), timing(2.0, busy_elsewhere=0.05)
    verdict = promise(5.0, [busy, busy], monkeypatch).verdict
    assert verdict.passed is None
    assert verdict.required
    assert "other processes kept 0.9 cores busy" in verdict.measured
    assert promise(5.0, [quiet, busy], monkeypatch).verdict.passed is False
    alone = dataclasses.replace(PAIR, threads=1)
    assert promise(5.0, [busy, busy], monkeypatch, alone).verdict.passed is False
    assert promise(1.8, [busy], monkeypatch).verdict.passed is True


def test_an_interval_too_wide_to_judge_by_is_no_loss_unless_all_of_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for ratio, passed in (
        (Ratio(1.6, 1.1, 2.0, 9), None),
        (Ratio(0.8, 0.5, 1.1, 9), False),
        (Ratio(1.25, 1.1, 1.4, 9), False),
        (Ratio(1.6, 1.3, 2.5, 9), True),
    ):
        monkeypatch.setattr("bench.gate.speed.paired_ratio", lambda *_, ratio=ratio: ratio)
        assert promise(1.2, [timing(1.0)], monkeypatch).verdict.passed is passed, ratio


def test_a_promise_is_kept_by_the_rounds_that_nothing_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As seen beside a process that came and went: no measurement's lower end reaches 17, and yet it is 21."""
    times = np.where(np.arange(9) % 3 == 0, 1 / 21, 1 / 13)
    disturbed = Timing(times, np.ones(9), busy_elsewhere=0.8)
    assert promise(17.0, [disturbed], monkeypatch).verdict.passed is not True
    twice = promise(17.0, [disturbed, disturbed], monkeypatch)
    assert twice.is_clear
    assert (twice.verdict.passed, twice.verdict.asked) == (True, "at least 17x at the lower end")
    assert twice.verdict.measured.endswith("; 21.00x undisturbed")
    lost = Timing(times * 1.3, np.ones(9), busy_elsewhere=0.0)
    assert promise(17.0, [lost] * 5, monkeypatch).verdict.passed is False


@pytest.mark.usefixtures("whatever_else_runs")
@pytest.mark.parametrize("seed", range(20))
def test_a_promise_with_a_sixth_of_room_is_decided_on_a_noisy_machine(
    seed: int, noisy_machine: Callable[[int], NoisyMachine]
) -> None:
    machine, rounds = noisy_machine(seed), read_bars().rounds
    unchanged = PromiseCheck(machine.case(0.5 / 12), 10.0, rounds).measure_until_clear(5)
    assert unchanged.passed is True, unchanged
    slower = PromiseCheck(machine.case(0.5 / 12 * 1.3), 10.0, rounds).measure_until_clear(5)
    assert slower.passed is False, slower
