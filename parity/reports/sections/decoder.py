"""The decoder's part of the parity report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from parity.reports.records import ParityRecord

_KINDS = {
    "annotated": "made from annotated songs",
    "network": "of networks on the shared tracks",
    "synthetic": "synthetic",
    "edge": "at a threshold, or tied but for an ULP",
    "parameters": "other parameters",
    "beats only": "beats without bars",
}


def worst(records: Sequence[ParityRecord]) -> str:
    """For the summary: what differs, in the worst of these records."""
    frames = sum(record.measures["frames_different"] for record in records)
    compared = sum(record.measures["num_frames"] for record in records)
    difference = max(record.measures["log_probability_difference"] for record in records)
    others = sum(not record.measures["identical_beats"] for record in records)
    beats = f", other beats in {others}" if others else ""
    return f"{frames} of {compared:,} frames, log probability {difference:g}{beats}"


def render(records: Sequence[ParityRecord], folder: Path) -> str:
    """Markdown of this stage; it has no plots, because there is nothing to plot where nothing differs."""
    lines = [
        "## Decoder",
        "",
        "Every state of every frame, the log probability of the path for every bar length, and every beat, compared",
        "with `==`. A frame of `[3, 4]` counts twice. F-measure is that of our beats with the oracle's as reference.",
        "",
        "| activations | backend | cases | identical paths | frames that differ | log probability difference "
        "| beats matched | lowest F-measure |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, title in _KINDS.items():
        for backend in dict.fromkeys(record.backend for record in records):
            group = [r for r in records if r.measures["kind"] == kind and r.backend == backend]
            if group:
                lines.append(_row(title, backend, group))
    different = [record for record in records if not record.passed]
    if different:
        lines += ["", "Not identical:", ""]
        lines += [f"- {record.backend}, {record.case}: {worst([record])}" for record in different]
    return "\n".join(lines)


def _row(title: str, backend: str, group: Sequence[ParityRecord]) -> str:
    def total(name: str) -> int:
        return sum(record.measures[name] for record in group)

    cells = [
        title,
        backend,
        str(len(group)),
        f"{total('identical_path')} of {len(group)}",
        f"{total('frames_different')} of {total('num_frames'):,}",
        f"{max(record.measures['log_probability_difference'] for record in group):g}",
        f"{total('beats_matched'):,} of {total('num_beats'):,}",
        f"{min(record.measures['f_measure'] for record in group):.3f}",
    ]
    return "| " + " | ".join(cells) + " |"
