"""The confidence interval of a median: ends and confidence as the binomial distribution has them, and coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from allin1_core.timings.interval import Interval, median_interval, rank
from allin1_core.timings.verdicts import speedup_interval


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("number", [*range(1, 13), 20, 51, 120, 3000])
def test_the_ends_are_those_of_the_binomial_distribution(number: int, confidence: float) -> None:
    sure = {k: 1 - 2 * binom.cdf(k - 1, number, 0.5) for k in range(1, (number + 1) // 2 + 1)}
    expected = max((k for k in sure if sure[k] >= confidence), default=1)
    k, found = rank(number, confidence)
    assert k == expected
    assert found == pytest.approx(sure[k], abs=1e-12)
    values = range(number, 0, -1)
    assert median_interval(values, confidence) == Interval(k, number + 1 - k, found)


@pytest.mark.parametrize(("runs", "least"), [(5, 0.88), (7, 0.95), (12, 0.95)])
def test_the_interval_of_a_speed_up_holds_it_at_least_as_often_as_documented(runs: int, least: float) -> None:
    """Two tracks, in runs that are slow as a whole; twice as fast."""
    generator = np.random.default_rng(runs)
    inside = 0
    for _ in range(1000):
        slow = generator.lognormal(0, 0.3, (2, runs))
        before, after = ({"a": 3 * side, "b": side} for side in (2 * slow[0], slow[1]))
        low, high = speedup_interval(before, after)
        inside += low <= 2 <= high
    assert inside / 1000 >= least


def test_the_interval_of_a_speed_up_is_that_of_the_sums_of_its_tracks() -> None:
    before = {"a": [4.0, 5.0, 6.0], "b": [1.0, 1.0, 2.0]}
    after = {"a": [2.0, 2.5], "b": [0.5, 1.5]}
    assert speedup_interval(before, after) == ((4 + 1) / (2.5 + 1.5), (6 + 2) / (2 + 0.5))
