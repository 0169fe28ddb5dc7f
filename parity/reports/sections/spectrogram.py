"""The spectrogram's part of parity.md: how close each backend came to madmom, per track, and a plot of it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from allin1_core.plotting import new_figure, save
from parity.reports.records import ParityRecord
from parity.reports.tables import difference, frame, markdown, yes

# For every report that shows these rows.
NOTE = (
    "Rows *computed by fused* are no proofs of their own: on a CPU those backends put into their arrays what the fused "
    "kernels compute. What torch and MLX compute themselves, as on a GPU, are the rows *its own operations*."
)
_PLOT = "parity_spectrogram.png"
# Ends of a logarithmic axis: where points stand that do not differ, and those that differ by more or are not finite.
_FLOOR, _CEILING = 1e-8, 1e-2


def render(records: list[ParityRecord], folder: Path) -> str:
    """Markdown of the stage; writes one plot into ``folder``."""
    music = [record for record in records if record.measures["kind"] == "music"]
    rest = [record for record in records if record.measures["kind"] != "music"]
    lines = [
        "## Spectrogram",
        "",
        "Differences of the output, `log10(1 + magnitude)`, from madmom, over all stems of a track.",
        *([NOTE] if any("computed by" in record.backend for record in records) else []),
        "",
        _table(music),
    ]
    if rest:
        lines += [
            "",
            "The worst of each kind, in both sample types: signals made to be hard (full-scale tones, squares, sweep,",
            "noise, clipping, impulses, silence), frames with values beside a tie of float32 at each step of rounding,",
            "lengths around a hop and a frame, stereo files mixed to mono; and of numpy, products cut into short",
            "pieces, as they are into long ones beyond 33 minutes:",
            "",
            _table(_worst_of_each_kind(rest)),
        ]
    if draw_differences(records, folder / _PLOT):
        lines += ["", f"![Differences from madmom]({_PLOT})"]
    return "\n".join(lines)


def worst(records: Sequence[ParityRecord]) -> str:
    """The largest difference of a row of the summary, in words."""
    record = max(records, key=_difference)
    if all(_difference(entry) == 0 for entry in records):
        return "bit-identical"
    return f"{_difference(record):.2g} ({record.case})"


def _difference(record: ParityRecord) -> float:
    return float(record.measures["max_difference"])


def _table(records: Sequence[ParityRecord]) -> str:
    rows = [
        {
            "input": (measures := record.measures)["name"],
            "samples": measures["dtype"],
            "rate in Hz": measures["sample_rate"],
            "backend": name(record),
            "precision": record.precision,
            "max difference": difference(measures["max_difference"]),
            "99.9th percentile": difference(measures["p999_difference"]),
            "bit-identical values": _share(measures["identical"], measures["values"]),
            "held to": record.bound,
            "within": yes(record.passed),
        }
        for record in records
    ]
    return markdown(rows, right={"rate in Hz", "max difference", "99.9th percentile", "bit-identical values"})


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" + (f" ({100 * part / whole:.2f} %)" if whole else "")


def name(record: ParityRecord) -> str:
    """The backend, with its device where that is a GPU of torch's."""
    return record.backend if record.device in ("cpu", "mlx") else f"{record.backend} ({record.device})"


def _worst_of_each_kind(records: Sequence[ParityRecord]) -> list[ParityRecord]:
    """For each backend and precision the case with the largest difference, of signals and of lengths."""
    groups = frame(records).groupby(["kind", "backend", "device", "precision"], sort=False)
    return [records[index] for index in groups["max_difference"].idxmax()]


def draw_differences(records: Sequence[ParityRecord], path: Path) -> bool:
    """Largest and 99.9th-percentile difference of every input, one row per backend, with the declared bounds."""
    rows = list(dict.fromkeys((name(record), record.precision) for record in records))
    if not rows:
        return False
    figure = new_figure(10, 1.6 + 0.75 * len(rows))
    axes = figure.subplots()
    for row, key in enumerate(rows):
        group = [record for record in records if (name(record), record.precision) == key]
        for offset, is_music, color, label in (
            (-0.18, True, "C0", "music"),
            (0.18, False, "C1", "synthetic signals, or products cut"),
        ):
            chosen = [record for record in group if (record.measures["kind"] == "music") is is_music]
            if not chosen:
                continue
            height = row + offset
            largest = np.clip([_difference(record) for record in chosen], _FLOOR, _CEILING)
            usual = np.clip([record.measures["p999_difference"] for record in chosen], _FLOOR, _CEILING)
            shown = row == 0
            axes.plot(
                usual, [height] * len(usual), "|", color=color, markersize=9, alpha=0.6,
                label=f"{label}: 99.9th percentile" if shown else None,
            )  # fmt: skip
            axes.plot(
                largest, [height] * len(largest), "o", color=color, markersize=5, alpha=0.7,
                label=f"{label}: largest" if shown else None,
            )  # fmt: skip
            # Not all inputs of a row are held to the same.
            for allowed in {record.measures["allowed"] for record in chosen} - {None, 0}:
                axes.plot([allowed] * 2, [height - 0.17, height + 0.17], color="C3", linewidth=2.5)
    axes.plot([], [], color="C3", linewidth=2.5, label="declared bounds (none: bit-identical)")
    axes.set_xscale("log")
    axes.set_xlim(_FLOOR / 1.5, None)
    ticks = [_FLOOR, 1e-7, 1e-6, 1e-5]
    axes.set_xticks(ticks, ["none", "1e-7", "1e-6", "1e-5"])
    # Wrapped, or the longest name takes a quarter of the width.
    labels = [textwrap.fill(f"{backend}, {precision}", 18) for backend, precision in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("absolute difference from madmom in log10(1 + magnitude), one point per input")
    axes.set_title("Spectrogram against madmom")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    save(figure, path, dpi=120)
    return True
