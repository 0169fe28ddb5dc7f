"""The part of the parity report on hard use: how many inputs were tried, and what failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from parity.reports.records import ParityRecord
from parity.reports.tables import frame, markdown

_AREAS = {
    "properties": "Laws that hold whatever the input; inputs are drawn by Hypothesis or from seeds.",
    "hostile files": "Files are read in a process of its own, where a crash, a hang, memory beyond the bound and "
    "executed code are seen. Each must end in an error that names the file, or in a checked result.",
    "long and many": "Long inputs, many inputs, killed runs, shared folders, and what they take.",
    "instruments": "Kernels at the edges of their buffers (also under both sanitizers, by `make sanitize`), threads, "
    "leaks.",
}
_HIDDEN = ("area", "held_to", "ran", "tried", "failed", "first_failure")
_LONGEST_FAILURE = 400  # characters

_LONG_FORMS = (
    "The long forms (an hour of music, 1,000 tracks, 50 kills, both sanitizers, more examples of each law) are run by "
    "`make parity-full`; what came of them last: [accuracy.md](accuracy.md#hard-use-long-forms)."
)


def worst(records: Sequence[ParityRecord]) -> str:
    """For the summary: how many inputs these records stand for, and how many of them failed."""
    table = frame(records)
    return f"{table['failed'].sum() or 'none'} of {table['tried'].sum():,} inputs failed"


def render(records: Sequence[ParityRecord], folder: Path) -> str:
    """Markdown of this stage; a table for each area."""
    lines = ["## Hard use", "", f"Over all: {worst(records)}. {_LONG_FORMS}", "", *tables(records)]
    return "\n".join(lines)


def tables(records: Sequence[ParityRecord]) -> list[str]:
    """Lines of markdown: a table for each area, then what failed."""
    lines: list[str] = []
    by_area = dict(iter(frame(records).groupby("area"))) if records else {}
    for area in dict.fromkeys([*_AREAS, *by_area]):
        if area not in by_area:
            continue
        lines += ["", f"### {area.capitalize()}", "", _AREAS.get(area, ""), ""]
        cases = by_area[area].groupby(["case", "held_to"], sort=False)
        # One case, summed over the implementations it was tried on.
        rows = [
            {
                "what": case,
                "ran": "; ".join(filter(None, dict.fromkeys(group["ran"]))),
                "held to": bound,
                **counts(group),
                "measured": measured([records[index] for index in group.index]),
            }
            for (case, bound), group in cases
        ]
        lines.append(markdown(rows, right={"inputs", "failed"}))
    failures = [record for record in records if not record.passed]
    if failures:
        lines += ["", "Failed:", ""]
        lines += [f"- {record.case}: {_one_line(record.measures['first_failure'])}" for record in failures]
    return lines[1:]


def counts(group: pd.DataFrame) -> dict[str, str]:
    """Cells that say how many inputs were tried, and how many of them failed."""
    failed = group["failed"].sum()
    return {"inputs": f"{group['tried'].sum():,}", "failed": f"**{failed}**" if failed else "0"}


def measured(records: Sequence[ParityRecord]) -> str:
    """What the records of one case measured, in words."""
    parts = []
    names = dict.fromkeys(name for record in records for name in record.measures if name not in _HIDDEN)
    for name in names:
        values = [record.measures[name] for record in records if name in record.measures]
        # Counts add up; of sizes and times, the largest says what was needed.
        counts = name in ("refused", "read", "paths", "killed")
        value = (sum(values) if counts else max(values)) if all(_is_number(v) for v in values) else values[-1]
        parts.append(f"{name.replace('_', ' ')} {_shown(value)}")
    return "; ".join(parts)


def _one_line(text: str) -> str:
    """A failure may be a process's whole output; its end says most."""
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST_FAILURE else f"... {words[-_LONGEST_FAILURE:]}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
