"""Local maxima of a numpy array."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import maximum_filter1d


def local_maxima(probability: np.ndarray, window: int) -> np.ndarray:
    """See `allin1_core.structure.protocol.LocalMaximaBackend`."""
    if probability.size == 0:
        return probability.copy()
    highest = maximum_filter1d(probability, window, mode="constant", cval=-np.inf)
    return np.where(probability < highest, np.float32(0), probability)
