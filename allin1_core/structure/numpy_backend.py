"""Local maxima of a numpy array."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import maximum_filter1d


def local_maxima(probability: np.ndarray, window: int) -> np.ndarray:
    """Keep the frames that are the maximum of the window around them.

    Parameters
    ----------
    probability : float32 (T,)
    window : int
        Frames, odd; cut off at both ends of the array.

    Returns
    -------
    float32 (T,)
        The probability at local maxima, 0 elsewhere. Frames that share a maximum are all kept.
    """
    if probability.size == 0:
        return probability.copy()
    highest = maximum_filter1d(probability, window, mode="constant", cval=-np.inf)
    return np.where(probability == highest, probability, np.float32(0))
