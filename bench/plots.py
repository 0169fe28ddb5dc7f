"""The plots of reports/bench.md. Each function draws one file, and says with False that there is nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.records import BenchRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW_INCHES = 0.34
_WIDTH_INCHES = 9.0


_PEERS = ("all-in-one-infer", "madmom-infer", "metricon")


def _is_peer(name: str) -> bool:
    return name.startswith(_PEERS)


def _has_peer(record: BenchRecord) -> bool:
    return record.role == "peer" or _is_peer(record.reference)


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
    rows = [record for record in records if record.ratio is not None]
    if not rows:
        return False
    figure, axes = _rows_figure(len(rows))
    stages = list(dict.fromkeys(record.stage for record in rows))
    for position, record in enumerate(rows):
        ratio = record.ratio
        assert ratio is not None
        color = f"C{stages.index(record.stage)}" if record.agrees else "0.6"
        errors = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
        marker = ("o" if record.role == "candidate" else "s") if record.agrees else "x"
        face = color if record.role == "candidate" or not record.agrees else "white"
        axes.errorbar(
            ratio.median, position, xerr=errors, fmt=marker, color=color, markerfacecolor=face, capsize=3
        )
        remark = "" if record.agrees else ", does not agree"
        if ratio.too_noisy and record.agrees:
            remark = ", too noisy to judge"
        _remark(axes, position, f"{ratio.median:.3g}x {record.reference}{remark}")
    axes.set_xscale("log")
    axes.axvline(1, color="0.4", linewidth=1, linestyle="--")
    _label_rows(axes, [label(record) for record in rows])
    _plain_log_ticks(axes, "x")
    axes.set_xlabel("times faster than the reference (median and 95 % interval of paired rounds)")
    axes.set_title("Speed against the reference, outputs checked in the same run")
    handles = [
        _handle("o", "C0", "C0", "ours, outputs agree"),
        _handle("s", "C0", "white", "another project, outputs agree"),
        _handle("x", "0.6", "0.6", "outputs do not agree: no speed-up"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return _save(figure, path)


def draw_peers(records: Sequence[BenchRecord], path: Path) -> bool:
    """Time for a minute of audio: ours, other projects' and the reference's, where another project was timed."""
    bars: list[tuple[str, float, str, str]] = []
    worked = [record for record in records if record.audio_seconds > 0]
    for stage in dict.fromkeys(record.stage for record in worked if _has_peer(record)):
        rows = [record for record in worked if record.stage == stage]
        references: dict[str, list[float]] = {}
        for record in rows:
            name = f"{stage} · {record.reference}" + (
                f", {record.variant}" if _is_peer(record.reference) else ""
            )
            minutes = record.audio_seconds / 60
            references.setdefault(name, []).extend(time / minutes for time in record.reference_seconds)
        for name, times in references.items():
            color = "C1" if any(peer in name for peer in _PEERS) else "0.6"
            if times:
                bars.append((name, float(np.median(times)), color, ""))
        for record in rows:
            color = "C0" if record.role == "candidate" else "C1"
            remark = "" if record.agrees else "other results"
            bars.append((label(record), record.median / record.audio_seconds * 60, color, remark))
    if not bars:
        return False
    figure, axes = _rows_figure(len(bars))
    for position, (_, seconds, color, remark) in enumerate(bars):
        axes.barh(
            position, seconds, color=color, height=0.7, hatch="//" if remark else None, edgecolor="white"
        )
        _remark(axes, position, f"{seconds:.3g} s" + (f", {remark}" if remark else ""))
    axes.set_xscale("log")
    axes.set_xlim(left=min(seconds for _, seconds, _, _ in bars) / 2)
    _label_rows(axes, [name for name, *_ in bars])
    _plain_log_ticks(axes, "x")
    axes.set_xlabel("seconds for a minute of audio (shorter is better)")
    axes.set_title("Beside other projects, in the same process")
    handles = [
        _patch("C0", "ours"),
        _patch("C1", "another project (hatched: other results)"),
        _patch("0.6", "reference"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return _save(figure, path)


def draw_lengths(records: Sequence[BenchRecord], path: Path) -> bool:
    """Time and peak memory against track length, log-log, with the exponent that fits."""
    rows = [record for record in records if len(record.figures.get("by_length", [])) > 1]
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


def draw_waterfall(lines: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Stages of one run as bars over its time, nested ones lighter, those beside the main thread hatched."""
    if not lines:
        return False
    lines = sorted(lines, key=lambda line: (line["start"], line["parent"] is not None))
    figure, axes = _rows_figure(len(lines))
    end = max(line["end"] for line in lines)
    for position, line in enumerate(lines):
        beside = line.get("thread", "main") != "main"
        color = "C0" if line["parent"] is None else "C9"
        axes.barh(
            position,
            line["duration"],
            left=line["start"],
            color=color,
            hatch="///" if beside else None,
            edgecolor="white" if beside else color,
            height=0.7,
        )
        backend = f", {line['backend']}" if line.get("backend") else ""
        text = f"{line['duration'] * 1000:,.3g} ms{backend}" if line["duration"] < 1 else ""
        text = text or f"{line['duration']:.2f} s{backend}"
        _remark(axes, position, text)
    names = [("    " if line["parent"] else "") + str(line["stage"]) for line in lines]
    _label_rows(axes, names)
    axes.set_xlim(0, end * 1.01)
    axes.set_xlabel("seconds since the start of the run")
    axes.set_title("Where a run spends its time")
    handles = [_patch("C0", "stage (hatched: beside the main thread)"), _patch("C9", "inside another stage")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    return _save(figure, path)


def draw_baseline(rows: Sequence[tuple[str, float, BenchRecord]], path: Path) -> bool:
    """Ratio to the reference in the committed baseline and now.

    Parameters
    ----------
    rows : sequence of (label, ratio in the baseline, record of now)
    path : Path
    """
    if not rows:
        return False
    figure, axes = _rows_figure(len(rows))
    for position, (_, before, record) in enumerate(rows):
        ratio = record.ratio
        assert ratio is not None
        axes.plot([before, ratio.median], [position, position], color="0.7", linewidth=1, zorder=1)
        axes.plot(before, position, "o", color="0.5", markerfacecolor="white", zorder=2)
        errors = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
        axes.errorbar(ratio.median, position, xerr=errors, fmt="o", color="C0", capsize=3, zorder=3)
        _remark(axes, position, f"{before:.3g}x → {ratio.median:.3g}x ({ratio.median / before - 1:+.0%})")
    axes.set_xscale("log")
    _label_rows(axes, [name for name, *_ in rows])
    _plain_log_ticks(axes, "x")
    axes.set_xlabel("times faster than the reference")
    axes.set_title("Committed baseline and this run")
    handles = [_handle("o", "0.5", "white", "baseline"), _handle("o", "C0", "C0", "now, 95 % interval")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    return _save(figure, path)


def _memory_points(record: BenchRecord) -> tuple[np.ndarray, np.ndarray]:
    points = [point for point in record.figures["by_length"] if point.get("peak_memory_bytes")]
    lengths = np.array([point["audio_seconds"] for point in points])
    return lengths, np.array([point["peak_memory_bytes"] / 2**20 for point in points])


def _power_law(axes: Axes, lengths: np.ndarray, values: np.ndarray, name: str, position: int) -> None:
    exponent = fitted_exponent(lengths, values)
    color = f"C{position % 10}"
    axes.plot(lengths, values, "o", color=color, markersize=4)
    fit = np.exp(np.polyval(np.polyfit(np.log(lengths), np.log(values), 1), np.log(lengths)))
    axes.plot(lengths, fit, color=color, linewidth=1, label=f"{name}: length^{exponent:.2f}")


def _figure(panels: int, *, height: float) -> tuple[Figure, list[Axes]]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1,
        panels,
        figsize=(_WIDTH_INCHES if panels == 1 else 12, height),
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
    subs = (1.0, 2.0, 5.0) if high < 500 * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _handle(marker: str, color: str, face: str, name: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], marker=marker, color=color, markerfacecolor=face, linestyle="", label=name)


def _patch(color: str, name: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=color, label=name)


def _save(figure: Figure, path: Path) -> bool:
    from matplotlib import pyplot

    figure.savefig(path, dpi=130, bbox_inches="tight")
    pyplot.close(figure)
    return True
