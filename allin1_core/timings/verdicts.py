"""Verdict on two times of a stage: what was gained, what was expected, and whether the runs suffice to tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from allin1_core.timings.expectations import Expectation
from allin1_core.timings.interval import median_interval

AS_EXPECTED, BETTER, PARTIAL, NONE, REGRESSED = "as expected", "better", "partial", "none", "regressed"
TOO_SHORT, NOT_COMPARABLE = "too short", "not comparable"
MET = (AS_EXPECTED, BETTER, TOO_SHORT)

# Seconds. Of a stage that takes less in both runs no verdict is given: a switch of tasks takes as long.
SHORTEST = 1e-3

# One run on a machine that does other things as well is off by this factor now and then.
_SINGLE_RUN_NOISE = 1.25
_FEW_RUNS = 5
# Of the median of each side, so that both hold theirs, and their ratio its own, in 95 of 100 comparisons.
_CONFIDENCE_OF_A_SIDE = math.sqrt(0.95)

Times = Mapping[str | None, Sequence[float]]


def ratio_of(before: float | None, after: float | None) -> float | None:
    """Before divided by after; None where one of them is missing, or both are 0 and nothing was gained or lost."""
    if before is None or after is None:
        return None
    if after == 0:
        return math.inf if before > 0 else 1.0
    return before / after


def is_too_short(before: float | None, after: float | None) -> bool:
    """Whether a stage took less than `SHORTEST` seconds in both runs."""
    return before is not None and after is not None and max(before, after) < SHORTEST


def verdict(ratio: float, expected: Expectation | None, unchanged: float) -> str:
    """What a speed-up is, against what was expected of it.

    Parameters
    ----------
    ratio : float
        Before to after.
    expected : Expectation, optional
        By default that nothing changes.
    unchanged : float
        The factor below which nothing has changed, at least 1.
    """
    low, high = expected.speedup if expected else (1 / unchanged, unchanged)
    if ratio > high:
        return BETTER
    if ratio >= low:
        return AS_EXPECTED
    if ratio < 1 / unchanged:
        return REGRESSED
    return PARTIAL if ratio > unchanged else NONE


def speedup_interval(before: Times, after: Times) -> tuple[float, float]:
    """Where the speed-up lies: from the shortest before and the longest after to the reverse, in at least 95 of 100
    comparisons of seven runs or more a side, and 88 of five (`allin1_core.timings.interval`).

    Parameters
    ----------
    before, after : mapping of str or None to sequence of float
        Seconds of each run, by track. Ends of several tracks are added up: right for runs that are slow as a whole, and
        too wide for tracks that are slow on their own.
    """
    lows, highs = [], []
    for side in (before, after):
        intervals = [median_interval(times, _CONFIDENCE_OF_A_SIDE) for times in side.values()]
        lows.append(sum(interval.low for interval in intervals))
        highs.append(sum(interval.high for interval in intervals))
    return lows[0] / max(highs[1], 1e-12), highs[0] / max(lows[1], 1e-12)


def too_few_runs(
    ratio: float,
    status: str,
    interval: tuple[float, float] | None,
    runs: int,
    expected: Expectation | None,
    unchanged: float,
) -> str | None:
    """Words for a verdict that would be the other one at an end of what the runs leave possible; None if it stands.

    Parameters
    ----------
    ratio, status, expected, unchanged
        As given to `verdict`, and what it gave.
    interval : (float, float), optional
        Of `speedup_interval`.
    runs : int
        Runs that the side with fewer of them has.
    """
    if status in MET and expected is None:
        return None
    if runs >= _FEW_RUNS and interval is not None:
        low, high = interval
        words = f"the speed-up lies between {low:.2f}x and {high:.2f}x"
    else:
        low, high = ratio / _SINGLE_RUN_NOISE, ratio * _SINGLE_RUN_NOISE
        if interval is not None:
            low, high = min(low, interval[0]), max(high, interval[1])
        words = f"{runs} run{'s' if runs > 1 else ''} on a side cannot tell {ratio:.2f}x from {low:.2f}x or {high:.2f}x"
    verdicts = {verdict(bound, expected, unchanged) in MET for bound in (low, high)}
    if verdicts == {status in MET}:
        return None
    return f"too few repetitions to tell: {words}; repeat the run, and more often"
