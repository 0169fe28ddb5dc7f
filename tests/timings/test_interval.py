"""The confidence interval of a median: ends and confidence as the binomial distribution has them, and coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from allin1_core.timings.expectations import Expectation
from allin1_core.timings.interval import Interval, median_interval, rank, ratio_interval
from allin1_core.timings.verdicts import FEWEST_RUNS, speedup_interval, verdict


@pytest.mark.parametrize("confidence", [0.375, 0.5, 0.95, 0.99])  # 4 values give the first exactly
@pytest.mark.parametrize("number", [*range(1, 13), 20, 51, 120, 3000])
def test_the_ends_are_those_of_the_binomial_distribution(number: int, confidence: float) -> None:
    sure = {k: 1 - 2 * binom.cdf(k - 1, number, 0.5) for k in range(1, (number + 1) // 2 + 1)}
    expected = max((k for k in sure if sure[k] >= confidence), default=1)
    k, found = rank(number, confidence)
    assert k == expected
    assert found == pytest.approx(sure[k], abs=1e-12)
    values = range(number, 0, -1)
    assert median_interval(values, confidence) == Interval(k, number + 1 - k, found)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 5), (6, 6), (7, 4)])
@pytest.mark.parametrize("confidence", [0.5, 0.75, 0.9, 0.99])  # 3 and 5 values give the second exactly
def test_the_interval_of_a_ratio_leaves_out_as_many_orders_as_it_may(
    m: int, n: int, confidence: float
) -> None:
    """Of all orders of the values, counted."""
    places = [set(chosen) for chosen in itertools.combinations(range(m + n), m)]
    u = [sum(y < x for x in chosen for y in range(m + n) if y not in chosen) for chosen in places]
    outside = [k for k in range(1, m * n + 1) if 2 * np.mean(np.less(u, k)) <= 1 - confidence]
    generator = np.random.default_rng(m)
    one, other = generator.random(m), generator.random(n)
    ratios = np.sort((one[:, None] / other).ravel())
    expected = (ratios[max(outside) - 1], ratios[-max(outside)]) if outside else None
    assert ratio_interval(one.tolist(), other.tolist(), confidence) == expected


def test_runs_that_do_not_differ_are_called_slower_as_seldom_as_is_said() -> None:
    """Of a distribution with a long tail; a share of 17 in 1,000 instead of 1, so that it can be counted."""
    generator = np.random.default_rng(0)
    drawn = generator.lognormal(0, 0.3, (4000, 2, 9))
    found = [ratio_interval(*pair, 1 - 2 * 0.017) for pair in drawn.tolist()]
    assert np.mean([high < 1 for _, high in found if high]) == pytest.approx(0.017, abs=0.006)


def test_a_verdict_takes_as_many_runs_as_are_said() -> None:
    for runs, expected in ((FEWEST_RUNS - 1, None), (FEWEST_RUNS, (0.5, 0.5))):
        assert speedup_interval([1.0] * runs, [2.0] * runs) == expected
    assert speedup_interval([1.0] * 9, [0.0] * 9) == (math.inf, math.inf)


def test_the_verdict_is_the_least_that_the_interval_leaves_possible() -> None:
    gain = Expectation((2.0, 4.0))
    for interval, expected, word in (
        ((0.63, 1.34), None, "cannot tell"),
        (None, None, "cannot tell"),
        ((0.63, 0.9), None, "regressed"),
        ((0.63, 0.92), None, "cannot tell"),
        ((0.95, 3.0), None, "as expected"),
        ((1.2, 3.0), None, "better"),
        ((1.5, 2.5), gain, "cannot tell"),
        ((0.5, 1.5), gain, "partial"),
        ((0.5, 1.0), gain, "none"),
        ((0.5, 0.6), gain, "regressed"),
        ((3.0, 9.0), gain, "as expected"),
    ):
        assert verdict(interval, expected, 1.1) == word, interval
