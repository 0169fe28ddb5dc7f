"""Verdict on two times of a stage: what was gained, and what was expected, where the runs suffice to tell.

A verdict holds at both ends of the interval of the speed-up (`allin1_core.timings.interval`), or it is ``cannot tell``.
If two files hold runs that do not differ, a table has a stage that is called slower in at most `FALSE_ALARM` of all
comparisons: each of the `STAGES` is allowed its share of that (Bonferroni). It holds for runs that are independent,
as those are that were recorded by turns; a machine that changed between two recordings is a difference between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from allin1_core.timings.expectations import Expectation
from allin1_core.timings.interval import ratio_interval
from allin1_core.timings.schema import STAGES

AS_EXPECTED, BETTER, PARTIAL, NONE, REGRESSED = "as expected", "better", "partial", "none", "regressed"
CANNOT_TELL, TOO_SHORT, NOT_COMPARABLE = "cannot tell", "too short", "not comparable"
FELL_SHORT = (PARTIAL, NONE, REGRESSED, NOT_COMPARABLE)

# Seconds. Of a stage that takes less in both runs no verdict is given: a switch of tasks takes as long.
SHORTEST = 1e-3

FALSE_ALARM = 0.001  # of a whole table
FEWEST_RUNS = 9  # of a side: C(18, 9) > STAGES / FALSE_ALARM


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


def speedup_interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float] | None:
    """Where the speed-up of a stage lies, surely enough for a verdict; None where the runs are too few to tell.

    Parameters
    ----------
    before, after : sequence of float
        Seconds of each run.
    """
    return ratio_interval(before, after, 1 - 2 * FALSE_ALARM / len(STAGES))


def verdict(interval: tuple[float, float] | None, expected: Expectation | None, unchanged: float) -> str:
    """What a speed-up is, against what was expected of it: the least that the interval leaves possible.

    Parameters
    ----------
    interval : (float, float), optional
        Of `speedup_interval`.
    expected : Expectation, optional
        By default that nothing changes.
    unchanged : float
        The factor below which nothing has changed, at least 1.
    """
    if interval is None:
        return CANNOT_TELL
    low, high = (_at(ratio, expected, unchanged) for ratio in interval)
    if low not in FELL_SHORT:
        return low
    return high if high in FELL_SHORT else CANNOT_TELL


def _at(ratio: float, expected: Expectation | None, unchanged: float) -> str:
    low, high = expected.speedup if expected else (1 / unchanged, unchanged)
    if ratio > high:
        return BETTER
    if ratio >= low:
        return AS_EXPECTED
    if ratio < 1 / unchanged:
        return REGRESSED
    return PARTIAL if ratio > unchanged else NONE
