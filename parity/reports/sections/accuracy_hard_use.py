"""Hard use in its long forms: their part of the report of the long checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parity.reports.records import ParityRecord
from parity.reports.sections import hard_use

# Cases of which there is a long form only, or whose long form is much longer; named as the tests record them.
LONG_FORMS = (
    "60 minutes, four stems, eight folds",
    "short tracks in one run",
    "kill -9 at a random moment, then resume",
    "kernels under AddressSanitizer and UndefinedBehaviorSanitizer (tests)",
    "leaks: stems to result",
)
_TOTALS = {"properties": "examples of laws", "hostile files": "hostile files (fuzz corpus)"}


def render(content: dict[str, Any], folder: Path) -> str:
    """Markdown of this section."""
    records = [ParityRecord(**row) for row in content["records"]]
    missing = [case for case in LONG_FORMS if not _of(records, case)]
    lines = [
        "## Hard use, long forms",
        "",
        f"**Over all: {hard_use.worst(records)}.**",
        "",
        f"Command: {content['command']}. Measured {content['measured']} on {content['machine']['cpu']} "
        f"({content['machine']['cores']} cores), Python {content['machine']['python']}.",
        "",
        content["outcome"],
        "",
        "| long form | inputs | failed | measured |",
        "| --- | ---: | ---: | --- |",
        *(_line(case, _of(records, case)) for case in LONG_FORMS if case not in missing),
        *(_line(name, [r for r in records if r.measures["area"] == area]) for area, name in _TOTALS.items()),
        "",
    ]
    if missing:
        lines += [f"**Not run in this session:** {'; '.join(missing)}.", ""]
    return "\n".join([*lines, "All of them:", "", *hard_use.tables(records)])


def _of(records: Sequence[ParityRecord], case: str) -> list[ParityRecord]:
    """The records of a case in its longest form."""
    found = [record for record in records if record.case == case]
    most = max((record.measures["tried"] for record in found), default=0)
    return [record for record in found if record.measures["tried"] == most]


def _line(name: str, records: Sequence[ParityRecord]) -> str:
    tried = sum(record.measures["tried"] for record in records)
    failed = sum(record.measures["failed"] for record in records)
    # Of all laws or files together, only how many there were says something.
    shown = hard_use.measured(records) if len({record.case for record in records}) == 1 else ""
    return f"| {name} | {tried:,} | {failed if not failed else f'**{failed}**'} | {shown} |"
