"""The gate's bars of speed fail where a backend misses them, and only there, on a noisy machine and a busy one.

All of it runs on a seeded clock, or on times that are given.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import types
from collections.abc import Callable

import numpy as np
import pytest

from bench.gate import judge
from bench.gate.bars import read_bars
from bench.gate.cases import Case, reading_case, separation_case
from bench.gate.speed import PromiseCheck, Timing, time_case
from bench.measure.paired import paired_ratio
from parity.environment import usable_cores
from parity.inputs import separation
from parity.material import SAMPLE_RATE, default_track


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
def noisy_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], NoisyMachine]:
    """Makes a seeded machine by whose clock cases are timed, without the collections of garbage around every call."""

    def make(seed: int) -> NoisyMachine:
        machine = NoisyMachine(seed)
        clock = types.SimpleNamespace(process_time=lambda: machine.now, perf_counter=lambda: machine.now)
        monkeypatch.setattr("bench.gate.speed.time", clock)
        monkeypatch.setattr("bench.measure.paired._undisturbed", lambda: contextlib.nullcontext(int))
        return machine

    return make


@pytest.fixture
def whatever_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict is that of the ratios; what the gate says of a machine that is too busy has tests of its own."""
    monkeypatch.setattr("bench.gate.speed.usable_cores", lambda: 10**6)


def timing(ratio: float, busy_elsewhere: float = 0.0, rounds: int = 9) -> Timing:
    return Timing(np.full(rounds, 1 / ratio), np.ones(rounds), busy_elsewhere=busy_elsewhere)


PAIR = Case("stage", "backend", "exact", 2, int, int, lambda *_: 0.0, "oracle")


