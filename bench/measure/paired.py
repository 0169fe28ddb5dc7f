"""Times of a candidate and a reference taken alternately in one process, and their ratio with an interval.

Machines drift: another process wakes, a clock changes. A ratio of two medians taken minutes apart measures
that drift as well. Here the two sides take turns, so that a ratio is formed within a round, where the drift is the
same for both. They do so strictly: each call finds caches and sleeping threads as the other side left them, as a call
in a pipeline does. (Were the side that starts a round swapped, every other call would follow one of its own kind; on
two threads our spectrogram is a quarter faster then, and the interval is as wide as that.) The interval is that of the
median ratio by order statistics (`allin1_core.timings.interval`): of few rounds their range.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from allin1_core.timings.interval import median_interval, rank
from bench.measure.allocator import freed_memory_kept

# Beyond this, a backend that got 30 % slower could hide inside the interval of one that did not.
_WIDEST = 1.6
_FEWEST = 3
# From here on the interval leaves the outermost rounds out.
_ROBUST_ROUNDS = 9
# With fewer rounds a session is a short one.
_THOROUGH = 5
_GROWTH_ROUNDS = 3


def factor(value: float) -> str:
    """``12.34x``, ``0.0123x``."""
    return f"{value:.{2 if value >= 0.1 else 4}f}x"


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times faster the candidate is than the reference: median over rounds and interval."""

    median: float
    low: float
    high: float
    rounds: int = 0

    @property
    def too_few(self) -> bool:
        """Whether nothing can be said of how sure it is: fewer than three rounds."""
        return self.rounds < _FEWEST

    @property
    def too_noisy(self) -> bool:
        """Whether the ends of the interval are further apart than 1.6x."""
        return not self.too_few and self.high > _WIDEST * self.low

    @property
    def sure(self) -> bool:
        """Whether there were rounds enough, and an interval narrow enough, to judge by."""
        return not (self.too_few or self.too_noisy)

    @property
    def confidence(self) -> float:
        """How often an interval made so holds the true median, from 0 (one round) to 1."""
        return rank(self.rounds)[1]

    @property
    def is_range(self) -> bool:
        """Whether the interval is the range of the rounds."""
        return rank(self.rounds)[0] == 1

    def __str__(self) -> str:
        return f"{factor(self.median)} ({factor(self.low)[:-1]}-{factor(self.high)[:-1]})"


@dataclasses.dataclass(frozen=True)
class PairedTimes:
    """Wall times in seconds, one per round, ``float64 (rounds,)`` each, and what the last round returned."""

    candidate: np.ndarray
    reference: np.ndarray
    candidate_output: Any
    reference_output: Any

    @property
    def ratio(self) -> Ratio:
        return paired_ratio(self.candidate, self.reference)

    @property
    def as_fields(self) -> dict[str, Any]:
        """The times as `BenchRecord` has them."""
        return {"seconds": self.candidate.tolist(), "reference_seconds": self.reference.tolist()}


def paired_ratio(candidate: np.ndarray, reference: np.ndarray) -> Ratio:
    """Median of the per-round ratios ``reference / candidate`` with its interval; see the module's docstring.

    Parameters
    ----------
    candidate, reference : float64 (rounds,)
        Seconds; the same index is the same round.

    Raises
    ------
    ValueError
        If the two differ in length, are empty, or hold a time that is not positive.
    """
    candidate = np.asarray(candidate, dtype=np.float64)
    reference = np.asarray(reference, dtype=np.float64)
    if candidate.shape != reference.shape or candidate.ndim != 1 or candidate.size == 0:
        raise ValueError(
            f"candidate and reference: shapes {candidate.shape} and {reference.shape}; "
            "expected two equal one-dimensional shapes with at least one round"
        )
    if not (np.all(candidate > 0) and np.all(reference > 0)):
        raise ValueError("candidate and reference: times must be positive")
    ratios = reference / candidate
    interval = median_interval(ratios.tolist())
    return Ratio(float(np.median(ratios)), interval.low, interval.high, ratios.size)


def sure_rounds(rounds: int) -> int:
    """Rounds of a pair that takes seconds: enough to leave the outermost out, unless a short run is asked for."""
    return rounds if is_brief(rounds) else max(rounds, _ROBUST_ROUNDS)


def is_brief(rounds: int) -> bool:
    """Whether a run of that many rounds is a short one, which leaves out what takes minutes."""
    return rounds < _THOROUGH


