"""What a benchmark measured, kept for the report and the gate: one per stage, backend and precision."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class BenchRecord:
    """One candidate timed against one reference on one input.

    Attributes
    ----------
    stage, backend, device, precision : str
        As in `allin1_core.backends.Choice`.
    variant : str
        What else tells rows apart ("[3, 4]", "8 folds", "native"); empty if nothing does.
    reference : str
        Who it was timed against ("madmom 0.17.post1"); empty for a time on its own.
    track : str
    audio_seconds : float
    threads : int
        What the candidate was allowed to use.
    seconds, reference_seconds : list of float
        One per round, paired by index; `reference_seconds` is empty without a reference.
    agreement : str
        Result of the parity check on this run's outputs, in words ("bit-identical", "max 3.6e-07").
    agrees : bool
        Whether that check passed; a row that does not agree is never shown as a speed-up.
    peak_memory_bytes : int, optional
        Above the interpreter with its libraries loaded.
    figures : dict
        JSON-ready extras that the stage's own plots use (times against length, GFLOP/s ...).
    """

    stage: str
    backend: str
    device: str
    precision: str
    variant: str
    reference: str
    track: str
    audio_seconds: float
    threads: int
    seconds: list[float]
    reference_seconds: list[float]
    agreement: str
    agrees: bool
    peak_memory_bytes: int | None = None
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)


class BenchRecorder:
    """Collects records during a benchmark session."""

    def __init__(self) -> None:
        self.records: list[BenchRecord] = []

    def __call__(self, record: BenchRecord) -> None:
        self.records.append(record)
