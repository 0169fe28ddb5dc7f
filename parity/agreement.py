"""The one comparison of arrays with an oracle's: parity, the benchmarks and the gate all decide by it.

Two arrays are apart by the largest absolute difference of their values. It is infinite where type, dtype or shape
differ, and where a value of either is not finite: NaN and infinity agree with nothing, themselves included, unless the
case documents that they may. It is 0 for the same bits alone: between equal values of other bits, as 0 and -0, it is
the smallest normal number of their dtype. It is never NaN, so that ``max`` and ``<=`` can be trusted with it.

Beside it stands the difference in ULP, units in the last place: how many values of their dtype two numbers are apart,
counted in the total order of IEEE 754, in which -0 comes right before 0. It is infinite where the difference is, 0
for the same bits alone, and for integers the difference itself.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# Of the histogram of differences in ULP: bin 0 holds those of 0, bin 1 those of 1, bin k those above 2**(k - 2) and up
# to 2**(k - 1), which for float64 ends at 2**64, and the last one those that are infinite.
ULP_BINS = 67


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How close an array came to the oracle's.

    Attributes
    ----------
    max_difference, p999_difference : float
        Largest, and 99.9th percentile, of the absolute differences.
    identical, values : int
        Values equal to the bit, and how many there are; no value is, where type, dtype or shape differ.
    allowed : float
        Largest difference that agrees; 0 asks for the same bits.
    beyond : int
        Values that differ by more than is allowed.
    fault : str
        The first of them, with both values, or what differs of type, dtype and shape; empty where the arrays agree.
    max_ulp : float
        Largest difference in ULP.
    ulp_counts : tuple of int
        Histogram of the differences in ULP: how many are 0, 1, 2, 3 to 4, 5 to 8, and so on in powers of two, up to the
        last that there are; those that are infinite stand in the last of `ULP_BINS`.
    """

    max_difference: float
    p999_difference: float
    identical: int
    values: int
    allowed: float
    beyond: int
    fault: str
    max_ulp: float = 0.0
    ulp_counts: tuple[int, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every difference is at most what is allowed."""
        return self.max_difference <= self.allowed

    @property
    def different(self) -> int:
        """How many values are not equal to the bit."""
        return self.values - self.identical

    def measures(self) -> dict[str, Any]:
        """The figures that a record keeps, JSON-ready."""
        names = ("max_difference", "p999_difference", "identical", "values")
        return {name: getattr(self, name) for name in names} | ulp_measures([self])

    def require(self, subject: object) -> None:
        """Raise `AssertionError` unless the arrays agree: the subject, the first fault, and how many there are."""
        if not self.passed:
            raise AssertionError(f"{subject}: {self}")

    def __str__(self) -> str:
        if self.passed:
            return "bit-identical" if self.max_difference == 0 else f"max {self.max_difference:.2g}"
        wanted = "the same bits" if self.allowed == 0 else f"at most {self.allowed:.2g}"
        return (
            f"{self.fault}; a difference of {self.max_difference:.3g}, expected {wanted} "
            f"({self.beyond} of {self.values} values are beyond)"
        )


def compare(
    found: Any,
    expected: npt.NDArray,
    *,
    allowed: float = 0.0,
    documented: tuple[float, ...] = (),
    place: Callable[[tuple[int, ...]], str] = lambda index: f"at {list(index)}",
) -> Agreement:
    """Compare an array with the oracle's.

    Parameters
    ----------
    found, expected : array
        Of numbers or truth values; anything but an array is no agreement.
    allowed : float
        Largest absolute difference.
    documented : tuple of float
        Values that are not finite and yet agree with themselves, such as -inf, the log probability of the impossible.
    place : callable
        Index of a value, in words.
    """
    unlike = _unlike(found, expected)
    if unlike:
        values = max(expected.size, found.size if isinstance(found, np.ndarray) else 0, 1)
        counts = (0,) * (ULP_BINS - 1) + (values,)
        return Agreement(math.inf, math.inf, 0, values, allowed, values, unlike, math.inf, counts)
    if expected.size == 0:
        return Agreement(0.0, 0.0, 0, 0, allowed, 0, "")
    one, other = np.atleast_1d(found, expected)
    difference = _differences(one, other, documented)
    ulps = _ulps(one, other, difference)
    beyond = difference > allowed
    fault = ""
    if beyond.any():
        index = tuple(int(part) for part in np.unravel_index(int(beyond.argmax()), beyond.shape))
        fault = f"{place(index)}: found {one[index]!s}, the oracle has {other[index]!s}"
    return Agreement(
        float(difference.max()),
        float(np.percentile(difference, 99.9, method="higher")),
        int(np.count_nonzero(difference == 0)),
        int(expected.size),
        allowed,
        int(np.count_nonzero(beyond)),
        fault,
        float(ulps.max()),
        _count(ulps),
    )


def compare_each(found: Any, expected: Any, names: Iterable[str], *, allowed: float) -> dict[str, Agreement]:
    """`compare` of the arrays that two mappings or objects hold by each of these names."""
    return {name: compare(_get(found, name), _get(expected, name), allowed=allowed) for name in names}


def require_each(agreements: Mapping[str, Agreement], subject: object) -> None:
    """`Agreement.require` of each, by its name."""
    for name, agreement in agreements.items():
        agreement.require(f"{subject}, {name}")


def ulp_measures(agreements: Iterable[Agreement]) -> dict[str, Any]:
    """The largest difference in ULP of several comparisons, and their histogram, as a record keeps them."""
    found = list(agreements)
    return {
        "max_ulp": max((agreement.max_ulp for agreement in found), default=0.0),
        "ulp_counts": add_counts(agreement.ulp_counts for agreement in found),
    }


def add_counts(histograms: Iterable[Sequence[int]], num_bins: int = 0) -> list[int]:
    """The sum of several `Agreement.ulp_counts`, in as many bins as the longest has, and at least `num_bins`."""
    return [sum(column) for column in itertools.zip_longest([0] * num_bins, *histograms, fillvalue=0)]


def largest_difference(found: Any, expected: npt.NDArray) -> float:
    """The `max_difference` of `compare`."""
    return compare(found, expected).max_difference


def _get(holder: Any, name: str) -> Any:
    return holder[name] if isinstance(holder, Mapping) else getattr(holder, name)


def _unlike(found: Any, expected: npt.NDArray) -> str:
    """How type, dtype or shape differ; empty if they do not."""
    if not isinstance(found, np.ndarray):
        return f"found {type(found).__name__}, expected a numpy array"
    if found.dtype != expected.dtype:
        return f"found dtype {found.dtype}, expected {expected.dtype}"
    if found.shape != expected.shape:
        return f"found shape {found.shape}, expected {expected.shape}"
    return ""


def _differences(found: npt.NDArray, expected: npt.NDArray, documented: tuple[float, ...]) -> npt.NDArray:
    """Absolute differences, ``float64``: those of ``float32`` are exact in it."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference: npt.NDArray = np.subtract(found, expected, dtype=np.float64)
    np.abs(difference, out=difference)
    difference[~np.isfinite(difference)] = np.inf
    # No smaller one, which a processor may be told to take for 0.
    smallest = float(np.finfo(found.dtype).smallest_normal) if found.dtype.kind == "f" else 1.0
    difference[(difference == 0) & (_bits(found) != _bits(expected))] = smallest
    for value in documented:
        both = [np.isnan(array) if math.isnan(value) else array == value for array in (found, expected)]
        difference[both[0] & both[1]] = 0
    return difference


def _ulps(found: npt.NDArray, expected: npt.NDArray, difference: npt.NDArray) -> npt.NDArray:
    """Differences in ULP, ``float64``, of arrays with these absolute `_differences`."""
    if found.dtype.kind != "f":
        return difference
    ulps = difference.copy()
    apart = (difference > 0) & (difference < np.inf)
    one, other = _places(found[apart]), _places(expected[apart])
    # The difference of two int64 always fits uint64, if not int64.
    ulps[apart] = (np.maximum(one, other) - np.minimum(one, other)).view(np.uint64)
    return ulps


def _places(values: npt.NDArray) -> npt.NDArray[np.int64]:
    """Places of floats in the total order of IEEE 754: bits of positive ones ascend, of negative ones descend."""
    bits = values.view(f"i{values.dtype.itemsize}").astype(np.int64)
    return np.where(bits < 0, bits ^ np.iinfo(f"i{values.dtype.itemsize}").max, bits)


def _count(ulps: npt.NDArray) -> tuple[int, ...]:
    """The histogram `Agreement.ulp_counts`."""
    # frexp's exponent of n is the number of binary digits of n: 0 of 0, 1 of 1, 2 of 2 and 3.
    bins = np.where(ulps > 0, 1 + np.frexp(np.maximum(ulps, 1) - 1)[1], 0)
    bins[np.isinf(ulps)] = ULP_BINS - 1
    return tuple(np.bincount(bins.ravel()).tolist())


def _bits(array: npt.NDArray) -> npt.NDArray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
