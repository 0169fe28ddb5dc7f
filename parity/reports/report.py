"""Writes reports/parity.md: what was compared with which oracle, how close it came, and whether that was enough.

The summary stands first. Each stage's own section follows, from ``parity/reports/sections/<stage>.py`` if there is one
(``render(records, folder) -> str``: markdown, with plots written into the folder), else from a plain table. The
records themselves go into parity.json, which `parity.reports.records.read_records` reads.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from parity.environment import describe_machine, versions
from parity.reports import accuracy, ulps
from parity.reports.publish import now, publish, scratch_folder
from parity.reports.records import Outcome, ParityRecord, in_order, oracle_was_absent, stages
from parity.reports.tables import frame, markdown, yes

_FULL = "`make parity-full`, which begins with `python -m pytest tests parity --full --parity-report reports`"


def write_parity_report(
    records: Sequence[ParityRecord], folder: Path, outcome: Outcome | None = None, *, full: bool = False
) -> Path:
    """Write parity.md, its plots and parity.json, and return the path of the first.

    The folder is made if it is not there, and changes only when all of them could be made. What a session with the
    long checks (`full`) found of hard use also goes into accuracy.md, where a later one without them leaves it.
    """
    with scratch_folder(folder) as scratch:
        text = _markdown(records, scratch, outcome)
        content = {
            "created": now(),
            "machine": describe_machine(),
            "versions": versions(),
            "outcome": dataclasses.asdict(outcome) if outcome else None,
            "records": [dataclasses.asdict(record) for record in records],
        }
        path = publish(scratch, folder, "parity", text, content)
    long_forms = [dataclasses.asdict(record) for record in records if full and record.stage == "hard use"]
    if long_forms:
        accuracy.update(
            folder, "hard_use", {"command": _FULL, "outcome": str(outcome or ""), "records": long_forms}
        )
    return path


def _markdown(records: Sequence[ParityRecord], scratch: Path, outcome: Outcome | None) -> str:
    machine = describe_machine()
    lines = ["# Parity: is it the same?", ""]
    lines += [_verdict(records, outcome), ""]
    absent = oracle_was_absent(outcome.skipped) if outcome else None
    lines += [absent, ""] if absent else []
    if records:
        lines += [
            "One row for each implementation: how many inputs were compared with the oracle, what they were held to,",
            "and the largest difference seen on any of them, absolute and in ULP (where a difference is",
            "far below its bound but between numbers close to 0, it is millions of them).",
            "",
            _summary(in_order(records)),
            "",
        ]
    lines += [f"Measured {now()} on {machine['cpu']} ({machine['cores']} cores), Python {machine['python']};"]
    lines += [", ".join(f"{name} {version}" for name, version in versions().items()) + ".", ""]
    if outcome is not None:
        lines += [str(outcome), ""]
    for stage in stages(records):
        chosen = [record for record in records if record.stage == stage]
        lines += [_section(stage, chosen, scratch), *ulps.section(stage, chosen, scratch), ""]
    if outcome is not None and outcome.slowest:
        minutes, seconds = divmod(round(outcome.seconds), 60)
        lines += ["## Time of the tests", "", f"{minutes} min {seconds} s together. The slowest:", ""]
        rows = [{"test": f"`{name}`", "seconds": f"{taken:.1f}"} for name, taken in outcome.slowest]
        lines += [markdown(rows, right={"seconds"})]
    return "\n".join(lines).rstrip() + "\n"


def _verdict(records: Sequence[ParityRecord], outcome: Outcome | None) -> str:
    wrong = [record for record in records if not record.passed]
    failed = len(outcome.failed) if outcome else 0
    if not records:
        return "**Nothing was compared in this run.**"
    if not wrong and not failed:
        return f"**All {len(records)} comparisons with the oracles are within their bounds.**"
    text = f"**{len(wrong)} of {len(records)} comparisons are outside their bounds"
    return text + (f", and {failed} tests failed.**" if failed else ".**")


def _summary(records: Sequence[ParityRecord]) -> str:
    rows = []
    columns = ["stage", "backend", "device", "precision", "oracle", "bound"]
    for names, group in frame(records).groupby(columns, sort=False):
        *first, bound = names
        same = [records[index] for index in group.index]
        within = int(group["passed"].sum())
        rows.append(
            {
                **dict(zip(columns, first, strict=False)),
                "held to": bound,
                "inputs": len(group),
                "within": within if within == len(group) else f"**{within}**",
                "worst seen": getattr(_section_module(same[0].stage), "worst", worst_measure)(same),
                "in ULP": ulps.worst(same),
            }
        )
    return markdown(rows, right={"inputs", "within", "in ULP"})


def worst_measure(records: Sequence[ParityRecord]) -> str:
    """The largest of the measures whose name says that it is a difference, with that name; "-" if there is none."""
    names = {
        name
        for record in records
        for name, value in record.measures.items()
        if "difference" in name and isinstance(value, int | float)
    }
    for name in sorted(names, key=lambda name: (not name.startswith("max"), name)):
        worst = max(records, key=lambda record: float(record.measures.get(name, 0)))
        value = float(worst.measures.get(name, 0))
        return "no difference" if value == 0 else f"{value:.2g} ({worst.case})"
    return "-"


def _section_module(stage: str) -> ModuleType | None:
    name = f"parity.reports.sections.{stage.replace('-', '_').replace(' ', '_')}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def _section(stage: str, records: list[ParityRecord], scratch: Path) -> str:
    section = _section_module(stage)
    if section is not None:
        text = str(section.render(records, scratch)).strip()
        return text if text.startswith("#") else f"## {stage.capitalize()}\n\n{text}"
    rows = [
        {
            "input": record.case,
            "backend": record.backend,
            "oracle": record.oracle,
            "held to": record.bound,
            "within": yes(record.passed),
            # Histograms are drawn.
            "measured": ", ".join(
                f"{name.replace('_', ' ')} {_short(value)}"
                for name, value in record.measures.items()
                if isinstance(value, int | float | str)
            ),
        }
        for record in records
    ]
    return f"## {stage.capitalize()}\n\n{markdown(rows)}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
