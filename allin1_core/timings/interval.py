"""Confidence intervals of a median, and of a ratio, by order statistics: exact, whatever the distribution of the times.

Each of n independent values lies below the median m of their distribution with probability 1/2, so that the number of
them that do is binomial, B(n, 1/2). Sorted, x(k) lies above m where fewer than k values lie below it, and x(n + 1 - k)
lies below m where fewer than k lie above it. Both have probability P(B(n, 1/2) <= k - 1) and exclude each other for
k <= n / 2, hence

    P(x(k) <= m <= x(n + 1 - k)) = 1 - 2 P(B(n, 1/2) <= k - 1),

at least that where values may be equal. The interval takes the largest k that is as sure as was asked. Few values are
not: of those it is the range, k = 1, which holds m with probability 1 - 2^(1 - n): 0 for one value, 0.75 for three,
0.94 for five. For 95 % the range is enough from six values on, and from nine on it leaves the outermost two out.

The ratio of two sides, m times x and n times y that are x / s as far as chance goes: all orders of the m + n values
x / s and y are equally likely then, so that the number of pairs with x(i) / y(j) < s has the distribution of Mann and
Whitney's U, and the k-th smallest and the k-th largest of the m n ratios hold s with probability 1 - 2 P(U <= k - 1).
Of the C(m + n, m) orders as many have U = u as there are partitions of u into at most m parts of at most n: the
coefficients of the Gaussian binomial, the product over i <= m of (1 - q^(n + i)) / (1 - q^i).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
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


# Of a side; later ones would cost seconds, and tell little.
_MOST_RUNS = 64


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], confidence: float
) -> tuple[float, float] | None:
    """Interval of how many times longer one side takes than the other; see the module's docstring.

    Parameters
    ----------
    numerators, denominators : sequence of float
        Seconds, at least 0, independent of one another; the first 64 of each count.
    confidence : float
        That is asked for, below 1.

    Returns
    -------
    (float, float) or None
        None where the values are too few to be as sure of anything.
    """
    one, other = numerators[:_MOST_RUNS], denominators[:_MOST_RUNS]
    k = _rank_of_ratio(len(one), len(other), confidence)
    if k == 0:
        return None
    ratios = sorted(x / y if y > 0 else math.inf for x in one for y in other)
    return ratios[k - 1], ratios[-k]


@functools.cache
def _rank_of_ratio(m: int, n: int, confidence: float) -> int:
    """The largest k of which the interval is as sure as was asked; 0 if none is."""
    ways = [1] + [0] * (m * n)
    for i in range(1, m + 1):
        for u in range(m * n, n + i - 1, -1):
            ways[u] -= ways[u - n - i]
        for u in range(i, m * n + 1):
            ways[u] += ways[u - i]
    most = (1 - confidence) / 2 * math.comb(m + n, m)
    return sum(1 for outside in itertools.accumulate(ways) if outside <= most)
