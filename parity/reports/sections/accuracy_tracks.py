"""Spectrogram, network and whole pipeline, track by track: their part of the report over many songs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core.plotting import new_figure, save
from parity.implementations import label
from parity.reports.sections.spectrogram import NOTE
from parity.reports.tables import difference, markdown, yes

# Where points stand that are further away, or not finite; and those of what has to be bit-identical.
_MOST_BOUNDS, _FAR = 3, 1e-5

Rows = Sequence[dict[str, Any]]


def render(content: dict[str, Any], folder: Path) -> str:
    """Markdown of this section, for the shared tracks or those of a folder that the user named; its plot goes into
    the folder."""
    name = content.get("section", "tracks")
    title = "the shared tracks" if name == "tracks" else "a folder of one's own"
    rows: Rows = [row for row in content["rows"] if "error" not in row]
    failed: Rows = [row for row in content["rows"] if "error" in row]
    oracle = content["oracle"]
    part = "" if content["command"] != "python -m parity.full.tracks" else ", a part of `make parity-full`"
    lines = [
        f"## Spectrogram, network and pipeline on {title}",
        "",
        f"**{_verdict(rows, failed)}**",
        "",
        f"Command: `{content['command']}`{part}. Measured {content['measured']} on {content['machine']['cpu']}, with "
        f"{content['model']} ({content['folds']} folds).",
        "",
    ]
    if failed:
        lines += ["Tracks that could not be compared:", ""]
        lines += [f"- **{row['track']}**: {row['error']}" for row in failed]
        lines += [""]
    if not rows:
        return "\n".join(lines)
    plot = f"accuracy_{name}.png"
    _plot(rows, folder / plot, f"Spectrogram against {oracle}", "Network: fused against plain torch")
    return "\n".join(
        [
            *lines,
            f"Spectrogram: largest difference from {oracle} over all stems of a track, by implementation. {NOTE}",
            "",
            _spectrograms(rows),
            "",
            f"![Difference of spectrogram and network from their oracles, a point for each stem or track]({plot})",
            "",
            "Network: largest difference between the fused kernels and plain torch, both on the oracle's spectrogram.",
            f"Pipeline: `analyze` beside a pipeline of {oracle}'s spectrogram, plain torch and {oracle}'s decoder.",
            "",
            _results(rows),
        ]
    )


def _verdict(rows: Rows, failed: Rows) -> str:
    def count(stage: str) -> int:
        return sum(all(part["passed"] for part in _parts(row[stage])) for row in rows)

    total = len(rows) + len(failed)
    text = (
        f"Within the declared bounds on {count('spectrogram')} of {total} tracks (spectrogram) and "
        f"{count('network')} of {total} (network); the same beats, positions and sections on "
        f"{count('pipeline')} of {total}."
    )
    return text + (f" {len(failed)} of them could not be compared." if failed else "")


def _parts(value: Any) -> list[dict[str, Any]]:
    return value if isinstance(value, list) else [value]


def _label(part: dict[str, Any]) -> str:
    """An implementation's name, precision and device, as the report calls it."""
    backend, _, how = part["implementation"].partition("-")
    return f"{label(backend, part['computed_by'])}, {how.replace('-', ' on ')}"


def _spectrograms(rows: Rows) -> str:
    names = [_label(part) for part in rows[0]["spectrogram"]]
    bounds = [difference(part["bound"]) for part in rows[0]["spectrogram"]]
    found = [{"track": "*declared bound*", **dict(zip(names, bounds, strict=True))}]
    for row in rows:
        cells = [difference(part["largest"]) + _mark(part) for part in row["spectrogram"]]
        found.append({"track": row["track"], **dict(zip(names, cells, strict=True))})
    return markdown(found, right=names)


def _mark(part: dict[str, Any]) -> str:
    return "" if part["passed"] else " **(!)**"


def _results(rows: Rows) -> str:
    right = {"seconds", "network, largest difference", "beats", "sections", "boundaries apart"}
    return markdown([_result(row) for row in rows], right)


def _result(row: dict[str, Any]) -> dict[str, Any]:
    network, pipeline = row["network"], row["pipeline"]
    return {
        "track": row["track"],
        "seconds": f"{row['seconds']:.1f}",
        "network, largest difference": f"{network['largest']:.1e}" + _mark(network),
        "of output": max(network["by_output"], key=network["by_output"].get),
        "beats": pipeline["beats"],
        "same beats and positions": yes(pipeline["same_beats"] and pipeline["same_positions"]),
        "same downbeats and BPM": yes(pipeline["same_downbeats"] and pipeline["same_bpm"]),
        "sections": pipeline["segments"],
        "same labels": yes(pipeline["same_labels"]),
        "boundaries apart": f"{pipeline['boundaries_apart_seconds']:.2f} s" + _mark(pipeline),
    }


def _plot(rows: Rows, path: Path, spectrogram_title: str, network_title: str) -> None:
    """The spectrogram by implementation, a point for each stem; the network by output, a point for each track."""
    parts = rows[0]["spectrogram"]
    outputs = list(rows[0]["network"]["by_output"])
    heights = [len(parts) + 2, len(outputs) + 2]
    figure = new_figure(9, 0.36 * sum(heights))
    spectrogram, network = figure.subplots(2, 1, height_ratios=heights)
    for height, part in enumerate(parts):
        values = [
            value
            for row in rows
            for other in row["spectrogram"]
            if other["implementation"] == part["implementation"]
            for value in other["by_stem"].values()
        ]
        _dots(spectrogram, height, values, part["bound"])
        if not any(values):
            spectrogram.annotate(
                "    0 on every stem: bit-identical", (0, height), va="center", fontsize=8, color="C0"
            )
    spectrogram.set_yticks(range(len(parts)), [_label(part) for part in parts])
    spectrogram.set_xlim(left=0)
    spectrogram.set_title(f"{spectrogram_title}, {len(rows)} tracks of four stems")
    spectrogram.set_xlabel("largest difference on a stem, log10(1 + magnitude)")
    spectrogram.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
    bound = rows[0]["network"]["bound"]
    for height, output in enumerate(outputs):
        _dots(network, height, [row["network"]["by_output"][output] for row in rows], bound)
    network.set_yticks(range(len(outputs)), outputs)
    network.set_xscale("symlog", linthresh=1e-8)
    network.set_xlim(0, _MOST_BOUNDS * bound)
    network.set_title(f"{network_title}, {len(rows)} tracks")
    network.set_xlabel("largest difference of a probability on a track (logarithmic; 0 at the left)")
    for axes in (spectrogram, network):
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
    handles, names = spectrogram.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=2, frameon=False)
    save(figure, path, dpi=120)


def _dots(axes: Any, height: int, values: Sequence[float], bound: float) -> None:
    """A point for each value, at one height, and the bound; the first row of a panel names both for the legend."""
    names = ("a stem or a track", "declared bound") if height == 0 else (None, None)
    # On the axis itself, a point at 0 is not cut off.
    axes.plot(
        np.minimum(values, _MOST_BOUNDS * bound or _FAR),
        [height] * len(values),
        "o",
        color="C0",
        alpha=0.5,
        clip_on=False,
        label=names[0],
    )
    axes.plot([bound, bound], [height - 0.3, height + 0.3], color="C3", clip_on=False, label=names[1])
