"""The gate's test of times: sequential, exact, and of all rows together.

A pair is two fresh processes, one of each tree, that make every call by turns; which of them begins is drawn. Of a row
it gives one number, how many times longer the tree takes than the base: x. If the trees do not differ, the two
processes are exchangeable, so that log x is as likely above 0 as below it, whatever its distribution and however
rounds within a process depend on one another. Of n pairs the number with x > 1 is then binomial, B(n, 1/2). With a tree
that is slower by a factor s, x / s is distributed so. The order statistics of x are therefore the ends of an exact
interval of s (`allin1_core.timings.interval`).

The test looks after each number of pairs in `LOOKS`, at R rows that were not decided before, and says

    slower       if the lower end of s, wrong with probability ALPHA / (R len(LOOKS)), is above TOLERATED;
    as fast      if its upper end, wrong with probability BETA / len(LOOKS), is below LOSS;
    cannot tell  if neither holds after the last look.

By Bonferroni's inequality, over looks and rows, whatever their dependence: a table of trees that do not differ has a
row called slower with probability at most ALPHA, and a row slower by LOSS or more is called as fast with probability at
most BETA. `TOLERATED` leaves out what moving code by some bytes does; it makes the first bound smaller still. How often
a loss is called slower, and not left open, depends on the noise of the machine: `bench.gate.simulate` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from allin1_core.timings.interval import median_interval

LOOKS = (16, 24, 36, 80)  # pairs
ALPHA = 0.0005  # half of the table's 1 in 1,000; the bars have the other
BETA = 0.05
LOSS = 1.05
TOLERATED = 1.01


def slowdown(tree: Sequence[float], base: Sequence[float]) -> float:
    """x of a pair: the median over its rounds of the ratio of the two times, of its logarithm where that is a mean.

    Raises
    ------
    ValueError
        If a time is not positive and finite, or the rounds differ in number.
    """
    one, other = (np.asarray(side, dtype=np.float64) for side in (tree, base))
    if one.shape != other.shape or not (np.isfinite([one, other]).all() and min(one.min(), other.min()) > 0):
        raise ValueError(f"times: {tree} and {base}; expected as many of each, positive and finite")
    return float(np.exp(np.median(np.log(one / other))))


def decide(slowdowns: Sequence[float], rows: int) -> tuple[float, float, bool | None]:
    """Ends of the interval of s after so many pairs, and whether the row is as fast; None: cannot tell yet.

    Parameters
    ----------
    slowdowns : sequence of float
        x of each pair, as many as one of `LOOKS`.
    rows : int
        R.
    """
    false_alarm, missed = ALPHA / (rows * len(LOOKS)), BETA / len(LOOKS)
    lower = median_interval(slowdowns, 1 - 2 * false_alarm)
    upper = median_interval(slowdowns, 1 - 2 * missed)
    low = lower.low if lower.confidence >= 1 - 2 * false_alarm else 0.0
    high = upper.high if upper.confidence >= 1 - 2 * missed else float("inf")
    if low > TOLERATED:
        return low, high, False
    return low, high, True if high < LOSS else None
