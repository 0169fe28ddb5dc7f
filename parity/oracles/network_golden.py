"""Probabilities that all-in-one-infer 3.1.0 gave for the shared tracks with the ensemble, recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

ORACLE = "golden (all-in-one-infer 3.1.0)"
TRACKS = ("falcon69", "jaxius", "boogi_marabi", "midnight_snow_run", "keep_on_rolling")
SHORT_TRACKS = ("falcon69", "jaxius")
OUTPUTS = ("beat", "downbeat", "segment", "label")


def read_golden(shared: Path, track: str) -> dict[str, np.ndarray]:
    """float32 arrays by name of `OUTPUTS`: (T,), and (10, T) for ``label``."""
    with np.load(shared / "golden" / f"{track}.npz") as archive:
        return {name: archive[name] for name in OUTPUTS}
