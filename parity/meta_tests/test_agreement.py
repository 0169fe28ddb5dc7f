"""The comparison that all others are made of."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from parity.agreement import (
    ULP_BINS,
    Agreement,
    add_counts,
    compare,
    compare_each,
    largest_difference,
    ulp_measures,
)
from parity.meta_tests.faults import FAULTS
from parity.reports.publish import dump_json

DTYPES = ("float32", "float64", "int64", "uint32", "int16")


def array_of(dtype: str) -> np.ndarray:
    return np.arange(1, 25).reshape(2, 3, 4).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_infinitely_far_whatever_is_allowed(fault: str, dtype: str) -> None:
    expected = array_of(dtype)
    for allowed in (0.0, 1e-6, 1e300):
        for found, oracle in (
            (FAULTS[fault](expected), expected),
            # And if it is the oracle that is at fault.
            (expected, FAULTS[fault](expected)),
        ):
            agreement = compare(found, oracle, allowed=allowed)
            assert agreement.max_difference == math.inf
            assert not agreement.passed
            assert 1 <= agreement.beyond <= agreement.values
            assert agreement.different >= 1
            with pytest.raises(AssertionError, match=r"^subject: (found |at )"):
                agreement.require("subject")
    assert largest_difference(FAULTS[fault](expected), expected) == math.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 81), (5, 4)])
def test_the_same_bits_agree(shape: tuple[int, ...], dtype: str) -> None:
    expected = np.ones(shape, dtype)
    agreement = compare(expected.copy(), expected)
    counts = (expected.size,) if expected.size else ()
    assert agreement == Agreement(0.0, 0.0, expected.size, expected.size, 0.0, 0, "", 0.0, counts)
    assert str(agreement) == "bit-identical"
    agreement.require("nothing is raised")


def test_values_that_differ_are_counted_and_the_first_beyond_is_named() -> None:
    expected = np.ones((10, 10), np.float32)
    found = expected.copy()
    found[2, 3:6] += np.array([1e-6, 2e-6, 3e-6], np.float32)
    agreement = compare(found, expected, allowed=1.5e-6)
    assert agreement.max_difference == pytest.approx(3e-6, rel=0.05)
    assert (agreement.identical, agreement.values, agreement.beyond, agreement.different) == (97, 100, 2, 3)
    assert str(agreement) == (
        "at [2, 4]: found 1.000002, the oracle has 1.0; a difference of 2.98e-06, expected at most 1.5e-06 "
        "(2 of 100 values are beyond)"
    )
    assert compare(found, expected, allowed=4e-6).passed


def test_the_bound_itself_is_allowed_and_the_next_value_is_not() -> None:
    expected = np.zeros(3)
    found = np.array([0, 0.5, 0])
    assert compare(found, expected, allowed=0.5).passed
    assert not compare(found, expected, allowed=np.nextafter(0.5, 0)).passed


@pytest.mark.parametrize("value", [-0.0, np.nextafter(np.float32(0), np.float32(1))])
def test_a_difference_of_zero_is_the_same_bits_and_nothing_else(value: float) -> None:
    expected = np.zeros(4, np.float32)
    found = expected.copy()
    found[2] = value
    agreement = compare(found, expected)
    assert 0 < agreement.max_difference < 1e-37
    assert agreement.identical == 3
    with pytest.raises(AssertionError, match="expected the same bits"):
        agreement.require("zeros")
    assert compare(found, expected, allowed=1e-6).passed


def ulps(found: Any, expected: Any, dtype: str) -> float:
    one, other = (np.array([value], dtype) for value in (found, expected))
    assert compare(one, other).max_ulp == compare(other, one).max_ulp
    return compare(one, other).max_ulp


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_neighbours_are_one_ulp_apart_across_zero_and_powers_of_two(dtype: str) -> None:
    real = np.dtype(dtype).type
    limits = np.finfo(dtype)
    for value in (1, 1.5, 0.1, -1, -3.7, limits.max, limits.smallest_normal, limits.smallest_subnormal, 0):
        middle = real(value)
        below = np.nextafter(middle, real(-np.inf) if middle != limits.max else real(0))
        # The first float below 0 is two steps away: -0 lies between them.
        assert ulps(below, middle, dtype) == (2 if middle == 0 else 1), value
    assert ulps(0.0, -0.0, dtype) == 1
    assert ulps(limits.smallest_subnormal, -limits.smallest_subnormal, dtype) == 3
    assert ulps(1.0, 2.0, dtype) == 2**limits.nmant


def test_differences_in_ulp_are_those_of_the_type_and_never_overflow() -> None:
    assert ulps(1 + 2**-20, 1, "float32") == 8
    assert ulps(1 + 2**-20, 1, "float64") == 2**32
    assert ulps(1e-7, 0, "float32") == 869_711_765
    assert ulps(np.finfo("float32").max, -np.finfo("float32").max, "float32") == 2 * 0x7F7FFFFF + 1
    assert ulps(2.0**1022, -(2.0**1022), "float64") == 2.0 * 0x7FD0000000000000 + 1
    assert ulps(7, 3, "int64") == 4
    for value in (np.nan, np.inf, -np.inf):
        assert ulps(value, value, "float32") == ulps(value, 1, "float64") == math.inf
    assert compare(np.zeros(3, np.float32), np.zeros(4, np.float32)).max_ulp == math.inf
    assert compare(np.array([-np.inf]), np.array([-np.inf]), documented=(-np.inf,)).max_ulp == 0


def test_the_histogram_counts_every_value_once_in_powers_of_two() -> None:
    expected = np.ones(12, np.float32)
    steps = np.array([0, 0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 0], np.int32)
    found = (expected.view(np.int32) + steps).view(np.float32)
    found[-1] = np.nan
    agreement = compare(found, expected)
    #                                  0  1  2  4  8  16 32
    assert agreement.ulp_counts[:7] == (2, 1, 1, 2, 2, 2, 1)
    assert agreement.ulp_counts[7:-1] == (0,) * (ULP_BINS - 8)
    assert agreement.ulp_counts[-1] == 1
    assert compare(found[:-1], expected[:-1]).ulp_counts == (2, 1, 1, 2, 2, 2, 1)
    both = ulp_measures([compare(found[:4], expected[:4]), compare(found[2:3], expected[2:3])])
    assert both == {"max_ulp": 2.0, "ulp_counts": [2, 2, 1]}
    assert add_counts([(2, 1), (0, 1, 1)], 4) == [2, 2, 1, 0]
    farthest = compare(np.array([2.0**1022]), np.array([-(2.0**1022)]))
    assert farthest.ulp_counts == (0,) * (ULP_BINS - 2) + (1,)
    assert ulp_measures([compare(np.zeros(2), np.zeros(3))])["ulp_counts"] == [0] * (ULP_BINS - 1) + [3]


def test_what_is_not_finite_agrees_with_itself_only_where_that_is_documented() -> None:
    values = np.array([0.0, -np.inf, np.nan])
    assert not compare(values[:2], values[:2]).passed
    assert compare(values[:2], values[:2], documented=(-np.inf,)).passed
    assert not compare(values, values, documented=(-np.inf,)).passed
    assert compare(values, values, documented=(-np.inf, np.nan)).passed
    for one, other in ([-np.inf, np.inf], [-np.inf, 0.0], [np.nan, 0.0], [np.inf, np.inf]):
        assert not compare(np.array([one]), np.array([other]), documented=(-np.inf, np.nan)).passed
        assert not compare(np.array([other]), np.array([one]), documented=(-np.inf, np.nan)).passed


def test_large_integers_are_compared_exactly() -> None:
    expected = np.array([2**60, 1])
    assert compare(expected + np.array([1, 0]), expected).max_difference == 1
    assert compare(np.array([2**32 - 1], np.uint32), np.array([0], np.uint32)).max_difference == 2**32 - 1


@pytest.mark.parametrize("found", [[1.0, 2.0], None, 1.0, "1"])
def test_what_is_no_array_is_no_agreement(found: object) -> None:
    agreement = compare(found, np.array([1.0, 2.0]), allowed=1e300)
    assert agreement.max_difference == math.inf
    assert f"found {type(found).__name__}, expected a numpy array" in str(agreement)


def test_several_arrays_by_name() -> None:
    expected = {name: np.zeros(3) for name in "abc"}
    found = {**expected, "b": np.array([0, np.nan, 0])}
    agreements = compare_each(found, expected, "abc", allowed=1)
    assert [name for name, agreement in agreements.items() if not agreement.passed] == ["b"]
    assert max(agreement.max_difference for agreement in agreements.values()) == math.inf


def test_infinity_goes_into_valid_json_and_comes_back() -> None:
    measures = compare(np.zeros(2), np.zeros(3)).measures()
    rows = [measures, {"text": 'Infinity, "NaN" and \\', "less": -math.inf, "figure": math.nan}]

    def refuse(name: str) -> None:
        raise ValueError(name)

    read = json.loads(dump_json(rows), parse_constant=refuse)
    assert read == [
        {
            "max_difference": math.inf,
            "p999_difference": math.inf,
            "identical": 0,
            "values": 3,
            "max_ulp": math.inf,
            "ulp_counts": [0] * (ULP_BINS - 1) + [3],
        },
        {"text": 'Infinity, "NaN" and \\', "less": -math.inf, "figure": None},
    ]
