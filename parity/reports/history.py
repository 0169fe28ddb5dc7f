"""History of the measurements: reports/history.jsonl, a line of JSON for each run of `make bench` or `make parity`.

Each line says when, on which commit and on which machine; ``rows`` holds by name

- of ``bench``: the reference, how many times faster than it (median and ends of the interval), and the rounds. What is
  not measured, or does not agree with the reference, is null.
- of ``parity``: how many comparisons were made, how many are outside their bounds, the largest difference, absolute and
  in ULP (null where none was taken), and how many values are that many ULP apart (`ULP_LABELS`).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core.files.writing import append_line
from parity.agreement import ULP_BINS, add_counts
from parity.environment import describe_machine, machine_key
from parity.reports.publish import dump_json, now
from parity.reports.records import Outcome, ParityRecord, in_order

NAME = "history.jsonl"
# Bins of the histograms: differences of up to so many ULP, and more than the bin before.
ULP_LABELS = ("0", "1", "2", "4", "8", "16", "256", "65,536", "2³²", "2⁶⁴", "not finite")
# The first bin of a record (`parity.agreement.ULP_BINS`) in each of them.
_FIRST_BINS = (0, 1, 2, 3, 4, 5, 6, 10, 18, 34, ULP_BINS - 1)
_ROOT = Path(__file__).resolve().parents[2]
_FIELDS = {"kind": str, "date": str, "commit": str, "uncommitted": bool, "machine": str, "name": str}
_OF_KIND: dict[str, tuple[str, type]] = {"bench": ("headline", dict), "parity": ("tests", list)}
_CELLS = {
    "bench": (str, *[float | int | None] * 3, int),
    "parity": (int, int, float | int | None, float | int | None, list),
}


def append(folder: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Append a line on this machine and this commit to the history in a folder.

    Parameters
    ----------
    folder : Path
    kind : str
        ``bench`` or ``parity``.
    content : mapping
        ``rows``, and what else the line holds; JSON-ready.
    """
    revision, uncommitted = commit()
    machine = describe_machine()
    line = {
        "kind": kind,
        "date": now(),
        "commit": revision,
        "uncommitted": uncommitted,
        "machine": machine_key(),
        "name": f"{machine['cpu']}, {machine['cores']} cores, {machine['instruction_set']}",
        **content,
    }
    append_line(folder / NAME, dump_json(line, indent=None).encode())


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of the history in a folder and in those right below it, by date.

    Raises
    ------
    ValueError
        If there is none, or one is not what `append` writes; names file and line.
    """
    lines = [
        line
        for path in (folder / NAME, *sorted(folder.glob(f"*/{NAME}")))
        if path.exists()
        for line in _read_file(path)
    ]
    if not lines:
        raise ValueError(
            f"{folder / NAME}: no line; expected those that `make bench` and `make parity` append; run one"
        )
    return sorted(lines, key=lambda line: line["date"])


def _read_file(path: Path) -> list[dict[str, Any]]:
    """The lines of one file of the history."""
    texts, lines = path.read_text(encoding="utf-8").splitlines(), []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            line = text[:60]
        fault = _fault(line)
        if fault:
            raise ValueError(
                f"{path}, line {number}: {fault}; expected what `make bench` and `make parity` append; "
                "take it from git again, or delete the line"
            )
        lines.append(line)
    return lines


def parity_content(records: Sequence[ParityRecord], outcome: Outcome) -> dict[str, Any]:
    """What a line holds of a session of `make parity`: tests passed, failed and skipped, and the rows."""
    groups: dict[str, list[ParityRecord]] = {}
    for record in in_order(records):
        device = "" if record.device == "cpu" or record.device in record.backend else f" on {record.device}"
        groups.setdefault(f"{record.stage}/{record.backend}{device}/{record.precision}", []).append(record)
    tests = [outcome.passed, len(outcome.failed), len(outcome.skipped)]
    return {"tests": tests, "rows": {name: _parity_row(group) for name, group in groups.items()}}


def _parity_row(records: Sequence[ParityRecord]) -> list[Any]:
    counts = add_counts((record.measures.get("ulp_counts", ()) for record in records), ULP_BINS)
    return [
        len(records),
        sum(not record.passed for record in records),
        _largest(records, "max_difference", "log_probability_difference"),
        _largest(records, "max_ulp"),
        np.add.reduceat(counts, _FIRST_BINS).tolist() if any(counts) else [],
    ]


def _largest(records: Sequence[ParityRecord], *names: str) -> float | None:
    """The largest of these measures, to four figures; None where no record has one, or one is NaN."""
    found = [record.measures[name] for record in records for name in names if name in record.measures]
    return rounded(float(np.max(found))) if found else None


def rounded(value: float) -> float | None:
    """To four figures; None for NaN."""
    return None if np.isnan(value) else float(f"{value:.4g}")


def commit() -> tuple[str, bool]:
    """The commit of this tree, and whether anything but the reports differs from it; ``unknown`` outside a clone."""

    def git(*arguments: str) -> str:
        run = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True)
        return run.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD"), bool(git("status", "--porcelain", ":!reports"))
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown", True


def _fault(line: Any) -> str:
    """What is wrong with a line; empty if nothing is."""
    if not isinstance(line, dict):
        return f"no JSON object ({line!r})"
    for name, kind in _FIELDS.items():
        if not isinstance(line.get(name), kind):
            return f"{name} is {line.get(name)!r}"
    cells = _CELLS.get(line["kind"])
    if cells is None:
        return f"kind is {line['kind']!r}"
    for name, kind in (("rows", dict), _OF_KIND[line["kind"]]):
        if not isinstance(line.get(name), kind):
            return f"{name} is {line.get(name)!r}"
    for name, row in line["rows"].items():
        if not isinstance(row, list) or len(row) != len(cells) or not all(map(isinstance, row, cells)):
            return f"row {name!r} is {row!r}"
    return ""
