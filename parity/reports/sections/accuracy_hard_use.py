"""Hard use in its long forms: their part of the report of the long checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parity.reports.records import ParityRecord
from parity.reports.sections import hard_use
from parity.reports.tables import frame, markdown

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
    table = frame(records)
    # Of each case its longest form, of an area whatever there is.
    longest = table[table["tried"] == table.groupby("case")["tried"].transform("max")]
    groups = {case: longest[longest["case"] == case] for case in LONG_FORMS}
    missing = [case for case, group in groups.items() if group.empty]
    groups |= {name: table[table["area"] == area] for area, name in _TOTALS.items()}
    rows = [
        {
            "long form": name,
            **hard_use.counts(group),
            # Of all laws or files together, only how many there were says something.
            "measured": hard_use.measured([records[i] for i in group.index]) if name in LONG_FORMS else "",
        }
        for name, group in groups.items()
        if name not in missing
    ]
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
        markdown(rows, right={"inputs", "failed"}),
        "",
    ]
    if missing:
        lines += [f"**Not run in this session:** {'; '.join(missing)}.", ""]
    return "\n".join([*lines, "All of them:", "", *hard_use.tables(records)])
