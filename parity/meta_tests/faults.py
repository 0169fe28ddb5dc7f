"""What every check of an array has to notice, by name: each function makes a copy that is wrong in one way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def _with(value: float, where: float) -> Callable[[np.ndarray], np.ndarray]:
    """Puts a value that is not finite at a place from 0, the first, to 1, the last; integers become ``float64``."""

    def put(array: np.ndarray) -> np.ndarray:
        copy = np.array(array, dtype=array.dtype if array.dtype.kind == "f" else np.float64)
        copy.reshape(-1)[round(where * (copy.size - 1))] = value
        return copy

    return put


def _other_dtype(array: np.ndarray) -> np.ndarray:
    """The same values in another type of the same kind: no comparison of values alone sees it."""
    wider = array.dtype.itemsize < 8
    return array.astype(f"{array.dtype.kind}{8 if wider else 4}")


Faults = dict[str, Callable[[np.ndarray], np.ndarray]]

# Each of an array of one value or more.
VALUE_FAULTS: Faults = {
    "NaN at the first place": _with(np.nan, 0),
    "NaN in the middle": _with(np.nan, 0.5),
    "NaN at the last place": _with(np.nan, 1),
    "infinity": _with(np.inf, 0.5),
    "minus infinity": _with(-np.inf, 0.5),
    "NaN everywhere": lambda array: np.full_like(array, np.nan, dtype=np.result_type(array, np.float32)),
}
FAULTS: Faults = {
    **VALUE_FAULTS,
    # Shapes that broadcast against the right one, and one that does not.
    "an axis too many": lambda array: array[np.newaxis].copy(),
    "one value alone": lambda array: array.reshape(-1)[:1].copy(),
    "the last one missing": lambda array: array[..., :-1].copy(),
    "nothing": lambda array: array[:0].copy(),
    "another dtype": _other_dtype,
}
