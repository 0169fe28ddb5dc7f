"""The pipeline's part of the parity report: beats and sections against goldens and scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parity.reports.records import ParityRecord
from parity.reports.tables import markdown, yes


def worst(records: Sequence[ParityRecord]) -> str:
    """For the summary: what differs, in the worst of these records."""
    different = [record.case for record in records if not record.passed]
    if different:
        return f"differs on {', '.join(different)}"
    apart = max(record.measures["boundaries_apart_seconds"] for record in records)
    return f"identical beats and BPM; boundaries within {apart:.2g} s"


def render(records: Sequence[ParityRecord], folder: Path) -> str:
    """Markdown of this stage; it has no plots."""
    rows = [_row(record) for record in sorted(records, key=lambda record: (record.case, record.backend))]
    right = {"beats", "sections", "boundaries apart", "BPM", "tempo", "tempo apart", "F beats", "F downbeats"}
    return "\n".join(
        [
            "## Pipeline",
            "",
            "From the stems to the result with `harmonix-all`. F-measures are mir_eval's, within 70 ms, against the",
            "tempo map of the score; tracks without a score have none. The tempo stands beside that of a plain",
            "least-squares line through the oracle's beats; beside the typical interval's where those are not steady.",
            "",
            markdown(rows, right),
        ]
    )


def _row(record: ParityRecord) -> dict[str, Any]:
    measures = record.measures
    fast = f", {record.precision}" if record.precision != "exact" else ""
    f_measures = [f"{measures[name]:.3f}" if name in measures else "-" for name in ("f_beats", "f_downbeats")]
    return {
        "track": record.case,
        "spectrogram + network": f"{record.backend} ({record.device}{fast})",
        "beats": measures["beats"],
        "same beats": yes(measures["same_beats"]),
        "same positions": yes(measures["same_positions"]),
        "same downbeats": yes(measures["same_downbeats"]),
        "sections": measures["segments"],
        "same labels": yes(measures["same_labels"]),
        "boundaries apart": f"{measures['boundaries_apart_seconds']:.2g} s",
        "BPM": str(measures["bpm"]),
        "same BPM": yes(measures["same_bpm"]),
        "tempo": "-" if measures["tempo"] is None else str(measures["tempo"]),
        "tempo apart": f"{measures['tempo_apart']:.2g}" + ("" if measures["same_tempo"] else " **(!)**"),
        "F beats": f_measures[0],
        "F downbeats": f_measures[1],
        "within": yes(record.passed),
    }
