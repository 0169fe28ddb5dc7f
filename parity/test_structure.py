"""Sections from the recorded probabilities, in every library, against the recorded sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import backends
from allin1_core.backends.devices import to_host
from allin1_core.structure import LOCAL_MAXIMA_WINDOW, Segment, pick_boundaries, sections
from parity.agreement import Agreement, compare, require_each, ulp_measures
from parity.implementations import Implementation, implementations, native
from parity.inputs.edges import sections_that_tie
from parity.oracles import pipeline, structure
from parity.oracles.network_golden import ORACLE, TRACKS, read_golden
from parity.oracles.structure import Section
from parity.reports.records import ParityRecord, ParityRecorder

IMPLEMENTATIONS = [one for one in implementations("structure") if one.precision == "exact"]


def _run(
    implementation: Implementation, segment: np.ndarray, label: np.ndarray
) -> tuple[Any, np.ndarray, list[Segment]]:
    """Local maxima, boundaries and sections, as the pipeline makes them of probabilities."""
    backend, device = implementation.backend, implementation.on("structure")
    local_maxima = backends.get("structure", backend).load()
    maxima = to_host(local_maxima(native("structure", backend, segment, device), LOCAL_MAXIMA_WINDOW))
    boundaries = pick_boundaries(maxima)
    return maxima, boundaries, sections(boundaries, label)


def check(
    record_parity: ParityRecorder,
    case: str,
    implementation: Implementation,
    probabilities: Mapping[str, np.ndarray],
    golden: Sequence[Section] | None = None,
) -> None:
    """Record how a backend's sections compare with the definition's, and the recorded ones; then hold them to both."""
    segment, label = probabilities["segment"], probabilities["label"]
    maxima, boundaries, found = _run(implementation, segment, label)
    expected = structure.local_maxima(segment)
    starts = structure.boundaries(expected)
    agreements: dict[str, Agreement] = {
        "local maxima": compare(maxima, expected),
        "frames of boundaries": compare(boundaries, starts),
        **structure.compare_sections(
            found, golden if golden is not None else structure.sections(starts, label), allowed=0
        ),
    }
    record_parity(
        ParityRecord(
            stage="structure",
            case=case,
            oracle=structure.ORACLE if golden is None else f"{structure.ORACLE} and {ORACLE}",
            backend=implementation.backend,
            device=implementation.on("structure"),
            precision="exact",
            bound="identical",
            passed=all(agreement.passed for agreement in agreements.values()),
            measures={
                "sections": len(found),
                "differences": sum(agreement.different for agreement in agreements.values()),
                **ulp_measures(agreements.values()),
            },
        )
    )
    require_each(agreements, f"{implementation}, {case}")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
@pytest.mark.parametrize("track", TRACKS)
def test_sections_are_the_recorded_ones(
    shared: Path, track: str, implementation: Implementation, record_parity: ParityRecorder
) -> None:
    golden = pipeline.read_golden(shared, track)
    check(record_parity, track, implementation, read_golden(shared, track), golden.segments)


def probabilities_of(num_frames: int, values: int) -> dict[str, np.ndarray]:
    """Seeded probabilities; with few values to choose from, many neighbours are equal."""
    random = np.random.default_rng([num_frames, values])
    segment = (random.integers(0, values + 1, num_frames) / values).astype(np.float32) ** 8
    return {"segment": segment, "label": random.dirichlet(np.ones(10), num_frames).T.astype(np.float32)}


# Around the window of 97 frames, and around 1,200 frames on either side.
@pytest.mark.parametrize("spacings", [(47, 48, 49, 50), (1199, 1200, 1201)], ids=str)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
def test_values_that_tie(
    implementation: Implementation, spacings: tuple[int, ...], record_parity: ParityRecorder
) -> None:
    case = f"peaks that tie, {spacings[0]} to {spacings[-1]} frames apart"
    check(record_parity, case, implementation, sections_that_tie(spacings, 150_000))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
@pytest.mark.parametrize(
    ("num_frames", "values"),
    [(1, 1), (2, 3), (48, 10_000), (97, 1), (98, 3), (1201, 10_000), (2402, 3), (9000, 10_000)],
)
def test_made_up_probabilities(
    num_frames: int, values: int, implementation: Implementation, record_parity: ParityRecorder
) -> None:
    case = f"{num_frames} frames of {values + 1} values"
    check(record_parity, case, implementation, probabilities_of(num_frames, values))
