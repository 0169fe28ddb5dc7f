"""The comparison that all others are made of."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from parity.agreement import Agreement, compare, compare_each, largest_difference
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
    assert agreement == Agreement(0.0, 0.0, expected.size, expected.size, 0.0, 0, "")
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


def test_what_is_not_finite_agrees_with_itself_only_where_that_is_documented() -> None:
    values = np.array([0.0, -np.inf, np.nan])
    assert not compare(values[:2], values[:2]).passed
    assert compare(values[:2], values[:2], documented=(-np.inf,)).passed
    assert not compare(values, values, documented=(-np.inf,)).passed
    assert compare(values, values, documented=(-np.inf, np.nan)).passed
    for one, other in ([-np.inf, np.inf], [-np.inf, 0.0], [np.nan, 0.0], [np.inf, np.inf]):
        assert not compare(np.array([one]), np.array([other]), documented=(-np.inf, np.nan)).passed


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
        {"max_difference": math.inf, "p999_difference": math.inf, "identical": 0, "values": 3},
        {"text": 'Infinity, "NaN" and \\', "less": -math.inf, "figure": None},
    ]
