"""Networks with seeded random parameters and spectrograms to run them on, for what must hold without the weights."""

from __future__ import annotations

import numpy as np

from allin1_core.network import Checkpoint, Configuration, Thresholds


def random_checkpoint(seed: int, configuration: Configuration | None = None) -> Checkpoint:
    """Parameters that keep every layer at work: no score so large that softmax picks one key, no dead bias."""
    configuration = configuration or Configuration()
    rng = np.random.default_rng(seed)
    parameters = {}
    for name, shape in configuration.parameter_shapes().items():
        value = rng.standard_normal(shape)
        if name.endswith("weight") and len(shape) > 1:
            value *= 1.4 / np.sqrt(np.prod(shape[1:]))
        elif "norm" in name and name.endswith("weight"):
            value = 1 + 0.2 * value
        else:
            value *= 0.3
        parameters[name] = value.astype(np.float32)
    return Checkpoint(f"random-{seed}", configuration, Thresholds(beat=0.2, downbeat=0.2), parameters)


def random_spectrogram(frames: int, seed: int = 0) -> np.ndarray:
    """float32 (4, frames, 81), of the range of a log spectrogram."""
    rng = np.random.default_rng([seed, frames])
    return np.log10(1 + rng.gamma(0.5, 20.0, size=(4, frames, 81))).astype(np.float32)
