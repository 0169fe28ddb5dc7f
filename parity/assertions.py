"""Assertions that say where two results part: which input, stem, frame and band, and both values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How close a log spectrogram came to the oracle's.

    Attributes
    ----------
    max_difference, p999_difference : float
        Largest, and 99.9th percentile, of the absolute differences.
    identical, values : int
        Values equal to the bit, and how many there are.
    """

    max_difference: float
    p999_difference: float
    identical: int
    values: int

    @property
    def bit_identical(self) -> bool:
        return self.identical == self.values

    def within(self, allowed: float) -> bool:
        """Whether every difference is at most ``allowed``; 0 asks for the same bits."""
        return self.bit_identical if allowed == 0 else self.max_difference <= allowed

    def __str__(self) -> str:
        return "bit-identical" if self.bit_identical else f"max {self.max_difference:.2g}"


def differences(output: npt.NDArray, expected: npt.NDArray) -> npt.NDArray[np.float32]:
    """Absolute differences, infinite where one of the two is not finite.

    In ``float32``, where the difference of two values within a factor of two of one another is exact.
    """
    difference = output - expected
    np.abs(difference, out=difference)
    difference[~np.isfinite(difference)] = np.inf
    return difference


def measure_agreement(output: npt.NDArray, expected: npt.NDArray) -> Agreement:
    """Compare two ``float32`` arrays of the same shape."""
    if expected.size == 0:
        return Agreement(0.0, 0.0, 0, 0)
    difference = differences(output, expected)
    same = np.count_nonzero(output.view(np.uint32) == expected.view(np.uint32))
    return Agreement(
        float(difference.max()),
        float(np.percentile(difference, 99.9, method="higher")),
        int(same),
        int(expected.size),
    )


def assert_log_spectrogram(
    output: npt.NDArray,
    expected: npt.NDArray,
    *,
    allowed: float,
    case: object,
    stems: Sequence[str],
    implementation: object,
) -> None:
    """Fail unless every value is within ``allowed`` of the oracle's, or has the same bits if it is 0.

    Parameters
    ----------
    output, expected : float32 (num_stems, num_frames, num_bands)
    allowed : float
        Largest absolute difference.
    case, implementation : object
        Named in the message by their ``str``.
    stems : sequence of str
        Names of the rows.

    Raises
    ------
    AssertionError
        Says the input, the stem, the implementation, the worst frame and band, and both values there.
    """
    subject = f"{case}: {implementation}"
    assert isinstance(output, np.ndarray), f"{subject}: found {type(output).__name__}, expected a numpy array"
    assert output.dtype == np.float32, f"{subject}: found dtype {output.dtype}, expected float32"
    assert output.shape == expected.shape, f"{subject}: found shape {output.shape}, expected {expected.shape}"
    output = np.ascontiguousarray(output)
    agreement = measure_agreement(output, expected)
    if agreement.within(allowed):
        return
    difference = differences(output, expected)
    if difference.max() == 0:  # -0.0 against 0.0
        difference = (output.view(np.uint32) != expected.view(np.uint32)).astype(np.float64)
    stem, frame, band = (int(index) for index in np.unravel_index(np.argmax(difference), difference.shape))
    wanted = "the same bits" if allowed == 0 else f"at most {allowed:.2g}"
    beyond = agreement.values - agreement.identical if allowed == 0 else int((difference > allowed).sum())
    raise AssertionError(
        f"{subject}: stem {stems[stem]!r}, frame {frame}, band {band}: found {output[stem, frame, band]:.9g}, "
        f"the oracle has {expected[stem, frame, band]:.9g}; a difference of "
        f"{agreement.max_difference:.3g}, expected {wanted} ({beyond} of {agreement.values} values are beyond)"
    )
