"""Growing sample buffer of bounded size: decoded blocks are appended to one array without a second copy.

The array grows in place (``realloc``, which moves pages where the system can, not bytes), by a quarter at a time, and
first to what the file's header promises, as far as the file's own size makes that likely. So memory follows what a
file holds, not what it claims.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

AllocateFirst: TypeAlias = Callable[[int, np.dtype], np.ndarray]


class SampleBuffer:
    """Gathers blocks of samples.

    Parameters
    ----------
    most_bytes : int
        Size that it may have.
    promised, likely : int
        Samples that are expected, of each channel, and bytes that are taken on that promise alone.
    allocate : callable
        Makes the first array, from its size and dtype. It may be part of a larger one; if the samples outgrow it, they
        are copied to another.
    """

    def __init__(
        self, most_bytes: int, promised: int = 0, likely: int = 0, allocate: AllocateFirst = np.empty
    ) -> None:
        self._allocate = allocate
        self._most_bytes = most_bytes
        self._promised = promised
        self._likely = likely
        self._values: np.ndarray | None = None
        self._channels = 1
        self._used = 0

    def add(self, block: np.ndarray) -> bool:
        """Append ``(num_samples, num_channels)``; False, and nothing is appended, if that would be too much."""
        used = self._used + block.size
        if used * block.itemsize > self._most_bytes:
            return False
        if self._values is None:
            self._channels = block.shape[1]
            first = min(self._promised * self._channels, self._likely // block.itemsize)
            self._values = self._allocate(max(first, block.size), block.dtype)
        elif used > self._values.size:
            most = self._most_bytes // block.itemsize
            if self._values.base is not None:
                self._values = self._values[: self._used].copy()
            # No view of it exists: `samples` gives it away.
            self._values.resize(min(max(used, self._values.size * 5 // 4), most), refcheck=False)
        self._values[self._used : used].reshape(block.shape)[...] = block
        self._used = used
        return True

    def samples(self, dtype: str, num_channels: int) -> np.ndarray:
        """All that was appended, ``(num_samples, num_channels)``; of that dtype and width if it was nothing."""
        if self._values is None:
            return np.empty((0, num_channels), dtype)
        values, self._values = self._values, None
        if values.base is None:
            values.resize(self._used, refcheck=False)
        else:
            values = values[: self._used]
        return values.reshape(-1, self._channels)
