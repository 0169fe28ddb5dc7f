"""What the report says about hard use: how many inputs were tried, how they ended, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hard_use.reader_process import Reading
from parity.records import ParityRecord, ParityRecorder


def record(
    recorder: ParityRecorder, case: str, bound: str, readings: Sequence[Reading], wrong: Sequence[str]
) -> None:
    """Record how the reading of hostile files ended."""
    ended = Counter(reading.ended for reading in readings)
    record_trials(
        recorder,
        "hostile files",
        case,
        bound,
        tried=len(readings),
        wrong=wrong,
        refused=ended["refused"],
        read=ended["read"],
        peak_megabytes=round(max(reading.peak_bytes for reading in readings) / 1e6, 1),
        slowest_seconds=round(max(reading.seconds for reading in readings), 3),
    )


def record_trials(
    recorder: ParityRecorder,
    area: str,
    case: str,
    bound: str,
    *,
    tried: int,
    wrong: Sequence[str] = (),
    backend: str = "",
    precision: str = "",
    **measures: Any,
) -> None:
    """Record any check of hard use.

    Parameters
    ----------
    recorder : ParityRecorder
    area : str
        Heading of the report's section: one of those in `parity.sections.hard_use`.
    case, bound : str
        What was tried, and what it was held to.
    tried : int
        Number of inputs.
    wrong : sequence of str
        What failed, an item for each.
    backend, precision : str
        What was tried, where that is one of several.
    **measures
        Other figures, JSON-ready, named with their units.
    """
    recorder(
        ParityRecord(
            # One row of the report's summary stands for all of these; their section has the details.
            stage="hard use",
            case=case,
            oracle="specification",
            backend="all",
            device="cpu",
            precision="-",
            bound="nothing fails",
            passed=not wrong,
            measures={
                "area": area,
                "held_to": bound,
                "ran": ", ".join(filter(None, (backend, precision))),
                "tried": tried,
                "failed": len(wrong),
                "first_failure": wrong[0] if wrong else "",
                **measures,
            },
        )
    )
