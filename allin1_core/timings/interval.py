"""Confidence interval of a median by order statistics: exact, whatever the distribution of the times.

Each of n independent values lies below the median m of their distribution with probability 1/2, so that the number of
them that do is binomial, B(n, 1/2). Sorted, x(k) lies above m where fewer than k values lie below it, and x(n + 1 - k)
lies below m where fewer than k lie above it. Both have probability P(B(n, 1/2) <= k - 1) and exclude each other for
k <= n / 2, hence

    P(x(k) <= m <= x(n + 1 - k)) = 1 - 2 P(B(n, 1/2) <= k - 1),

at least that where values may be equal. The interval takes the largest k that is as sure as was asked. Few values are
not: of those it is the range, k = 1, which holds m with probability 1 - 2^(1 - n): 0 for one value, 0.75 for three,
0.94 for five. For 95 % the range is enough from six values on, and from nine on it leaves the outermost two out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Interval:
    """Ends of an interval, and the probability with which intervals made so hold the median."""

    low: float
    high: float
    confidence: float


def rank(number: int, confidence: float = 0.95) -> tuple[int, float]:
    """Which order statistics are the ends of the interval.

    Parameters
    ----------
    number : int
        Of values, at least 1.
    confidence : float
        That is asked for, below 1.

    Returns
    -------
    k : int
        The k-th smallest and the k-th largest value.
    confidence : float
        What that interval has: less than was asked for where k is 1 and the values are too few.
    """
    # Of the 2^number equally likely ways to lie below or above; whole numbers, which neither overflow nor vanish.
    ways, outside, k = 2**number, 2, 1
    while (wider := outside + 2 * math.comb(number, k)) / ways <= 1 - confidence:
        k, outside = k + 1, wider
    return k, max(0.0, 1 - outside / ways)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Interval of the median of the distribution that the values were drawn from; see the module's docstring.

    Parameters
    ----------
    values : sequence of float
        At least one.
    confidence : float
        See `rank`.
    """
    k, found = rank(len(values), confidence)
    ordered = sorted(values)
    return Interval(float(ordered[k - 1]), float(ordered[-k]), found)
