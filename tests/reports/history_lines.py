"""Lines of a history of the measurements, and what a gate said, for the tests of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.gate.__main__ import table
from bench.gate.report import write_section
from bench.gate.speed import Verdict
from parity.reports import history
from parity.reports.publish import dump_json

# Names by key.
MACHINES = {"key of a desk": "A desk, 2 cores, AVX2", "key of a server": "A server, 64 cores, AVX-512"}
DESK, SERVER = MACHINES
COMMITS = ("aaaaaaa00000", "bbbbbbb00000", "ccccccc00000")
ROWS = [f"{stage}/fused/exact/2 threads" for stage in ("spectrogram", "network", "decoder")]
FURTHER = "spectrogram/numpy/exact/1 thread"


def bench_line(machine: str, at: str, number: int, **fields: Any) -> dict[str, Any]:
    """A run whose ratios are seeded by its number: median, and an interval around it."""
    medians = np.random.default_rng(number).uniform(5, 50, len(ROWS) + 1).round(3).tolist()
    rows = {
        name: ["madmom 0.17", median, round(median - 1, 3), round(median + 2, 3), 9]
        for name, median in zip([*ROWS, FURTHER], medians, strict=True)
    }
    headline = {name: ["bit-identical", 0.0945, 196] for name in ROWS}
    common = {"date": f"2026-01-{number:02} 10:00 UTC", "commit": at, "uncommitted": False}
    return {
        "kind": "bench", **common, "machine": machine, "name": MACHINES[machine], "headline": headline, "rows": rows,
        **fields,
    }  # fmt: skip


def parity_line(machine: str, at: str, number: int, **fields: Any) -> dict[str, Any]:
    rows = {
        "spectrogram/fused/exact": [60, 0, 4.8e-7, 887, [900, 90, 9, 0, 0, 0, 1, 0, 0, 0, 0]],
        "decoder/cython/exact": [150, 1, float("inf"), float("inf"), [99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]],
        "pipeline/fused/exact": [5, 0, None, None, []],
    }
    line = bench_line(machine, at, number, kind="parity", tests=[4534, 0, 3], rows=rows, **fields)
    line.pop("headline")
    return line


def write_history(folder: Path, lines: list[Any]) -> None:
    text = "".join(line if isinstance(line, str) else dump_json(line, indent=None) for line in lines)
    (folder / history.NAME).write_text(text, encoding="utf-8")


def some_lines() -> list[dict[str, Any]]:
    """Three commits on the desk and two on the server, where one ratio is NaN; a run with other changes."""
    runs = [(DESK, 0), (SERVER, 0), (DESK, 1), (SERVER, 1), (DESK, 2)]
    lines = [bench_line(machine, COMMITS[at], number) for number, (machine, at) in enumerate(runs, 1)]
    lines[3]["rows"][ROWS[1]][1] = float("nan")
    lines[4]["uncommitted"] = True
    return [*lines, parity_line(DESK, COMMITS[1], 6), parity_line(SERVER, COMMITS[1], 7)]


def write_gate(folder: Path, verdicts: list[Verdict]) -> None:
    lines = ["This machine, today. Sure.", "", "```", table(verdicts), "```"]
    write_section("What was said", lines, folder / "gate.md")


VERDICTS = [
    Verdict("import", "ratio to numpy's import", "1.1x", "at most 1.5x", True),
    Verdict("decoder/cython", "time beside the base", "1.04-1.09x in 16 pairs", "not slower", False),
    Verdict("network", "memory", "no weights", "-", None),
]
