"""The gate's bars for a GPU, judged from the report that ``make device`` writes: ratios within one run alone."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from allin1_core.backends.table import module_exists
from bench.gate.bars import DeviceBars
from bench.gate.speed import Verdict

Parts = Mapping[str, Mapping[str, Any]]


def judge_device(
    parts: Parts, before: Parts | None, bars: DeviceBars, *, brief: bool = False
) -> list[Verdict]:
    """All checks of the parts that were measured.

    Parameters
    ----------
    parts : mapping
        Of a report: by part its ``rows``, and the ``error`` that ended it.
    before : mapping, optional
        Of the committed report of the same card.
    bars : DeviceBars
    brief : bool
        Whether the inputs were small, of which no time says anything.
    """
    verdicts = [verdict for part in parts for verdict in _check_outputs(part, parts[part]["rows"])]
    verdicts += [
        Verdict(part, "rows", result["error"] or "none", "some", False)
        for part, result in parts.items()
        if result["error"] or not result["rows"]
    ]
    if brief:
        return verdicts
    for bar in bars.rows:
        if bar.part not in parts:
            continue
        name, asked = f"{bar.part}: {bar.name}", f"at least {bar.at_least:g}"
        if bar.module and not module_exists(bar.module):
            absent = f"{bar.module} is not installed"
            verdicts.append(Verdict(name, bar.figure, absent, asked, None, required=False))
            continue
        found = number(_row(parts, bar.part, bar.name).get(bar.figure))
        verdicts.append(Verdict(name, bar.figure, f"{found:.3g}", asked, found >= bar.at_least))
    return verdicts + _beside(parts, before, bars.max_loss)


def _check_outputs(part: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Verdict]:
    """Tests, differences with a bound, and comparisons that were made."""
    for row in rows:
        name = f"{part}: {row['name']}"
        if "failed" in row:
            measured = f"{row['passed']} passed, {row['failed']} failed, {row['not reached']} not reached"
            passed = number(row["passed"]) > 0 and number(row["failed"]) == number(row["not reached"]) == 0
            yield Verdict(name, "tests", measured, "some passed, none failed, all reached", passed)
        if "bound" in row:
            difference, bound = number(row.get("difference")), number(row["bound"])
            yield Verdict(
                name, "difference", f"{difference:.2g}", f"at most {bound:.2g}", difference <= bound
            )
        if "agrees" in row:
            agrees = row["agrees"] is True
            yield Verdict(name, "agreement", "agrees" if agrees else "differs", "agrees", agrees)


def _row(parts: Parts, part: str, name: str) -> Mapping[str, Any]:
    rows = parts.get(part, {}).get("rows", ())
    return next((row for row in rows if row["name"] == name), {})


def _beside(parts: Parts, before: Parts | None, max_loss: float) -> list[Verdict]:
    """Every ratio of the committed report beside that of this run."""
    check = "ratio beside the committed report of this card"
    if before is None:
        return [Verdict("every ratio", check, "there is none", "-", None, required=False)]
    verdicts = []
    for part in parts:
        for old in before.get(part, {}).get("rows", ()):
            if "ratio" in old:
                found, least = number(_row(parts, part, old["name"]).get("ratio")), old["ratio"] / max_loss
                measured = f"{found:.3g} (before: {old['ratio']:.3g})"
                asked = f"at least {least:.3g}"
                verdicts.append(Verdict(f"{part}: {old['name']}", check, measured, asked, found >= least))
    return verdicts


def number(value: object) -> float:
    """A figure as read from JSON: NaN for what is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def baseline(path: Path) -> Parts | None:
    """The parts of a card's report as it was committed, or outside a checkout as it lies there; None if there is none.

    Raises
    ------
    ValueError
        If it is no report.
    """
    root = path.resolve().parents[1]
    text = path.read_text(encoding="utf-8") if path.is_file() else None
    if (root / ".git").exists() and shutil.which("git"):
        name = path.resolve().relative_to(root).as_posix()
        command = ["git", "-C", str(root), "show", f"HEAD:{name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        text = done.stdout if done.returncode == 0 else None
    if text is None:
        return None
    try:
        parts: Parts = json.loads(text)["parts"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error!r}; expected a report of `make device`; remove it") from error
    return parts
