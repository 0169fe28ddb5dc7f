"""Records of parity checks, for the report: one per comparison, written as JSON."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import pytest


class _OfAStage(Protocol):
    @property
    def stage(self) -> str: ...


Record = TypeVar("Record", bound=_OfAStage)

_SLOWEST = 25
# Why a test was skipped that `--within` left no time for.
NOT_REACHED = "not begun within"
# Of the pipeline; stages not named here follow in alphabetical order.
_ORDER = (
    *("audio reading", "separation", "spectrogram", "attention", "network"),
    *("decoder input", "decoder", "structure", "pipeline"),
)


@dataclasses.dataclass(frozen=True)
class ParityRecord:
    """One comparison of an implementation with its oracle.

    Attributes
    ----------
    stage : str
        ``spectrogram``, ``decoder``, ``attention``, ``network``, ``pipeline`` ...
    case : str
        What went in: a track and stem, or the name of a synthetic input.
    oracle, backend, device, precision : str
    bound : str
        What the comparison is held to, in words ("bit-identical", "<= 1e-6").
    passed : bool
    measures : dict
        JSON-ready figures, by the stage's own names; the stage's report section knows them.
    """

    stage: str
    case: str
    oracle: str
    backend: str
    device: str
    precision: str
    bound: str
    passed: bool
    measures: dict[str, Any] = dataclasses.field(default_factory=dict)


class Recorder(Generic[Record]):
    """Collects records during a session."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def __call__(self, record: Record) -> None:
        self.records.append(record)


ParityRecorder = Recorder[ParityRecord]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a test session ended.

    Attributes
    ----------
    passed : int
    failed, skipped : tuple of str
        Names of tests, and why tests were skipped, a line each.
    seconds : float
        What all tests took together, with their fixtures.
    slowest : tuple of (str, float)
        Names and seconds of the 25 that took longest.
    """

    passed: int
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
    seconds: float = 0.0
    slowest: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, config: pytest.Config) -> Outcome:
        """Of the session that pytest's terminal reporter has counted."""
        terminal = config.pluginmanager.get_plugin("terminalreporter")
        stats = terminal.stats if terminal else {}
        skipped = [report.longrepr[2].removeprefix("Skipped: ") for report in stats.get("skipped", ())]
        failed = [report.nodeid for report in (*stats.get("failed", ()), *stats.get("error", ()))]
        # A report for each of setup, call and teardown; pytest keeps setups that passed under an empty name.
        seconds: Counter[str] = Counter()
        for report in itertools.chain.from_iterable(stats.values()):
            if hasattr(report, "duration"):
                seconds[report.nodeid] += report.duration
        return cls(
            passed=len(stats.get("passed", ())),
            failed=tuple(failed),
            skipped=tuple(skipped),
            seconds=seconds.total(),
            slowest=tuple(seconds.most_common(_SLOWEST)),
        )

    def __str__(self) -> str:
        lines = [f"{self.passed} tests passed, {len(self.failed)} failed, {len(self.skipped)} skipped."]
        lines += [f"- **failed:** `{name}`" for name in self.failed]
        reasons = sorted(set(self.skipped))
        lines += [f"- skipped {self.skipped.count(reason)}: {reason}" for reason in reasons]
        return "\n".join(lines)


def in_order(records: Sequence[Record]) -> list[Record]:
    """The records by stage, in the order of the pipeline."""
    order = {stage: number for number, stage in enumerate(_ORDER)}
    return sorted(records, key=lambda record: (order.get(record.stage, len(order)), record.stage))


def stages(records: Sequence[_OfAStage]) -> list[str]:
    """The stages that have records, in the order of the pipeline."""
    return list(dict.fromkeys(record.stage for record in in_order(records)))


def oracle_was_absent(skipped: Sequence[str]) -> str | None:
    """A sentence for the top of a report whose session had no madmom, by why its tests were skipped; None if it had."""
    without = [reason for reason in skipped if reason.startswith("the oracle madmom")]
    if not without:
        return None
    return f"**Without the oracle: {len(without)} checks against madmom were skipped.** Here {without[0]}."


def read_records(path: Path) -> list[ParityRecord]:
    """Records of an earlier session, from the JSON that the report writer left."""
    return [ParityRecord(**row) for row in json.loads(path.read_text(encoding="utf-8"))["records"]]