def own_times(
    call: Callable[[], Any],
    *,
    rounds: int,
    synchronize: Callable[[Any], Any] | None = None,
    benchmark: Any = None,
) -> np.ndarray:
    """Wall times in seconds of one callable on its own, ``float64 (rounds,)``, taken with the care of a pair.

    One warm-up call, garbage collection off, freed memory kept, the device synchronised inside the timed region.
    `benchmark` is as in `paired_times`.
    """
    with _undisturbed() as collect:
        times, _ = _time_rounds(
            _synchronized(call, synchronize), collect, rounds, 1, time.perf_counter, benchmark
        )
    return times


def growth_point(
    audio_seconds: float,
    call: Callable[[], Any],
    peak_memory_bytes: int | None,
    synchronize: Callable[[Any], Any] | None = None,
) -> dict[str, Any]:
    """A point of a record's ``by_length``: the median time of a call, with the peak memory that was measured of it."""
    seconds = np.median(own_times(call, rounds=_GROWTH_ROUNDS, synchronize=synchronize))
    point = {"audio_seconds": audio_seconds, "seconds": float(seconds)}
    return point if peak_memory_bytes is None else {**point, "peak_memory_bytes": peak_memory_bytes}


def _synchronized(
    call: Callable[[], Any], synchronize: Callable[[Any], Any] | None, calls: int = 1
) -> Callable[[], Any]:
    def run() -> Any:
        for _ in range(calls):
            output = call()
            if synchronize is not None:
                synchronize(output)
        return output

    return run


def _time_rounds(
    target: Callable[[], Any],
    setup: Callable[[], Any],
    rounds: int,
    warmup: int,
    clock: Callable[[], float],
    benchmark: Any,
) -> tuple[np.ndarray, Any]:
    """Times of `target`, each after a call of `setup`, and what the last returned; taken by `benchmark` if given."""
    if benchmark is not None:
        output = benchmark.pedantic(target, setup=setup, rounds=rounds, warmup_rounds=warmup)
        return np.array(benchmark.stats.stats.data), output
    times = []
    for _ in range(warmup + rounds):
        setup()
        start = clock()
        output = target()
        times.append(clock() - start)
    return np.array(times[warmup:]), output


@contextlib.contextmanager
def _undisturbed() -> Iterator[Callable[[], Any]]:
    """Inside the block garbage is collected only by what is handed out, and freed memory stays.

    What lived before is left out of collections: looking through the objects of a dozen libraries takes a tenth of a
    second, a short round far less. Where something was left out already, it stays so, and so does this.
    """
    was_collecting, was_frozen = gc.isenabled(), gc.get_freeze_count() > 0
    gc.disable()
    gc.collect()
    gc.freeze()
    try:
        with freed_memory_kept():
            yield gc.collect
    finally:
        if not was_frozen:
            gc.unfreeze()
        if was_collecting:
            gc.enable()


def paired_times(
    candidate: Callable[[], Any],
    reference: Callable[[], Any],
    *,
    rounds: int,
    warmup: int = 1,
    synchronize: Callable[[Any], Any] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    candidate_calls: int = 1,
    benchmark: Any = None,
) -> PairedTimes:
    """Time two callables alternately.

    Parameters
    ----------
    candidate, reference : callable
        Called without arguments.
    rounds : int
        Counted rounds; each times the reference and then the candidate.
    warmup : int
        Rounds that are not counted.
    synchronize : callable, optional
        Given what the candidate returned, waits until it is really computed; runs inside the timed region.
    clock : callable
        Gives seconds. ``time.process_time`` leaves out what the process waited for a core.
    candidate_calls : int
        Calls of the candidate in each round, whose mean counts: for one that is too short to be timed alone.
    benchmark : pytest_benchmark.fixture.BenchmarkFixture, optional
        Runs the rounds, by its own clock, so that its report and its JSON have them: the candidate's as its data, the
        reference's in ``extra_info``.

    Returns
    -------
    PairedTimes
    """
    reference_times: list[float] = []
    reference_output: Any = None

    def run_reference() -> None:
        nonlocal reference_output
        collect()
        start = clock()
        reference_output = reference()
        reference_times.append(clock() - start)
        collect()

    run_candidate = _synchronized(candidate, synchronize, candidate_calls)
    with _undisturbed() as collect:
        times, output = _time_rounds(run_candidate, run_reference, rounds, warmup, clock, benchmark)
    if benchmark is not None:
        benchmark.extra_info["reference_seconds"] = reference_times[warmup:]
    return PairedTimes(times / candidate_calls, np.array(reference_times[warmup:]), output, reference_output)
