"""Data frames of records, and tables of a report in markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from parity.reports.records import ParityRecord


def frame(records: Sequence[ParityRecord]) -> pd.DataFrame:
    """A row for each record, with its measures as further columns."""
    return pd.DataFrame([{**record.measures, **vars(record)} for record in records])


def markdown(rows: Sequence[Mapping[str, Any]], right: Collection[str] = ()) -> str:
    """A table of cells by the names of their columns, of which those in `right` are aligned to the right.

    Cells are not padded, so that a figure which changes does not change every line of a report.
    """
    table = pd.DataFrame(rows, dtype=object)
    sides = ["right" if name in right else "left" for name in table]
    text = str(table.to_markdown(index=False, disable_numparse=True, colalign=sides))
    return re.sub(r"(?<=\|) +| +(?=\|)", " ", text)


def yes(holds: bool) -> str:
    """A cell that says whether something holds."""
    return "yes" if holds else "**no**"


def difference(value: float) -> str:
    """A cell with a difference, two figures of it."""
    return "0" if value == 0 else f"{value:.2g}"
