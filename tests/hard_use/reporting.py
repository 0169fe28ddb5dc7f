"""What the report says about hard use: how many inputs were tried, how they ended, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hard_use.reader_process import Reading
from parity.records import ParityRecord, ParityRecorder

STAGE = "hard use"


def record(
    recorder: ParityRecorder, case: str, bound: str, readings: Sequence[Reading], wrong: Sequence[str]
) -> None:
    """Record how the reading of hostile files ended."""
    ended = Counter(reading.ended for reading in readings)
    record_trials(
        recorder,
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
    case: str,
    bound: str,
    *,
    tried: int,
    wrong: Sequence[str] = (),
    backend: str = "-",
    device: str = "cpu",
    precision: str = "exact",
    **measures: Any,
) -> None:
    """Record any check of hard use: so many inputs were tried, and these went wrong."""
    recorder(
        ParityRecord(
            stage=STAGE,
            case=case,
            oracle="specification",
            backend=backend,
            device=device,
            precision=precision,
            bound=bound,
            passed=not wrong,
            measures={
                "tried": tried,
                "failed": len(wrong),
                "first_failure": wrong[0] if wrong else "",
                **measures,
            },
        )
    )
