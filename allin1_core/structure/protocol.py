"""Protocol of a backend of the structure: one function that keeps the local maxima of a probability."""

from __future__ import annotations

from typing import Any, Protocol


class LocalMaximaBackend(Protocol):
    """One implementation of the local maxima, as `allin1_core.backends` loads it."""

    def __call__(self, probability: Any, window: int, /) -> Any:
        """Keep the frames that are the maximum of the window around them.

        Parameters
        ----------
        probability : float32 (T,)
            An array of the backend's own library, on its device.
        window : int
            Frames, odd; cut off at both ends of the array.

        Returns
        -------
        float32 (T,)
            Of the same library: the probability at local maxima, 0 elsewhere. Frames that share a maximum are all kept,
            and so is NaN, for `pick_boundaries` to refuse.
        """
