"""The decoder's part of the parity report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from parity.reports.records import ParityRecord
from parity.reports.tables import frame, markdown

_KINDS = {
    "annotated": "made from annotated songs",
    "network": "of networks on the shared tracks",
    "synthetic": "synthetic",
    "edge": "at a threshold, or tied but for an ULP",
    "parameters": "other parameters",
    "beats only": "beats without bars",
    "online": "beats online, without bars",
    "bars on given beats": "bars on given beats",
    "changing bars": "bars that change within a song",
}


def worst(records: Sequence[ParityRecord]) -> str:
    """For the summary: what differs, in the worst of these records."""
    table = frame(records)
    others = len(table) - table["identical_beats"].sum()
    beats = f", other beats in {others}" if others else ""
    return (
        f"{table['frames_different'].sum()} of {table['num_frames'].sum():,} frames, log probability "
        f"{table['log_probability_difference'].max():g}{beats}"
    )


def render(records: Sequence[ParityRecord], folder: Path) -> str:
    """Markdown of this stage; it has no plots, because there is nothing to plot where nothing differs."""
    table = frame(records)
    kinds = pd.Categorical(table["kind"], list(dict.fromkeys([*_KINDS, *table["kind"]])))
    rows = [
        {
            "activations": _KINDS.get(kind, kind),
            "backend": backend,
            "cases": len(group),
            "identical paths": f"{group['identical_path'].sum()} of {len(group)}",
            "frames that differ": f"{group['frames_different'].sum()} of {group['num_frames'].sum():,}",
            "log probability difference": f"{group['log_probability_difference'].max():g}",
            "beats matched": f"{group['beats_matched'].sum():,} of {group['num_beats'].sum():,}",
            "lowest F-measure": f"{group['f_measure'].min():.3f}",
        }
        for (kind, backend), group in table.groupby([kinds, "backend"], observed=True)
    ]
    lines = [
        "## Decoder",
        "",
        "Every state of every frame, the log probability of the path for every bar length, and every beat, compared",
        "with `==`. A frame of `[3, 4]` counts twice. F-measure is that of our beats with the oracle's as reference.",
        "",
        markdown(rows, right=set(rows[0]) - {"activations", "backend"}),
    ]
    different = [record for record in records if not record.passed]
    if different:
        lines += ["", "Not identical:", ""]
        lines += [f"- {record.backend}, {record.case}: {worst([record])}" for record in different]
    return "\n".join(lines)
