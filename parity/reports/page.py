"""Writes reports/index.html, the measurements of all commits and machines on one page, and reports/comment.md.

Both are made from history.jsonl (`parity.reports.history`); the page also shows, where they lie beside it, the run of
bench.json stage by stage and what gate.md says. ``python -m parity.reports.page reports`` makes them again.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from allin1_core.files.writing import write_text
from parity.reports import history
from parity.reports.publish import dump_json, now

_TEMPLATE = Path(__file__).with_name("page.html")
_DATA = "@DATA@"
_SAID = re.compile(r"^## What was said\n(.*?)```\n(.*?)\n```", flags=re.MULTILINE | re.DOTALL)
_MOST_NAMED = 3
# With fewer an interval says nothing.
_FEWEST_ROUNDS = 3

Line = Mapping[str, Any]


def add(folder: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Append a line to the history in a folder, and make page and comment again; arguments as `history.append`'s."""
    history.append(folder, kind, content)
    write(folder)


def write(folder: Path) -> None:
    """Write index.html and comment.md from what lies in a folder.

    Raises
    ------
    ValueError
        If the history or what the gate said cannot be read; names the file.
    """
    lines, said = history.read(folder), _gate(folder / "gate.md")
    content = {
        "created": now(),
        "lines": lines,
        "bins": history.ULP_LABELS,
        "waterfall": _waterfall(folder / "bench.json"),
        "gate": said,
    }
    # As an element of HTML it ends at the first "</script".
    data = dump_json(content, indent=None).strip().replace("<", "\\u003c")
    write_text(folder / "index.html", _TEMPLATE.read_text(encoding="utf-8").replace(_DATA, data))
    write_text(folder / "comment.md", "\n".join(comment(lines, said)) + "\n")


def _waterfall(path: Path) -> dict[str, Any] | None:
    """When each stage of the timed analysis ran, in seconds from its start; None where there is no record of one."""
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    for record in content["records"]:
        if timings := record["figures"].get("timings"):
            stages = [
                {name: timing[name] for name in ("stage", "parent", "start", "duration", "backend")}
                for timing in sorted(timings, key=lambda timing: (timing["start"], -timing["duration"]))
            ]
            what = f"{record['variant']}, {record['audio_seconds']:.0f} s of audio"
            return {
                "what": what,
                "machine": content["machine"]["cpu"],
                "date": content["created"],
                "stages": stages,
            }
    return None


def _gate(path: Path) -> dict[str, Any] | None:
    """What the gate said: how sure that is, and its table, a list of cells for each row; None where it said nothing."""
    said = _SAID.search(path.read_text(encoding="utf-8")) if path.exists() else None
    if said is None:
        return None
    rows = [re.split(" {2,}", line.strip()) for line in said[2].splitlines()[1:]]
    for row in rows:
        if len(row) != 5:
            raise ValueError(
                f"{path}: a row with {len(row)} cells, {row!r}; expected 5; run `make gate` again"
            )
    return {"words": said[1].strip(), "rows": rows}


def comment(lines: Sequence[Line], gate: Mapping[str, Any] | None) -> list[str]:
    """What the newest run changed beside its base, for a pull request: at most ten lines of markdown."""
    of_machine = [line for line in lines if line["machine"] == lines[-1]["machine"]]
    text = [f"**What changed**, on {of_machine[-1]['name']} (more in `reports/index.html`)"]
    for kind, say in (("bench", _speed), ("parity", _accuracy)):
        runs = [line for line in of_machine if line["kind"] == kind]
        if runs:
            text += say(runs[-1], base(runs))
    if gate is not None:
        verdicts = [row[-1] for row in gate["rows"]]
        failed = [row[0] for row in gate["rows"] if row[-1] == "FAILED"]
        text.append(f"- gate: {verdicts.count('ok')} of {len(verdicts)} rows hold{_named(failed, 'failed')}")
    return text


def base(runs: Sequence[Line]) -> Line | None:
    """The newest of the runs that another commit made, to compare the last with: of a tree without other changes."""
    last = runs[-1]
    for line in reversed(runs[:-1]):
        if not line["uncommitted"] and (line["commit"] != last["commit"] or last["uncommitted"]):
            return line
    return None


def _speed(now: Line, before: Line | None) -> list[str]:
    if before is None:
        return [f"- speed at {_which(now)}: no run of another commit on this machine to compare with"]
    text = [f"- speed at {_which(now)} beside {_which(before)}, as median (interval):"]
    lost, gained = [], []
    for name, row in now["rows"].items():
        old = before["rows"].get(name)
        # Of another reference it is another ratio.
        if old is None or old[0] != row[0] or None in (*old[1:4], *row[1:4]):
            words = f"{_ratio(row)}; nothing to compare it with"
        elif min(old[4], row[4]) < _FEWEST_ROUNDS:
            words = f"{_ratio(old)} → {_ratio(row)}: too few rounds to tell"
        elif row[3] < old[2]:
            words = f"{_ratio(old)} → {_ratio(row)}: **slower**"
            lost.append(name)
        elif row[2] > old[3]:
            words = f"{_ratio(old)} → {_ratio(row)}: faster"
            gained.append(name)
        else:
            words = f"{_ratio(old)} → {_ratio(row)}: intervals overlap"
        if name in now["headline"]:
            text.append(f"  - {name}: {words}")
    words = f"{_named(lost, 'slower')}{_named(gained, 'faster')}{_gone(now, before)}"
    return [*text, f"  - of {len(now['rows'])} rows{words}"]


def _accuracy(now: Line, before: Line | None) -> list[str]:
    made, outside = (sum(row[cell] for row in now["rows"].values()) for cell in (0, 1))
    passed, failed, skipped = now["tests"]
    text = f"- accuracy at {_which(now)}: {passed:,} tests passed, {failed} failed, {skipped} skipped; "
    text += f"{made:,} comparisons, {outside} outside their bounds"
    if before is None:
        return [f"{text}; no run of another commit on this machine to compare with"]
    worse: list[str] = []
    better: list[str] = []
    for name, row in now["rows"].items():
        for cell in (2, 3):
            old = before["rows"].get(name, row)[cell]
            if None not in (old, row[cell]) and old != row[cell] and name not in worse + better:
                (worse if row[cell] > old else better).append(name)
    words = f"{_named(worse, 'further from the oracle')}{_named(better, 'closer to it')}{_gone(now, before)}"
    return [f"{text}; beside {_which(before)}{words}"]


def _gone(now: Line, before: Line) -> str:
    """The rows that are there no more; empty where all are."""
    gone = [name for name in before["rows"] if name not in now["rows"]]
    return _named(gone, "gone") if gone else ""


def _which(line: Line) -> str:
    return f"{line['commit']}{' with uncommitted changes' if line['uncommitted'] else ''}"


def _ratio(row: Sequence[Any]) -> str:
    _, median, low, high, rounds = row
    if None in (median, low, high):
        return "not measured"
    return f"{median:.3g}x ({f'{low:.3g}-{high:.3g}' if rounds > 1 else 'one round'})"


def _named(names: Sequence[str], what: str) -> str:
    """``, 2 slower (a, b)``; of many the first."""
    more = ", ..." if len(names) > _MOST_NAMED else ""
    return f", {len(names)} {what}" + (f" ({', '.join(names[:_MOST_NAMED])}{more})" if names else "")


if __name__ == "__main__":
    try:
        write(Path(sys.argv[1] if len(sys.argv) > 1 else "reports"))
    except ValueError as error:
        sys.exit(f"page: {error}")