@pytest.mark.parametrize(("threads", "seconds"), [(1, 1.0), (2, 3.0)])
def test_one_thread_is_timed_by_its_processor_and_several_by_the_wall(
    threads: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = {name: itertools.count(0, step) for name, step in (("process_time", 1), ("perf_counter", 3))}
    clock = types.SimpleNamespace(**{name: functools.partial(next, count) for name, count in clocks.items()})
    monkeypatch.setattr("bench.gate.speed.time", clock)
    timed = time_case(dataclasses.replace(PAIR, threads=threads), rounds=2)
    assert [*timed.candidate, *timed.reference] == [seconds] * 4


def promise(
    bar: float, timings: list[Timing], monkeypatch: pytest.MonkeyPatch, case: Case = PAIR
) -> PromiseCheck:
    """A check of a bar, one of twelve, after measurements that gave these times."""
    left = iter(timings)
    monkeypatch.setattr("bench.gate.speed.time_case", lambda *_: next(left))
    check = PromiseCheck(case, bar, 9, 12)
    check.measure_until_clear(len(timings))
    return check


def test_a_bar_is_missed_only_by_rounds_that_are_sure_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """2^-15 is below ALPHA / 12, and 2^-14 is not."""
    monkeypatch.setattr("bench.gate.speed.usable_cores", lambda: 2)
    for rounds, passed in ((7, None), (8, False)):
        verdict = promise(5.0, [timing(2.0, rounds=7), timing(2.0, rounds=rounds)], monkeypatch).verdict
        assert (verdict.passed, verdict.required) == (passed, passed is not None)
    # One round of fifteen above the bar leaves it open.
    times = np.where(np.arange(15) == 3, 1 / 6, 1 / 2)
    verdict = promise(5.0, [Timing(times, np.ones(15))], monkeypatch).verdict
    assert verdict.passed is None
    assert "cannot tell" in verdict.measured


def test_a_loss_counts_only_if_there_were_cores_to_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.gate.speed.usable_cores", lambda: 2)
    busy, quiet = timing(2.0, busy_elsewhere=0.9), timing(2.0, busy_elsewhere=0.05)
    verdict = promise(5.0, [busy, busy], monkeypatch).verdict
    assert verdict.passed is None
    assert not verdict.required
    assert verdict.measured.endswith("cannot tell; other processes kept 0.9 cores busy")
    assert promise(5.0, [quiet, busy], monkeypatch).verdict.passed is False
    alone = dataclasses.replace(PAIR, threads=1)
    assert promise(5.0, [busy, busy], monkeypatch, alone).verdict.passed is False
    assert promise(1.8, [busy], monkeypatch).verdict.passed is True


def test_a_promise_is_kept_by_the_rounds_that_nothing_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As seen beside a process that came and went: no measurement's lower end reaches 17, and yet it is 21."""
    times = np.where(np.arange(9) % 3 == 0, 1 / 21, 1 / 13)
    disturbed = Timing(times, np.ones(9), busy_elsewhere=0.8)
    assert promise(17.0, [disturbed], monkeypatch).verdict.passed is None
    twice = promise(17.0, [disturbed, disturbed], monkeypatch)
    assert twice.is_clear
    assert (twice.verdict.passed, twice.verdict.asked) == (True, "at least 17x at the lower end")
    assert twice.verdict.measured.endswith("; 21.00x undisturbed")
    lost = Timing(times * 1.3, np.ones(9), busy_elsewhere=0.0)
    assert promise(17.0, [lost] * 5, monkeypatch).verdict.passed is False


def test_times_that_are_no_numbers_keep_no_promise() -> None:
    with pytest.raises(ValueError, match="times must be positive"):
        paired_ratio(np.array([1.0, np.nan]), np.ones(2))


@pytest.mark.usefixtures("whatever_else_runs")
@pytest.mark.parametrize("seed", range(20))
def test_a_promise_with_a_sixth_of_room_is_decided_on_a_noisy_machine(
    seed: int, noisy_machine: Callable[[int], NoisyMachine]
) -> None:
    machine, bars = noisy_machine(seed), read_bars()
    unchanged, slower = (
        PromiseCheck(machine.case(0.5 / 12 * factor), 10.0, bars.rounds, 12).measure_until_clear(5)
        for factor in (1, 1.5)
    )
    assert unchanged.passed is True, unchanged
    assert slower.passed is False, slower


@pytest.mark.parametrize(("seconds", "difference", "passed"), [(0.5, 0.0, True), (2.0, np.inf, False)])
def test_files_are_held_to_the_time_and_samples_of_bare_decoding(
    seconds: float,
    difference: float,
    passed: bool,
    noisy_machine: Callable[[int], NoisyMachine],
    whatever_else_runs: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = dataclasses.replace(noisy_machine(0).case(seconds), difference=lambda *_: difference)
    monkeypatch.setattr("bench.gate.judge.reading_case", lambda kind: case)
    speed, samples = judge.judge_reading("flac", 0.63, read_bars())
    if isinstance(speed, PromiseCheck):
        speed = speed.measure_until_clear()
    assert (speed.passed, samples.passed) == (passed, passed)
    assert samples.row == "audio reading/flac"


@pytest.mark.parametrize(
    ("kind", "named"), [("wav", "WAV"), ("flac", "FLAC"), ("mp3", "MP3"), ("wav stereo", "WAV, stereo")]
)
def test_what_is_read_is_what_bare_decoding_gives(
    kind: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = default_track().lasting(10)
    monkeypatch.setattr("bench.gate.cases.default_track", lambda: track)
    case = reading_case(kind)
    assert case.difference(case.candidate(), case.reference()) == 0
    assert case.key == f"audio reading/four stems, {named}/exact/{usable_cores()} threads"


@pytest.mark.parametrize("running", ["AVX-512", "AVX2"])
def test_a_separation_that_is_slower_or_differs_fails(running: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the few rounds that it is given, and at the end of the run, when it is timed again."""
    [row] = [row for row in read_bars().rows if row.stage == "separation"]
    monkeypatch.setattr(judge, "check_what_runs", lambda *_: None)
    monkeypatch.setattr(judge, "instruction_set", lambda: running)
    monkeypatch.setattr(judge, "separation_case", lambda seconds: PAIR)
    for factor, difference, passed in ((1.01, 1e-5, [True, True]), (0.99, 1.1e-5, [False, False])):
        ratio = row.min_ratio[running] * factor

        def time_case(
            case: Case, rounds: int, ratio: float = ratio, difference: float = difference
        ) -> Timing:
            return dataclasses.replace(timing(ratio, rounds=rounds), difference=difference)

        monkeypatch.setattr("bench.gate.speed.time_case", time_case)
        _, speed, samples = judge.judge_row(row, read_bars(), [])
        if isinstance(speed, PromiseCheck):
            assert speed.verdict.passed is None
            speed = speed.measure_until_clear(judge._FURTHER_TIMES)
        assert [speed.passed, samples.passed] == passed


def test_what_is_separated_is_what_demucs_infer_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("demucs_infer", reason="demucs-infer is not installed (extra 'demucs')")
    monkeypatch.setattr("parity.inputs.separation.PUBLISHED", separation.SMALL)
    case = separation_case(seconds=1)
    found, expected = case.candidate(), case.reference()
    assert found.shape == (4, 2, SAMPLE_RATE)
    assert case.difference(found, expected) <= 1e-5
    assert case.difference(found * 1.001, expected) > 1e-5
    assert case.key == f"separation/demucs-infer/exact/{usable_cores()} threads"
