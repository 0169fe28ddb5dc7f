"""The summary of a benchmark session: the rows to name first, and the words of a row that the tables share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.report import plots
from bench.report.records import BenchRecord
from parity.reports.history import rounded
from parity.reports.records import in_order, stages
from parity.reports.tables import markdown

# Variants that do what an analysis does; others (one bar length, one fold) stand for a stage only without them.
_AS_ANALYZED = ("[3, 4]", "8 folds")
# Of the pipeline the wholes, and not what is left of it beside the network.
_FROM_STEMS = "stems to result"
FROM_A_MIX = "mix to result"
# A hundredth of the whole each.
_NO_HEADLINE = ("audio reading", "decoder input", "structure", "library")


def summary(records: Sequence[BenchRecord], where: str) -> list[str]:
    """How much faster, how exact, on what: a table of `headline_rows`, and one line on where and when."""
    rows = headline_rows(records)
    if not rows:
        return ["", f"Nothing to compare was measured in this run ({where}).", ""]
    table = [
        {
            "stage": record.stage,
            "how much faster (95 % interval)": speed_in_words(record),
            "than": f"{record.reference}: {reference_in_words(record)}" if record.reference else "-",
            "how exact": agreement_in_words(record),
            "what ran": plots.label(record, stage=False),
            "time": f"{seconds_in_words(record.median)} for {record.audio_seconds:.0f} s of audio",
        }
        for record in rows
    ]
    tracks = ", ".join(dict.fromkeys(record.track for record in rows))
    return ["", markdown(table), "", f"Track {tracks}; {where}.", ""]


def headline_rows(records: Sequence[BenchRecord]) -> list[BenchRecord]:
    """The fastest row of ours that agrees, for each stage (for the spectrogram: exact and fast; for the
    pipeline: from stems and from a mix)."""
    rows = []
    for stage in stages(records):
        if stage in _NO_HEADLINE:
            continue
        ours = [record for record in records if record.stage == stage and record.role == "candidate"]
        ours = [record for record in ours if record.audio_seconds > 0 and "computed_by" not in record.figures]
        # An analysis has all threads; rows on fewer are there to compare with.
        most = max((record.threads for record in ours), default=0)
        ours = [record for record in ours if record.threads == most]
        for group in _apart(stage, [record for record in ours if record.agrees]):
            if group:
                # Without any ratio it is the first row: the stage as a whole, before its parts.
                rows.append(max(_to_judge_by(group), key=_rank))
    return rows


def _apart(stage: str, rows: Sequence[BenchRecord]) -> list[list[BenchRecord]]:
    """The rows of a stage in groups, of each of which one goes into the summary."""
    if stage == "spectrogram":
        precisions = dict.fromkeys(record.precision for record in rows)
        return [[record for record in rows if record.precision == precision] for precision in precisions]
    if stage == "pipeline":
        wholes = [[record for record in rows if name in record.variant] for name in (_FROM_STEMS, FROM_A_MIX)]
        return wholes if any(wholes) else [list(rows)]
    return [list(rows)]


def _to_judge_by(rows: Sequence[BenchRecord]) -> Sequence[BenchRecord]:
    """Those with a sure ratio that do what an analysis does; where there are none, the next best."""
    compared = [row for row in rows if row.ratio]
    sure = [row for row in compared if row.ratio and row.ratio.sure]
    as_analyzed = [row for row in sure if any(name in row.variant for name in _AS_ANALYZED)]
    return as_analyzed or sure or compared or rows


def _rank(record: BenchRecord) -> float:
    """The lower end of the ratio; 0 for rows without a reference."""
    return record.ratio.low if record.ratio else 0.0


def reference_in_words(record: BenchRecord) -> str:
    """``1.29 s, 1 thread``: what the reference took, and on how many threads."""
    if record.reference_median is None:
        return "-"
    threads = record.reference_threads
    of_threads = "" if threads is None else f", {threads} thread{'s' if threads != 1 else ''}"
    return f"{seconds_in_words(record.reference_median)}{of_threads}"


def seconds_in_words(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def speed_in_words(record: BenchRecord) -> str:
    ratio = record.ratio
    if ratio is None:
        return "-"
    if not record.agrees:
        return "not counted: does not agree"
    if ratio.rounds == 1:
        return f"{ratio.median:.3g}x (one round, no interval)"
    if ratio.too_noisy:
        return f"too noisy to judge ({ratio.low:.3g}-{ratio.high:.3g}x, {ratio.rounds} rounds)"
    interval = f"{ratio.low:.3g}-{ratio.high:.3g}"
    if ratio.is_range:
        interval += f", range of {ratio.rounds} rounds: {100 * ratio.confidence:.0f} %"
    if ratio.too_few:
        return f"{ratio.median:.3g}x ({interval}, too few to judge)"
    return f"**{ratio.median:.3g}x** ({interval})"


def agreement_in_words(record: BenchRecord) -> str:
    if not record.agrees:
        return f"**does not agree:** {record.agreement}"
    return record.agreement or "-"


def history_content(records: Sequence[BenchRecord]) -> dict[str, Any]:
    """What a line of reports/history.jsonl holds of a session.

    Returns
    -------
    dict
        ``rows``, as `parity.reports.history` says; ``headline``, how exact and how long, in seconds, each row of the
        summary is.
    """
    rows = {
        record.key: [record.reference, *_ratio_cells(record)]
        for record in in_order(records)
        if record.role == "candidate" and record.reference
    }
    headline = {
        record.key: [agreement_in_words(record), rounded(record.median), round(record.audio_seconds)]
        for record in headline_rows(records)
    }
    return {"headline": headline, "rows": rows}


def _ratio_cells(record: BenchRecord) -> list[float | int | None]:
    """Median, ends of the interval, rounds; without figures where the outputs do not agree, which is no speed-up."""
    ratio = record.ratio
    if ratio is None or not record.agrees:
        return [None, None, None, 0]
    return [rounded(ratio.median), rounded(ratio.low), rounded(ratio.high), ratio.rounds]
