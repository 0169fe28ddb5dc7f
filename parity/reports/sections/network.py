"""The network's part of parity.md: how far each backend's probabilities are from each oracle's, and a plot of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from allin1_core.backends.table import GENERAL_BOUNDS
from allin1_core.plotting import new_figure, save
from parity.reports.records import ParityRecord
from parity.reports.tables import frame, markdown, yes

_PLOT = "parity_network.png"
_OUTPUTS = ("beat", "downbeat", "segment", "label")
_BOUND = GENERAL_BOUNDS["network"]["exact"].anything
# Ends of a logarithmic axis: where points stand that do not differ, and those that differ by more or are not finite.
_FLOOR, _CEILING = 1e-8, 4 * _BOUND


def render(records: list[ParityRecord], folder: Path) -> str:
    """Markdown of the stage; writes one plot into ``folder``."""
    random = [record for record in records if record.case.startswith("random weights")]
    probabilities = [record for record in records if record not in random]
    lines = ["## Network", ""]
    if probabilities:
        lines += [
            "Largest differences of the probabilities, from our own spectrogram and the published weights. Of single",
            "folds, the one that differs most.",
            "",
            _table(_worst_of_single_folds(probabilities)),
            "",
        ]
    if random:
        lines += [
            "Seeded random weights, at lengths around the windows, against the definition written out in float64:",
            "",
            _random_table(random),
            "",
        ]
    if draw_differences(records, folder / _PLOT):
        lines += [f"![Differences of the probabilities]({_PLOT})"]
    return "\n".join(lines).rstrip()


def _name(record: ParityRecord) -> str:
    """Backend, with its precision and device where there are several."""
    fast = f", {record.precision}" if record.precision != "exact" else ""
    return record.backend + (f" on {record.device}" if record.device == "cuda" else "") + fast


def _difference(record: ParityRecord) -> float:
    return float(record.measures["max_difference"])


def _worst_of_single_folds(records: Sequence[ParityRecord]) -> list[ParityRecord]:
    """One record for each input, oracle and backend: that of the fold that failed, or differs most."""
    table = frame(records)
    apart = table["max_difference"].where(table["passed"], np.inf)
    inputs = table["case"].str.replace(r", harmonix-fold\d", ", one fold", regex=True)
    keys = [inputs, *(table[name] for name in ("oracle", "backend", "device", "precision"))]
    return [records[index] for index in apart.groupby(keys, sort=False).idxmax()]


def _table(records: Sequence[ParityRecord]) -> str:
    rows = [
        {
            "input": record.case,
            "oracle": record.oracle,
            "backend": record.backend,
            "device": record.device,
            "precision": record.precision,
            **{name: f"{float(record.measures[name]):.1e}" for name in _OUTPUTS},
            "held to": record.bound,
            "within": yes(record.passed),
        }
        for record in records
    ]
    return markdown(rows, right=_OUTPUTS)


def _random_table(records: Sequence[ParityRecord]) -> str:
    """A row for each input, a column for each backend."""
    table = frame(records).assign(backend=[_name(record) for record in records])
    backends = list(table["backend"].unique())
    rows = [
        {
            "input": case,
            **dict.fromkeys(backends, "-"),
            **{row.backend: f"{row.max_difference:.1e}" for row in group.itertuples()},
            "held to": ", ".join(group["bound"].unique()),
            "within": yes(group["passed"].all()),
        }
        for case, group in table.groupby("case", sort=False)
    ]
    return markdown(rows, right=backends)


def draw_differences(records: Sequence[ParityRecord], path: Path) -> bool:
    """Each comparison as a point: its largest difference, by oracle and backend; False if there is nothing to draw."""
    if not records:
        return False
    oracles = list(dict.fromkeys(record.oracle for record in records))
    backends = list(dict.fromkeys(map(_name, records)))
    figure = new_figure(9, 1.6 + 0.75 * len(oracles))
    axes = figure.subplots()
    for index, backend in enumerate(backends):
        rows = [record for record in records if _name(record) == backend]
        shift = (index - (len(backends) - 1) / 2) * 0.2
        axes.plot(
            np.clip([_difference(record) for record in rows], _FLOOR, _CEILING),
            [oracles.index(record.oracle) + shift for record in rows],
            linestyle="none",
            marker="os^D"[index % 4],
            alpha=0.6,
            label=backend,
        )
    axes.axvline(_BOUND, color="black", linestyle="--", label="bound")
    axes.set_xscale("log")
    axes.set_xlim(_FLOOR / 2, _CEILING * 1.25)
    axes.set_yticks(range(len(oracles)), oracles)
    axes.set_ylim(len(oracles) - 0.4, -0.6)
    axes.set_xlabel("largest difference of a probability (no unit)")
    axes.set_title("Network: every comparison with its oracle")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside right upper")
    save(figure, path, dpi=120)
    return True
