"""Differences in ULP, units in the last place, in parity.md: a cell of the summary, and a histogram for each stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from allin1_core.plotting import new_figure, save
from parity.agreement import ULP_BINS, add_counts
from parity.reports.records import ParityRecord

NOTE = (
    "By how many values of its type each number is apart from the oracle's, over all inputs. Close to 0 a difference "
    "that is small beside the bound is many of them: 1e-7 and 0 are 870 million apart in float32."
)
_COLUMNS = 2
_PANEL_INCHES = 6.5, 1.25


def worst(records: Sequence[ParityRecord]) -> str:
    """The largest difference in ULP that these records hold; "-" if none was taken."""
    found = [float(record.measures["max_ulp"]) for record in records if "max_ulp" in record.measures]
    return f"{max(found):,.0f}" if found else "-"


def section(stage: str, records: Sequence[ParityRecord], folder: Path) -> Iterator[str]:
    """Lines of markdown with the stage's histogram, which is drawn into the folder; none where nothing was counted."""
    groups: dict[str, list[Sequence[int]]] = {}
    for record in records:
        name = ", ".join(dict.fromkeys([record.backend, record.device, record.precision]))
        groups.setdefault(name, []).append(record.measures.get("ulp_counts", ()))
    added = {name: add_counts(taken, ULP_BINS) for name, taken in groups.items()}
    panels = {name: counts for name, counts in added.items() if any(counts)}
    if not any(sum(counts[1:]) for counts in panels.values()):
        total = sum(map(sum, panels.values()))
        yield from ["", f"In ULP: all {total:,} values have the oracle's bits."] if total else []
    else:
        plot = f"parity_ulp_{stage.replace(' ', '_')}.png"
        _draw(panels, stage, folder / plot)
        yield from ["", NOTE, "", f"![Differences in ULP from the oracle]({plot})"]


def _draw(panels: dict[str, list[int]], stage: str, path: Path) -> None:
    """A histogram for each implementation, on common axes: the share of values in each bin, on a logarithmic scale."""
    last = max(
        index for counts in panels.values() for index, count in enumerate(counts[:-1]) if count or not index
    )
    infinite = any(counts[-1] for counts in panels.values())
    labels = ["0", *(f"{2**power:,}" if power < 10 else f"$2^{{{power}}}$" for power in range(last))]
    columns = min(len(panels), _COLUMNS)
    rows = -(-len(panels) // columns)
    figure = new_figure(columns * _PANEL_INCHES[0], 1.2 + rows * _PANEL_INCHES[1])
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    lowest = list(grid.flat)[: len(panels)][-columns:]
    for axes, (name, counts) in zip(grid.flat, panels.items(), strict=False):
        shown = counts[: last + 1] + counts[-1:] * infinite
        share = [100 * count / sum(counts) for count in shown]
        axes.bar(range(len(share)), share, color=["0.6"] + ["C0"] * last + ["C3"] * infinite)
        axes.set_yscale("log")
        axes.set_ylim(top=200)
        axes.grid(axis="y", alpha=0.3)
        axes.set_title(f"{name} ({sum(counts):,} values)", fontsize=9)
        labels_shown = labels + ["not finite"] * infinite
        axes.set_xticks(range(len(labels_shown)), labels_shown, fontsize=7, rotation=90)
        axes.tick_params(labelbottom=axes in lowest)
        axes.yaxis.set_major_formatter("{x:g}")
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel(
        "difference from the oracle in ULP: up to this many, and more than the bin before it", fontsize=9
    )
    figure.supylabel("values, %", fontsize=9)
    figure.suptitle(
        f"{stage.capitalize()}: differences in units in the last place (grey: the same bits)", fontsize=11
    )
    save(figure, path)
