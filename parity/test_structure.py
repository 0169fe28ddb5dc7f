"""Sections from the recorded probabilities, in every library, against the recorded sections."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import backends
from allin1_core.stages import to_host
from allin1_core.structure import LOCAL_MAXIMA_WINDOW, pick_boundaries, sections
from parity.oracles.network_golden import ORACLE, TRACKS, read_golden
from parity.records import ParityRecord, ParityRecorder
from parity.test_pipeline import read_golden_result


def _native(backend: str, values: np.ndarray) -> Any:
    if backend == "torch":
        return importlib.import_module("torch").from_numpy(values)
    if backend == "mlx":
        return importlib.import_module("mlx.core").array(values)
    return values


@pytest.mark.parametrize("backend", ["numpy", "torch", "mlx"])
@pytest.mark.parametrize("track", TRACKS)
def test_sections_are_the_recorded_ones(
    shared: Path, track: str, backend: str, record_parity: ParityRecorder
) -> None:
    probabilities = read_golden(shared, track)
    local_maxima = backends.get("structure", backend).load()
    maxima = to_host(local_maxima(_native(backend, probabilities["segment"]), LOCAL_MAXIMA_WINDOW))
    found = [[s.start, s.end, s.label] for s in sections(pick_boundaries(maxima), probabilities["label"])]
    expected = read_golden_result(shared, track)["segments"]
    record_parity(
        ParityRecord(
            stage="structure",
            case=track,
            oracle=ORACLE,
            backend=backend,
            device="mlx" if backend == "mlx" else "cpu",
            precision="exact",
            bound="identical",
            passed=found == expected,
            measures={
                "sections": len(found),
                "differences": 0 if found == expected else len(expected),
            },
        )
    )
    assert found == expected
