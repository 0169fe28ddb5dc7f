"""The gate's bars of speed, and the verdict that every check ends in.

A bar is a ratio to the oracle. It is judged more than once before it fails, and fails only where an interval of all
rounds excludes it that is wrong with probability ALPHA over all bars (Bonferroni), if rounds are independent and what
disturbs them hits both sides alike. Where others kept the cores busy it does not, and the bar is left open.
"""

from __future__ import annotations

import dataclasses
import functools
import time

import numpy as np

from allin1_core.timings.interval import median_interval
from bench.gate.cases import Case
from bench.measure.load import OtherLoad, pinned_threads
from bench.measure.paired import Ratio, factor, paired_ratio, paired_times
from parity.environment import usable_cores

_SYSTEM_LOAD = 0.15
ALPHA = 0.0005  # the other half is that of bench.gate.sequential


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One line of the gate's table.

    `passed` is None where nothing can be said, and `measured` says why; if such a line is `required`, the gate does not
    pass.
    """

    row: str
    check: str
    measured: str
    asked: str
    passed: bool | None
    required: bool = True

    def __str__(self) -> str:
        return f"{self.row}: {self.check} measured {self.measured}, asked {self.asked}"


@dataclasses.dataclass(frozen=True)
class Timing:
    """A case timed.

    Attributes
    ----------
    candidate, reference : float64 (rounds,)
        Seconds of each side in each round.
    difference : float
        Of the outputs of the last round.
    busy_elsewhere : float
        Cores that other processes kept busy meanwhile.
    """

    candidate: np.ndarray
    reference: np.ndarray
    difference: float = 0.0
    busy_elsewhere: float = 0.0

    @functools.cached_property
    def ratio(self) -> Ratio:
        """How many times faster the candidate is."""
        return paired_ratio(self.candidate, self.reference)

    @property
    def undisturbed(self) -> float:
        """How many times faster the candidate is in undisturbed rounds: the ratio of the fifth percentiles.

        What shares a core, its cache or its memory with the measurement adds time, to one side more than to the other
        and to most rounds while it lasts; the shortest rounds it hardly touches. The very shortest is one value alone.
        """
        return float(np.percentile(self.reference, 5) / np.percentile(self.candidate, 5))


def time_case(case: Case, rounds: int) -> Timing:
    """Time a case with its threads pinned, and compare what its last round returned.

    One thread is timed by the CPU seconds of the process, which do not grow while somebody else has the core; several
    threads by the clock on the wall, since only that shows whether they ran side by side.
    """
    clock = time.process_time if case.threads == 1 else time.perf_counter
    with pinned_threads(case.threads), OtherLoad() as others:
        times = paired_times(
            case.candidate, case.reference, rounds=rounds, clock=clock, candidate_calls=case.calls
        )
    difference = case.difference(times.candidate_output, times.reference_output)
    return Timing(times.candidate, times.reference, difference, others.cores)


class PromiseCheck:
    """Whether a backend reaches a bar: by the lower end of the 95 % interval of one measurement, or, where that falls
    short because something disturbed it, by the undisturbed rounds of two or more together. It is measured again until
    it does, best at some other time: a spell that slows one side down ends, a loss stays.

    Parameters
    ----------
    case : Case
    at_least : float
    rounds : int
        Of each measurement.
    num_bars : int
        In the table, this one included.
    """

    def __init__(self, case: Case, at_least: float, rounds: int, num_bars: int = 1) -> None:
        self._case, self._bar, self._rounds = case, at_least, rounds
        self._confidence = 1 - 2 * ALPHA / num_bars
        self._seen: list[Timing] = []

    def measure_until_clear(self, times: int = 3) -> Verdict:
        """Up to so many measurements one after the other, and the verdict by all since the check was made."""
        for _ in range(times):
            self._seen.append(time_case(self._case, self._rounds))
            if self.is_clear:
                break
        return self.verdict

    @property
    def _together(self) -> Timing:
        return Timing(
            np.concatenate([timing.candidate for timing in self._seen]),
            np.concatenate([timing.reference for timing in self._seen]),
        )

    @property
    def is_clear(self) -> bool:
        """Whether the bar is reached."""
        if any(timing.ratio.low >= self._bar for timing in self._seen):
            return True
        return len(self._seen) > 1 and self._together.undisturbed >= self._bar

    @property
    def _is_missed(self) -> bool:
        """Whether the interval of all rounds excludes the bar, and there were cores to run on."""
        if all(_starved(self._case, timing) for timing in self._seen):
            return False
        together = self._together
        interval = median_interval((together.reference / together.candidate).tolist(), self._confidence)
        return interval.confidence >= self._confidence and interval.high < self._bar

    @property
    def difference(self) -> float:
        """Of the outputs that were timed last."""
        return self._seen[-1].difference

    @property
    def verdict(self) -> Verdict:
        """By all measurements until now; what cannot be told is not required."""
        measured = ", then ".join(str(timing.ratio) for timing in self._seen)
        if len(self._seen) > 1:
            measured += f"; {factor(self._together.undisturbed)} undisturbed"
        passed = True if self.is_clear else False if self._is_missed else None
        if passed is None:
            busy = max(timing.busy_elsewhere for timing in self._seen)
            measured += f": cannot tell; other processes kept {busy:.1f} cores busy"
        asked = f"at least {self._bar:.3g}x at the lower end"
        return Verdict(
            self._case.key,
            f"ratio to {self._case.oracle}",
            measured,
            asked,
            passed,
            required=passed is not None,
        )


def _starved(case: Case, timing: Timing) -> bool:
    """Whether fewer cores were free than the case needs, leaving out what the system itself takes."""
    return usable_cores() - timing.busy_elsewhere < case.threads - _SYSTEM_LOAD
