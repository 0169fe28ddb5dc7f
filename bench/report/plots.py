"""The plots of reports/bench.md. Each function draws one file, and says with False that there is nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from allin1_core.plotting import new_figure, save
from allin1_core.timings.report import waterfall
from allin1_core.timings.schema import StageTiming
from bench.report.records import BenchRecord
from parity.reports.records import in_order, stages

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_INCHES, _ROW_INCHES, _DPI = 13.0, 0.34, 130
_PEERS = ("all-in-one-infer", "madmom-infer", "metricon")
# Of a handle of the legend: marker, colour, fill and name.
Handle = tuple[str, str, str, str]
_DISAGREES = ("x", "0.6", "0.6", "outputs do not agree: no speed-up")


def _is_peer(name: str) -> bool:
    return any(peer in name for peer in _PEERS)


def label(record: BenchRecord, *, stage: bool = True) -> str:
    """Name of a row in a plot: ``spectrogram · torch, exact, 2 threads``."""
    device = record.device if record.device not in ("cpu", record.backend) else ""
    details = (record.backend, device, record.precision, record.variant, record.thread_words)
    text = ", ".join(filter(None, details))
    return f"{record.stage} · {text}" if stage else text


def draw_ratios(records: Sequence[BenchRecord], path: Path) -> bool:
    """How many times faster than its reference each row is, with its interval."""
    rows = [record for record in in_order(records) if record.ratio is not None]
    if not rows:
        return False
    order = stages(records)
    figure, axes = _rows(len(rows))
    for position, record in enumerate(rows):
        ratio, remark = _draw_ratio(axes, position, record, f"C{order.index(record.stage)}")
        _remark(axes, position, f"{ratio:.3g}x {record.reference}{remark}")
    axes.axvline(1, color="0.4", linewidth=1, linestyle="--")
    axes.set_xlabel("times faster than the reference (median and interval of paired rounds)")
    axes.set_title("Speed against the reference, outputs checked in the same run")
    handles = [
        ("o", "C0", "C0", "ours, outputs agree"),
        ("^", "C0", "C0", "ours, result handed on from another backend"),
        ("s", "C0", "white", "another project, outputs agree"),
        ("o", "0.6", "white", "too few rounds or too noisy to judge"),
        _DISAGREES,
    ]
    return _save_rows(figure, [label(record) for record in rows], handles, path)


def _look(record: BenchRecord, color: str) -> tuple[str, str, str, str]:
    """Marker, colour, fill and remark of a row with a ratio."""
    ratio = record.ratio
    assert ratio is not None
    if not record.agrees:
        return "x", "0.6", "0.6", ", does not agree"
    marker, face = ("o", color) if record.role == "candidate" else ("s", "white")
    remark = ""
    if "computed_by" in record.figures:
        marker, remark = "^", f", computed by {record.figures['computed_by']}"
    if not ratio.sure:
        why = f", {ratio.rounds} round{'s' * (ratio.rounds > 1)}" if ratio.too_few else ", too noisy to judge"
        return marker, "0.6", "white", remark + why
    return marker, color, face, remark


def _draw_ratio(axes: Axes, position: int, record: BenchRecord, color: str) -> tuple[float, str]:
    """Draw a row's ratio with its interval; returns the ratio, and what is to be remarked of it."""
    ratio = record.ratio
    assert ratio is not None
    marker, color, face, remark = _look(record, color)
    errors = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
    axes.errorbar(
        ratio.median, position, xerr=errors, fmt=marker, color=color, markerfacecolor=face, capsize=3
    )
    return ratio.median, remark


def draw_peers(records: Sequence[BenchRecord], path: Path) -> bool:
    """Time for a minute of audio: ours, other projects' and the reference's, where another project was timed.

    Of a stage with such rows also those that have madmom alone beside them; what is beside ours is left out.
    """
    worked = [record for record in in_order(records) if record.audio_seconds > 0]
    worked = [record for record in worked if _is_peer(record.reference) or "madmom" in record.reference]
    with_peers = {record.stage for record in worked if record.role == "peer" or _is_peer(record.reference)}
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
            remark = "" if record.agrees else ", other results"
            dots.append((record.median / record.audio_seconds * 60, name, color, remark))
    if not dots:
        return False
    figure, axes = _rows(len(dots))
    for position, (seconds, _, color, remark) in enumerate(dots):
        axes.plot(seconds, position, "o", color=color, markerfacecolor="white" if remark else color)
        _remark(axes, position, f"{seconds:.3g} s{remark}")
    axes.set_xlabel("seconds for a minute of audio (further left is better)")
    axes.set_title("Beside other projects, in the same process")
    handles = [
        ("o", "C0", "C0", "ours"),
        ("o", "C1", "C1", "another project"),
        ("o", "C1", "white", "another project, other results"),
        ("o", "0.4", "0.4", "reference"),
    ]
    return _save_rows(figure, [name for _, name, *_ in dots], handles, path)


def _length(record: BenchRecord) -> str:
    return f"{record.audio_seconds:.0f} s"


