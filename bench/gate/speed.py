"""The gate's checks of speed, and the verdict that every check ends in.

Speed is judged by ratios only, and more than once before it fails. Against the committed baseline a backend is timed
on one thread and in CPU seconds, in many short rounds, by those that nothing disturbed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Sequence

import numpy as np

from bench.gate.cases import Case
from bench.measure.load import OtherLoad, pinned_threads
from bench.measure.paired import Ratio, paired_ratio, paired_times
from parity.environment import usable_cores

_SYSTEM_LOAD = 0.15


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


class SpeedCheck:
    """A ratio that is measured again until it leaves no doubt, best at some other time: a spell that slows one side
    down ends, a loss stays.

    Parameters
    ----------
    case : Case
    rounds : int
        Of each measurement.
    """

    def __init__(self, case: Case, rounds: int) -> None:
        self._case, self._rounds = case, rounds
        self._seen: list[Timing] = []

    @property
    def is_clear(self) -> bool:
        """Whether what was measured until now leaves no doubt that the backend is fast enough."""
        raise NotImplementedError

    @property
    def verdict(self) -> Verdict:
        """By all measurements until now."""
        raise NotImplementedError

    @property
    def _together(self) -> Timing:
        return Timing(
            np.concatenate([timing.candidate for timing in self._seen]),
            np.concatenate([timing.reference for timing in self._seen]),
        )

    def measure(self) -> Verdict:
        """Time the case, and judge by all rounds since the check was made."""
        self._seen.append(time_case(self._case, self._rounds))
        return self.verdict

    def measure_until_clear(self, times: int = 3) -> Verdict:
        """Up to so many measurements one after the other, for who cannot wait."""
        for _ in range(times):
            verdict = self.measure()
            if self.is_clear:
                break
        return verdict


class PromiseCheck(SpeedCheck):
    """Whether a backend reaches a bar: by the lower end of the interval of one measurement, or, where that falls short
    because something disturbed it, by the undisturbed rounds of two or more together.

    Parameters
    ----------
    case : Case
    at_least : float
    rounds : int
        Of each measurement.
    """

    def __init__(self, case: Case, at_least: float, rounds: int) -> None:
        super().__init__(case, rounds)
        self._bar = at_least

    @property
    def is_clear(self) -> bool:
        """Whether the bar is reached."""
        if any(timing.ratio.low >= self._bar for timing in self._seen):
            return True
        return len(self._seen) > 1 and self._together.undisturbed >= self._bar

    @property
    def difference(self) -> float:
        """Of the outputs that were timed last."""
        return self._seen[-1].difference

    @property
    def verdict(self) -> Verdict:
        measured = ", then ".join(str(timing.ratio) for timing in self._seen)
        if len(self._seen) > 1:
            measured += f"; {self._together.undisturbed:.2f}x undisturbed"
        passed: bool | None = self.is_clear
        if not passed and all(
            _starved(self._case, timing) or _undecided(timing, self._bar) for timing in self._seen
        ):
            measured += _busy(self._seen)
            passed = None
        asked = f"at least {self._bar:.3g}x at the lower end"
        return Verdict(self._case.key, f"ratio to {self._case.oracle}", measured, asked, passed)


class SlowdownCheck(SpeedCheck):
    """Whether a backend is as fast as the baseline has it, by the undisturbed rounds of all measurements together.

    A spell that spares no round may slow the reference down as well, and hide a loss: what holds by less than half the
    room is measured again too.

    Parameters
    ----------
    case : Case
    before : float
        `Timing.undisturbed` of the baseline.
    at_most : float
        How many times slower it may have become.
    rounds : int
        Of each measurement.
    """

    def __init__(self, case: Case, before: float, at_most: float, rounds: int) -> None:
        super().__init__(case, rounds)
        self._before, self._bar = before, before / at_most
        self._clear = before / math.sqrt(at_most)

    @property
    def is_clear(self) -> bool:
        """Whether the backend is as fast, by more than half the room."""
        return bool(self._seen) and self._together.undisturbed >= self._clear

    @property
    def verdict(self) -> Verdict:
        together = self._together
        measured = f"{together.undisturbed:.2f}x in {together.candidate.size} rounds"
        passed: bool | None = together.undisturbed >= self._bar
        if not passed and all(_starved(self._case, timing) for timing in self._seen):
            measured += _busy(self._seen)
            passed = None
        return Verdict(
            self._case.key,
            f"ratio, {self._before:.3g}x in the baseline",
            measured,
            f"at least {self._bar:.3g}x",
            passed,
        )


def _busy(seen: Sequence[Timing]) -> str:
    return f"; other processes kept {max(timing.busy_elsewhere for timing in seen):.1f} cores busy"


def _starved(case: Case, timing: Timing) -> bool:
    """Whether fewer cores were free than the case needs, leaving out what the system itself takes."""
    return usable_cores() - timing.busy_elsewhere < case.threads - _SYSTEM_LOAD


def _undecided(timing: Timing, at_least: float) -> bool:
    """Whether the interval is too wide to judge by and holds the bar: no loss was shown, only noise."""
    return timing.ratio.too_noisy and timing.ratio.high >= at_least
