"""The pipeline's part of the parity report: beats and sections against goldens and scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from parity.reports.records import ParityRecord


def worst(records: Sequence[ParityRecord]) -> str:
    """For the summary: what differs, in the worst of these records."""
    different = [record.case for record in records if not record.passed]
    if different:
        return f"differs on {', '.join(different)}"
    apart = max(record.measures["boundaries_apart_seconds"] for record in records)
    return f"identical beats and BPM; boundaries within {apart:.2g} s"


def render(records: Sequence[ParityRecord], folder: Path) -> str:
    """Markdown of this stage; it has no plots."""
    lines = [
        "## Pipeline",
        "",
        "From the stems to the result with `harmonix-all`. F-measures are mir_eval's, within 70 ms, against the",
        "tempo map of the score; tracks without a score have none. The tempo stands beside that of a plain",
        "least-squares line through the oracle's beats; beside the typical interval's where those are not steady.",
        "",
        "| track | spectrogram + network | beats | same beats | same positions | same downbeats | sections "
        "| same labels | boundaries apart | BPM | same BPM | tempo | tempo apart | F beats | F downbeats | within |",
        "| --- | --- | ---: | --- | --- | --- | ---: | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for record in sorted(records, key=lambda record: (record.case, record.backend)):
        measures = record.measures
        cells = [
            record.case,
            f"{record.backend} ({record.device})",
            str(measures["beats"]),
            _yes(measures["same_beats"]),
            _yes(measures["same_positions"]),
            _yes(measures["same_downbeats"]),
            str(measures["segments"]),
            _yes(measures["same_labels"]),
            f"{measures['boundaries_apart_seconds']:.2g} s",
            str(measures["bpm"]),
            _yes(measures["same_bpm"]),
            "-" if measures["tempo"] is None else f"{measures['tempo']}",
            f"{measures['tempo_apart']:.2g}" + ("" if measures["same_tempo"] else " **(!)**"),
            f"{measures['f_beats']:.3f}" if "f_beats" in measures else "-",
            f"{measures['f_downbeats']:.3f}" if "f_downbeats" in measures else "-",
            _yes(record.passed),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"
