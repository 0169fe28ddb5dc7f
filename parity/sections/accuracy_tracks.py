"""Spectrogram, network and whole pipeline, track by track: their part of the report over many songs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parity.cases_spectrogram import label
from parity.sections.spectrogram import NOTE

Rows = Sequence[dict[str, Any]]


def render(content: dict[str, Any], folder: Path) -> str:
    """Markdown of this section; its plot goes into the folder."""
    return render_named(content, folder, "Spectrogram, network and pipeline on the shared tracks", "tracks")


def render_named(content: dict[str, Any], folder: Path, title: str, name: str) -> str:
    """As `render`, under another title and with another name of the plot."""
    rows: Rows = content["rows"]
    plot = f"accuracy_{name}.png"
    _plot(rows, folder / plot)
    oracle = content["oracle"]
    return "\n".join(
        [
            f"## {title}",
            "",
            f"**{_verdict(rows)}**",
            "",
            f"Command: `{content['command']}`. Measured {content['measured']} on {content['machine']['cpu']}, with "
            f"{content['model']} ({content['folds']} folds).",
            "",
            f"Spectrogram: largest difference from {oracle} over all stems of a track, by implementation. {NOTE}",
            "",
            *_spectrograms(rows),
            "",
            f"![Difference from the oracle's spectrogram by implementation, a point for each stem]({plot})",
            "",
            "Network: largest difference between the fused kernels and plain torch, both on the oracle's spectrogram.",
            f"Pipeline: `analyze` beside a pipeline of {oracle}'s spectrogram, plain torch and {oracle}'s decoder.",
            "",
            *_results(rows),
        ]
    )


def _verdict(rows: Rows) -> str:
    def count(stage: str) -> int:
        return sum(all(part["passed"] for part in _parts(row[stage])) for row in rows)

    total = len(rows)
    return (
        f"Within the declared bounds on {count('spectrogram')} of {total} tracks (spectrogram) and "
        f"{count('network')} of {total} (network); the same beats, positions and sections on "
        f"{count('pipeline')} of {total}."
    )


def _parts(value: Any) -> list[dict[str, Any]]:
    return value if isinstance(value, list) else [value]


def _label(part: dict[str, Any]) -> str:
    """An implementation's name, precision and device, as the report calls it."""
    backend, _, how = part["implementation"].partition("-")
    computed_by = part.get("computed_by")  # not in what was measured before it was recorded
    return f"{label(backend, computed_by)}, {how.replace('-', ' on ')}"


def _spectrograms(rows: Rows) -> list[str]:
    names = [_label(part) for part in rows[0]["spectrogram"]]
    bounds = [part["bound"] for part in rows[0]["spectrogram"]]
    lines = ["| track | " + " | ".join(names) + " |"]
    lines.append("| --- |" + " ---: |" * len(names))
    lines.append("| *declared bound* | " + " | ".join(_number(bound) for bound in bounds) + " |")
    for row in rows:
        cells = [
            _number(part["largest"]) + ("" if part["passed"] else " **(!)**") for part in row["spectrogram"]
        ]
        lines.append(f"| {row['track']} | " + " | ".join(cells) + " |")
    return lines


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.2g}"


def _results(rows: Rows) -> list[str]:
    lines = [
        "| track | seconds | network, largest difference | of output | beats | same beats and positions | sections "
        "| same labels | boundaries apart |",
        "| --- | ---: | ---: | --- | ---: | --- | ---: | --- | ---: |",
    ]
    for row in rows:
        network, pipeline = row["network"], row["pipeline"]
        worst = max(network["by_output"], key=network["by_output"].get)
        apart = pipeline["boundaries_apart_seconds"]
        cells = [
            row["track"],
            f"{row['seconds']:.1f}",
            f"{network['largest']:.1e}",
            worst,
            str(pipeline["beats"]),
            _yes(pipeline["same_beats"] and pipeline["same_positions"]),
            str(pipeline["segments"]),
            _yes(pipeline["same_labels"]),
            "not comparable" if apart is None else f"{apart:.2f} s",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"


def _plot(rows: Rows, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = [part for part in rows[0]["spectrogram"] if part["bound"] > 0]
    names = [part["implementation"] for part in parts]
    figure = Figure(figsize=(9, 0.45 * len(names) + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for height, name in enumerate(names):
        values = [
            value
            for row in rows
            for part in row["spectrogram"]
            if part["implementation"] == name
            for value in part["by_stem"].values()
        ]
        axes.plot(
            values,
            [height] * len(values),
            "o",
            color="C0",
            alpha=0.5,
            label="a stem" if height == 0 else None,
        )
        bound = parts[height]["bound"]
        axes.plot(
            [bound, bound], [height - 0.3, height + 0.3], color="C3", label="bound" if height == 0 else None
        )
    axes.set_yticks(range(len(names)), [_label(part) for part in parts])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("largest difference from the oracle, log10(1 + magnitude)")
    axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(path, dpi=120)
