"""Verdict on two times of a stage: what was gained, what was expected, and whether the runs suffice to tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from allin1_core.timings.expectations import Expectation

AS_EXPECTED, BETTER, PARTIAL, NONE, REGRESSED = "as expected", "better", "partial", "none", "regressed"
TOO_SHORT, NOT_COMPARABLE = "too short", "not comparable"
MET = (AS_EXPECTED, BETTER, TOO_SHORT)

# Seconds. Of a stage that takes less in both runs no verdict is given: a switch of tasks takes as long.
SHORTEST = 1e-3

# One run on a machine that does other things as well is off by this factor now and then.
_SINGLE_RUN_NOISE = 1.25
_FEW_RUNS = 5
_BOOTSTRAP_SAMPLES = 2_000

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
    """Where the speed-up lies: 95 % percentile bootstrap over runs.

    Parameters
    ----------
    before, after : mapping of str or None to sequence of float
        Seconds of each run, by track. Sides and tracks are drawn from on their own: runs of two files are not paired.
    """
    generator = np.random.default_rng(0)
    totals = []
    for side in (before, after):
        total = np.zeros(_BOOTSTRAP_SAMPLES)
        for times in side.values():
            drawn = generator.integers(0, len(times), size=(_BOOTSTRAP_SAMPLES, len(times)))
            total += np.median(np.array(times)[drawn], axis=1)
        totals.append(total)
    low, high = np.percentile(totals[0] / np.maximum(totals[1], 1e-12), [2.5, 97.5])
    return float(low), float(high)


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
