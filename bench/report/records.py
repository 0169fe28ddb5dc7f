"""Records of benchmarks, for the report and the gate: one per stage, backend and precision."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure.paired import Ratio, paired_ratio
from parity.environment import describe_machine, source_digest
from parity.reports.records import Recorder

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchRecord:
    """One candidate timed against one reference on one input.

    What the report and the gate read is here; `figures` holds only what some rows have.

    Attributes
    ----------
    stage, backend, device, precision : str
        As in `allin1_core.backends.Choice`; the backend of a row with ``role="peer"`` is the peer's name.
    variant : str
        What else tells rows apart ("[3, 4]", "8 folds", "native"); empty if nothing does.
    reference : str
        Who it was timed against ("madmom 0.17.post1"); empty for a time on its own.
    track : str
    audio_seconds : float
        0 where no audio is worked on (making a decoder).
    threads : int
        What the candidate was allowed to use.
    seconds, reference_seconds : list of float
        One per round, paired by index; `reference_seconds` is empty without a reference.
    agreement : str
        Result of the parity check on this run's outputs, in words with the unit and the bound ("bit-identical",
        "max 3.6e-07 log10, bound 1e-06"); empty where nothing was compared.
    agrees : bool
        Whether that check passed; a row that does not agree is never shown as a speed-up.
    peak_memory_bytes : int, optional
        Above the interpreter with its libraries loaded (`bench.measure.memory.peak_memory_bytes`).
    figures : dict
        JSON-ready extras that the report shows, all optional:

        ``by_length`` (list of dict) : ``audio_seconds``, ``seconds`` and, if measured, ``peak_memory_bytes`` for
        growing lengths, drawn log-log with the fitted exponent;
        ``timings`` (list of dict) : lines of one run (docs/timings.md), drawn as a waterfall;
        ``gflops`` (float) : arithmetic done, in 10^9 operations, shown as GFLOP/s;
        ``computed_by`` (str) : the backend whose result this one hands on, which then speaks for both;
        ``note`` (str) : what a reader of the row must know.
    role : str
        ``candidate`` for ours, ``peer`` for another project timed beside ours.
    reference_threads : int, optional
        What the reference uses at most: 1 for madmom, as All-In-One calls it.
    reference_peak_memory_bytes : int, optional
        As `peak_memory_bytes`.
    """

    stage: str
    backend: str
    device: str = "cpu"
    precision: str = "exact"
    variant: str = ""
    reference: str = ""
    track: str
    audio_seconds: float
    threads: int
    seconds: list[float]
    reference_seconds: list[float] = dataclasses.field(default_factory=list)
    agreement: str = ""
    agrees: bool = True
    peak_memory_bytes: int | None = None
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    role: str = "candidate"
    reference_threads: int | None = None
    reference_peak_memory_bytes: int | None = None

    @property
    def key(self) -> str:
        """What names the row, in the baseline and in messages: ``spectrogram/torch/cpu/exact/2 threads``."""
        parts = (self.stage, self.backend, self.device, self.precision, self.variant, self.thread_words)
        return "/".join(part for part in parts if part)

    @property
    def thread_words(self) -> str:
        """``2 threads``; empty where the variant says it already."""
        if "thread" in self.variant:
            return ""
        return f"{self.threads} thread{'s' if self.threads != 1 else ''}"

    @property
    def median(self) -> float:
        """Median time in seconds."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        """Interquartile range of the times in seconds."""
        low, high = np.percentile(self.seconds, [25, 75])
        return float(high - low)

    @property
    def reference_median(self) -> float | None:
        """Median time of the reference in seconds; None for a time on its own."""
        return float(np.median(self.reference_seconds)) if self.reference_seconds else None

    @property
    def ratio(self) -> Ratio | None:
        """How many times faster than the reference; None for a time on its own."""
        if not self.reference_seconds:
            return None
        return paired_ratio(np.array(self.seconds), np.array(self.reference_seconds))


BenchRecorder = Recorder[BenchRecord]


def read_report(path: Path) -> tuple[list[BenchRecord], dict[str, Any]]:
    """Records of an earlier session, and all that is in the ``bench.json`` that the report writer left.

    Raises
    ------
    ValueError
        If the file is not one of this schema; names the file.
    FileNotFoundError
        If there is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}); expected what `make bench` writes") from error
    found = content.get("schema") if isinstance(content, dict) else None
    if found != SCHEMA_VERSION:
        raise ValueError(f"{path}: schema {found!r}; expected {SCHEMA_VERSION}; run `make bench` again")
    return [BenchRecord(**row) for row in content["records"]], content


def read_fresh_report(path: Path) -> tuple[list[BenchRecord], dict[str, Any]]:
    """As `read_report`; `ValueError` as well if it was measured on other sources than these, or on another machine."""
    records, content = read_report(path)
    if content.get("source") != source_digest():
        raise ValueError(f"{path}: measured on another state of allin1_core; run `make bench` again")
    if content.get("machine") != describe_machine():
        raise ValueError(f"{path}: measured on another machine; run `make bench` on this one")
    return records, content
