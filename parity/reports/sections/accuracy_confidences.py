"""How sure the decoder says it is and how often it is right: a part of the report over many songs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core.plotting import new_figure, save
from parity.reports.tables import markdown

_KINDS = ("beats", "downbeats")
# Of fewer a share says little.
_FEWEST = 20


def totals(rows: Sequence[dict[str, Any]], kind: str) -> dict[str, np.ndarray]:
    """Counts over all songs, by confidence; see `parity.full.confidences.calibration`."""
    return {name: np.sum([row[kind][name] for row in rows], axis=0) for name in ("number", "sure", "right")}


def render(content: dict[str, Any], folder: Path) -> str:
    """Markdown of this section; its plot goes into the folder."""
    rows, edges = content["rows"], content["edges"]
    counted = {kind: totals(rows, kind) for kind in _KINDS}
    _plot(counted, folder / "accuracy_confidences.png")
    table = []
    for low, high, column in zip(edges[:-1], edges[1:], range(len(edges)), strict=False):
        row: dict[str, str] = {"confidence": f"{low:g} to {high:g}"}
        for kind in _KINDS:
            number, sure, right = (counted[kind][name][column] for name in ("number", "sure", "right"))
            row[kind] = f"{number:,.0f}"
            row[f"mean confidence, {kind}"] = f"{sure / number:.4f}" if number else "-"
            row[f"right, {kind}"] = f"{right / number:.4f}" if number else "-"
        table.append(row)
    return "\n".join(
        [
            "## Confidences",
            "",
            f"**{_verdict(counted, len(rows))}**",
            "",
            "The decoder's posterior of each decoded beat (that a beat starts within 70 ms) and downbeat, beside how",
            "many of those with such a confidence are right: an annotated beat, or downbeat, lies within 70 ms. The",
            "activations are those of the section on the decoder. Of boundaries and labels there are no annotations",
            "here.",
            "",
            f"Command: `{content['command']}`, a part of `make parity-full`. Measured {content['measured']} on "
            f"{content['machine']['cpu']}.",
            "",
            markdown(table, right=set(table[0]) - {"confidence"}),
            "",
            "![How often beats are right, by their confidence](accuracy_confidences.png)",
        ]
    )


def _verdict(counted: dict[str, dict[str, np.ndarray]], songs: int) -> str:
    parts = []
    for kind, found in counted.items():
        number, sure, right = (found[name].sum() for name in ("number", "sure", "right"))
        parts.append(
            f"of {number:,.0f} {kind} {right / number:.2%} are right, their mean confidence is {sure / number:.2%}"
        )
    words = f"{songs} songs: {'; '.join(parts)}."
    beats = counted["beats"]
    doubted, wrong = beats["number"][:-1].sum(), beats["number"] - beats["right"]
    if wrong.sum():
        words += f" The least sure {doubted / beats['number'].sum():.1%} of the beats, those above the last row, hold "
        words += f"{wrong[:-1].sum() / wrong.sum():.0%} of the wrong ones."
    return words


def _plot(counted: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    figure = new_figure(10, 5)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (kind, found) in zip(panels, counted.items(), strict=True):
        enough = found["number"] >= _FEWEST
        number = found["number"][enough]
        share = found["right"][enough] / number
        # One standard deviation of a share of so many.
        spread = np.sqrt(share * (1 - share) / number)
        panel.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="as sure as right")
        panel.errorbar(
            found["sure"][enough] / number,
            share,
            yerr=spread,
            fmt="o-",
            markersize=4,
            label=f"{kind} (±1 s.d.)",
        )
        panel.set_xlim(0, 1.01)
        panel.set_ylim(0, 1.01)
        panel.grid(alpha=0.3)
        panel.set_xlabel(f"mean confidence of {kind}")
        panel.legend(loc="upper left")
    panels[0].set_ylabel("share within 70 ms of an annotated one")
    figure.suptitle("Calibration: how often decoded beats are right, by their confidence")
    save(figure, path, dpi=120)