def _input(record: BenchRecord) -> str:
    """What a row works on, whatever it works with: its variant without the threads, and the length of the audio."""
    parts = [part for part in record.variant.split(", ") if "thread" not in part]
    return ", ".join(filter(None, dict.fromkeys([*parts, _length(record)])))


def draw_lengths(records: Sequence[BenchRecord], path: Path) -> bool:
    """Time and peak memory against track length, log-log, with the exponent that fits."""
    rows = [record for record in in_order(records) if len(record.figures.get("by_length", [])) > 1]
    if not rows:
        return False
    panels = [("Time", "time in seconds", "seconds", 1.0)]
    if any(_points(record, "peak_memory_bytes") for record in rows):
        panels.append(("Memory", "peak memory in MiB", "peak_memory_bytes", 2.0**20))
    figure = new_figure(_WIDTH_INCHES, 5.2)
    drawn = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, unit, key, scale) in zip(drawn, panels, strict=True):
        for position, record in enumerate(rows):
            if points := _points(record, key):
                lengths, values = np.array(points).T
                name = label(record).replace(f", {_length(record)}", "")  # that of the row, not of the points
                _power_law(axes, lengths, values / scale, name, position)
        axes.set(title=title, ylabel=unit, xlabel="track length in seconds", xscale="log", yscale="log")
        _plain_log_ticks(axes.xaxis)
        _plain_log_ticks(axes.yaxis)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8, frameon=False)
    save(figure, path, dpi=_DPI)
    return True


def _points(record: BenchRecord, key: str) -> list[tuple[float, float]]:
    """Length and value of the points that have one; none where a line would have no two."""
    points = [(p["audio_seconds"], p[key]) for p in record.figures["by_length"] if p.get(key)]
    return points if len(points) > 1 else []


def fitted_exponent(lengths: np.ndarray, values: np.ndarray) -> float:
    """Slope of log value against log length, by least squares: 1 where a value grows in proportion to the length."""
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def draw_waterfall(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """When each stage of one run ran, as ``allin1-core timings --plot`` draws it."""
    save(waterfall([StageTiming(**line) for line in lines]), path)


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
    figure, axes = _rows(len(rows))
    for position, (_, before, record) in enumerate(rows):
        axes.plot(before, position, "o", color="0.5", markerfacecolor="white", zorder=2)
        now, remark = _draw_ratio(axes, position, record, "C0")
        axes.plot([before, now], [position, position], color="0.7", linewidth=1, zorder=1)
        change = f" ({round(100 * (now / before - 1)):+d} %)" if record.agrees else ""
        _remark(axes, position, f"{before:.3g}x → {now:.3g}x{change}{remark}")
    axes.set_xlabel("times faster than the reference")
    axes.set_title("Baseline and this run")
    handles = [("o", "0.5", "white", "baseline"), ("o", "C0", "C0", "now, with its interval"), _DISAGREES]
    return _save_rows(figure, [name for name, *_ in rows], handles, path)


def _power_law(axes: Axes, lengths: np.ndarray, values: np.ndarray, name: str, position: int) -> None:
    exponent = fitted_exponent(lengths, values)
    fit = np.exp(np.mean(np.log(values)) + exponent * (np.log(lengths) - np.mean(np.log(lengths))))
    color = f"C{position % 10}"
    # Filled dots on a line and open squares on dashes in turn: where two coincide, both are seen.
    marker, size, face, line = ("o", 4, color, "-") if position % 2 == 0 else ("s", 8, "none", "--")
    axes.plot(lengths, values, marker, color=color, markersize=size, markerfacecolor=face)
    axes.plot(lengths, fit, line, color=color, linewidth=1, label=f"{name}: length^{exponent:.2f}")


def _rows(number: int) -> tuple[Figure, Axes]:
    """A figure with so many rows, and its axes."""
    figure = new_figure(_WIDTH_INCHES, number * _ROW_INCHES + 1.4)
    axes = figure.subplots()
    axes.set_xscale("log")
    return figure, axes


def _save_rows(figure: Figure, names: Sequence[str], handles: Sequence[Handle], path: Path) -> bool:
    """Label the rows and the ticks, add a legend, and save."""
    from matplotlib.lines import Line2D

    _label_rows(figure.axes[0], names)
    _plain_log_ticks(figure.axes[0].xaxis)
    lines = [
        Line2D([], [], marker=marker, color=color, markerfacecolor=face, linestyle="", label=name)
        for marker, color, face, name in handles
    ]
    columns = 2 if len(lines) > 4 else len(lines)
    figure.legend(handles=lines, loc="outside lower center", ncols=columns, fontsize=8)
    save(figure, path, dpi=_DPI)
    return True


def _label_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)


def _remark(axes: Axes, position: int, text: str) -> None:
    """Text beside a row, in a column to the right of the plot, where it meets nothing."""
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate(text, (1, position), (6, 0), **place, va="center", fontsize=8, annotation_clip=False)


def _plain_log_ticks(axis: Any) -> None:
    """1, 2, 5, 10 ... in plain figures: a reader should not have to decode powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high < 5000 * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=24))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
