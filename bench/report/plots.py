"""The plots of reports/bench.md. Each function draws one file, and says with False that there is nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from allin1_core.results import figures
from allin1_core.timings import report as timing_report
from allin1_core.timings.schema import StageTiming
from bench.report.records import BenchRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW_INCHES = 0.34
_WIDTH_INCHES = 13.0


# In the order of the pipeline; stages not named here follow in alphabetical order.
_ORDER = (
    "audio reading",
    "separation",
    "spectrogram",
    "network",
    "decoder input",
    "decoder",
    "structure",
    "pipeline",
)
_PEERS = ("all-in-one-infer", "madmom-infer", "metricon")


def _is_peer(name: str) -> bool:
    return any(peer in name for peer in _PEERS)


def _has_peer(record: BenchRecord) -> bool:
    return record.role == "peer" or _is_peer(record.reference)


def stages(records: Sequence[BenchRecord]) -> list[str]:
    """The stages that have records, in the order of the pipeline."""
    found = {record.stage for record in records}
    return sorted(found, key=lambda stage: (_ORDER.index(stage) if stage in _ORDER else len(_ORDER), stage))


def in_order(records: Sequence[BenchRecord]) -> list[BenchRecord]:
    """The records by stage, in the order of the pipeline."""
    order = stages(records)
    return sorted(records, key=lambda record: order.index(record.stage))


def label(record: BenchRecord, *, stage: bool = True) -> str:
    """Name of a row in a plot: ``spectrogram · torch, exact, 2 threads``."""
    details = [
        record.backend,
        record.device if record.device not in ("cpu", record.backend) else "",
        record.precision,
        record.variant,
    ]
    details.append(record.thread_words)
    text = ", ".join(detail for detail in details if detail)
    return f"{record.stage} · {text}" if stage else text


def draw_ratios(records: Sequence[BenchRecord], path: Path) -> bool:
    """How many times faster than its reference each row is, with its interval."""
    rows = [record for record in in_order(records) if record.ratio is not None]
    if not rows:
        return False
    order = stages(records)
    figure, axes = _rows_figure(len(rows))
    for position, record in enumerate(rows):
        ratio = record.ratio
        assert ratio is not None
        marker, color, face, remark = _look(record, f"C{order.index(record.stage)}")
        _with_interval(axes, position, record, marker, color, face)
        _remark(axes, position, f"{ratio.median:.3g}x {record.reference}{remark}")
    axes.set_xscale("log")
    axes.axvline(1, color="0.4", linewidth=1, linestyle="--")
    _label_rows(axes, [label(record) for record in rows])
    _plain_log_ticks(axes, "x")
    axes.set_xlabel("times faster than the reference (median and interval of paired rounds)")
    axes.set_title("Speed against the reference, outputs checked in the same run")
    handles = [
        _handle("o", "C0", "C0", "ours, outputs agree"),
        _handle("^", "C0", "C0", "ours, result handed on from another backend"),
        _handle("s", "C0", "white", "another project, outputs agree"),
        _handle("o", "0.6", "white", "too few rounds or too noisy to judge"),
        _handle("x", "0.6", "0.6", "outputs do not agree: no speed-up"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    return _save(figure, path)


def _look(record: BenchRecord, color: str) -> tuple[str, str, str, str]:
    """Marker, colour, fill and remark of a row with a ratio."""
    ratio = record.ratio
    assert ratio is not None
    if not record.agrees:
        return "x", "0.6", "0.6", ", does not agree"
    marker = "o" if record.role == "candidate" else "s"
    face = color if record.role == "candidate" else "white"
    remark = ""
    if "computed_by" in record.figures:
        marker, remark = "^", f", computed by {record.figures['computed_by']}"
    if not ratio.sure:
        why = f", {ratio.rounds} round{'s' * (ratio.rounds > 1)}" if ratio.too_few else ", too noisy to judge"
        return marker, "0.6", "white", remark + why
    return marker, color, face, remark


def _with_interval(
    axes: Axes, position: int, record: BenchRecord, marker: str, color: str, face: str
) -> None:
    ratio = record.ratio
    assert ratio is not None
    errors = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
    axes.errorbar(
        ratio.median, position, xerr=errors, fmt=marker, color=color, markerfacecolor=face, capsize=3
    )


def draw_peers(records: Sequence[BenchRecord], path: Path) -> bool:
    """Time for a minute of audio: ours, other projects' and the reference's, where another project was timed."""
    worked = [record for record in in_order(records) if record.audio_seconds > 0 and record.reference]
    with_peers = {record.stage for record in worked if _has_peer(record)}
    inputs: dict[tuple[str, str], list[BenchRecord]] = {}
    for record in worked:
        if record.stage in with_peers:
            inputs.setdefault((record.stage, _input(record)), []).append(record)
    # What works on the same input stands together, the reference first: seconds, name, colour, remark.
    dots: list[tuple[float, str, str, str]] = []
    for (stage, given), rows in inputs.items():
        for name in dict.fromkeys(record.reference for record in rows):
            times = [record.reference_seconds for record in rows if record.reference == name]
            seconds = float(np.median(np.concatenate(times))) / rows[0].audio_seconds * 60
            dots.append((seconds, f"{stage} · {name}, {given}", "C1" if _is_peer(name) else "0.4", ""))
        for record in rows:
            color = "C0" if record.role == "candidate" else "C1"
            name = label(record) + ("" if _length(record) in record.variant else f", {_length(record)}")
            remark = "" if record.agrees else "other results"
            dots.append((record.median / record.audio_seconds * 60, name, color, remark))
    if not dots:
        return False
    figure, axes = _rows_figure(len(dots))
    for position, (seconds, _, color, remark) in enumerate(dots):
        axes.plot(seconds, position, "o", color=color, markerfacecolor="white" if remark else color)
        _remark(axes, position, f"{seconds:.3g} s" + (f", {remark}" if remark else ""))
    axes.set_xscale("log")
    _label_rows(axes, [name for _, name, *_ in dots])
    _plain_log_ticks(axes, "x")
    axes.set_xlabel("seconds for a minute of audio (further left is better)")
    axes.set_title("Beside other projects, in the same process")
    handles = [
        _handle("o", "C0", "C0", "ours"),
        _handle("o", "C1", "C1", "another project"),
        _handle("o", "C1", "white", "another project, other results"),
        _handle("o", "0.4", "0.4", "reference"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    return _save(figure, path)


def _length(record: BenchRecord) -> str:
    return f"{record.audio_seconds:.0f} s"


def _input(record: BenchRecord) -> str:
    """What a row works on, whatever it works with: its variant without the threads, and the length of the audio."""
    parts = [part for part in record.variant.split(", ") if "thread" not in part]
    if _length(record) not in parts:
        parts.append(_length(record))
    return ", ".join(part for part in parts if part)


def draw_lengths(records: Sequence[BenchRecord], path: Path) -> bool:
    """Time and peak memory against track length, log-log, with the exponent that fits."""
    rows = [record for record in in_order(records) if len(record.figures.get("by_length", [])) > 1]
    if not rows:
        return False
    with_memory = [row for row in rows if _memory_points(row)[0].size > 1]
    figure, panels = _figure(1 + bool(with_memory), height=5.2)
    for position, record in enumerate(rows):
        points = record.figures["by_length"]
        lengths = np.array([point["audio_seconds"] for point in points])
        seconds = np.array([point["seconds"] for point in points])
        _power_law(panels[0], lengths, seconds, label(record), position)
    panels[0].set_ylabel("time in seconds")
    panels[0].set_title("Time")
    for record in with_memory:
        lengths, mebibytes = _memory_points(record)
        _power_law(panels[1], lengths, mebibytes, label(record), rows.index(record))
    if with_memory:
        panels[1].set_ylabel("peak memory in MiB")
        panels[1].set_title("Memory")
    for axes in panels:
        axes.set_xlabel("track length in seconds")
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain_log_ticks(axes, "x")
        _plain_log_ticks(axes, "y")
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8, frameon=False)
    return _save(figure, path)


def fitted_exponent(lengths: np.ndarray, values: np.ndarray) -> float:
    """Slope of log value against log length, by least squares: 1 where a value grows in proportion to the length."""
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def draw_waterfall(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """When each stage of one run ran, as ``allin1-core timings show --plot`` draws it."""
    figures.save(timing_report.waterfall([StageTiming(**line) for line in lines]), path)


def draw_baseline(rows: Sequence[tuple[str, float, BenchRecord]], path: Path) -> bool:
    """Ratio to the reference in an earlier baseline and now.

    Parameters
    ----------
    rows : sequence of (label, ratio in the baseline, record of now)
    path : Path
    """
    if not rows:
        return False
    order = stages([record for *_, record in rows])
    rows = sorted(rows, key=lambda row: order.index(row[2].stage))
    figure, axes = _rows_figure(len(rows))
    for position, (_, before, record) in enumerate(rows):
        ratio = record.ratio
        assert ratio is not None
        marker, color, face, remark = _look(record, "C0")
        axes.plot([before, ratio.median], [position, position], color="0.7", linewidth=1, zorder=1)
        axes.plot(before, position, "o", color="0.5", markerfacecolor="white", zorder=2)
        _with_interval(axes, position, record, marker, color, face)
        percent = round(100 * (ratio.median / before - 1))
        change = f" ({percent:+d} %)" if record.agrees else ""
        _remark(axes, position, f"{before:.3g}x → {ratio.median:.3g}x{change}{remark}")
    axes.set_xscale("log")
    _label_rows(axes, [name for name, *_ in rows])
    _plain_log_ticks(axes, "x")
    axes.set_xlabel("times faster than the reference")
    axes.set_title("Baseline and this run")
    handles = [
        _handle("o", "0.5", "white", "baseline"),
        _handle("o", "C0", "C0", "now, with its interval"),
        _handle("x", "0.6", "0.6", "outputs do not agree: no speed-up"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return _save(figure, path)


def _memory_points(record: BenchRecord) -> tuple[np.ndarray, np.ndarray]:
    points = [point for point in record.figures["by_length"] if point.get("peak_memory_bytes")]
    lengths = np.array([point["audio_seconds"] for point in points])
    return lengths, np.array([point["peak_memory_bytes"] / 2**20 for point in points])


def _power_law(axes: Axes, lengths: np.ndarray, values: np.ndarray, name: str, position: int) -> None:
    exponent = fitted_exponent(lengths, values)
    color = f"C{position % 10}"
    # Filled dots on a line and open squares on dashes in turn: where two coincide, both are seen.
    odd = position % 2
    axes.plot(
        lengths,
        values,
        "s" if odd else "o",
        color=color,
        markersize=8 if odd else 4,
        markerfacecolor="none" if odd else color,
    )
    fit = np.exp(np.polyval(np.polyfit(np.log(lengths), np.log(values), 1), np.log(lengths)))
    style = "--" if odd else "-"
    axes.plot(lengths, fit, style, color=color, linewidth=1, label=f"{name}: length^{exponent:.2f}")


def _figure(panels: int, *, height: float) -> tuple[Figure, list[Axes]]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1,
        panels,
        figsize=(_WIDTH_INCHES, height),
        squeeze=False,
        layout="constrained",
    )
    return figure, list(axes[0])


def _rows_figure(rows: int) -> tuple[Figure, Axes]:
    figure, panels = _figure(1, height=rows * _ROW_INCHES + 1.4)
    return figure, panels[0]


def _label_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)


def _remark(axes: Axes, position: int, text: str) -> None:
    """Text beside a row, in a column to the right of the plot, where it meets nothing."""
    axes.annotate(
        text,
        (1, position),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        annotation_clip=False,
    )


def _plain_log_ticks(axes: Axes, which: str) -> None:
    """1, 2, 5, 10 ... in plain figures: a reader should not have to decode powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high < 5000 * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=24))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _handle(marker: str, color: str, face: str, name: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], marker=marker, color=color, markerfacecolor=face, linestyle="", label=name)


def _save(figure: Figure, path: Path) -> bool:
    from matplotlib import pyplot

    figure.savefig(path, dpi=130, bbox_inches="tight")
    pyplot.close(figure)
    return True
