"""The committed baseline: the accepted measurement of each row.

    python -m bench.report.baseline --reason "the decoder carries entries from beat to beat"

takes the rows of reports/bench.json over into bench/report/baseline.json, for this machine, and adds the reason to the
file's history, with the ratios that were there before. Rows of other machines stay. The report draws a run beside them;
the gate compares with the commit that last changed the file, on whatever machine it runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from allin1_core.files.writing import write_text
from bench.report.records import BenchRecord, read_fresh_report
from parity.environment import describe_machine, machine_key, versions
from parity.reports.publish import dump_json, now

BASELINE = Path(__file__).with_name("baseline.json")
SCHEMA_VERSION = 1


def read_baseline(path: Path = BASELINE) -> dict[str, Any]:
    """The file's content; an empty baseline where there is none.

    Raises
    ------
    ValueError
        If it is not a baseline of this schema.
    """
    if not path.exists():
        return {"schema": SCHEMA_VERSION, "history": [], "machines": {}}
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("schema") != SCHEMA_VERSION:
        raise ValueError(f"{path}: schema {content.get('schema')!r}; expected {SCHEMA_VERSION}")
    return dict(content)


@dataclasses.dataclass(frozen=True)
class Earlier:
    """What a run is drawn against.

    Attributes
    ----------
    rows : mapping
        By `BenchRecord.key`: ratio to the reference, the reference, the track.
    taken : str
        When, and why.
    is_own : bool
        Whether the baseline was taken from that very run; `rows` are then those of the baseline before it.
    """

    rows: Mapping[str, tuple[float, str, str]]
    taken: str
    is_own: bool


def earlier(source: str, measured: str, path: Path = BASELINE) -> Earlier | None:
    """The baseline of this machine that was there before a run; None where none was.

    Parameters
    ----------
    source : str
        Digest of the sources that the run measured.
    measured : str
        When the run ended.
    path : Path
    """
    content = read_baseline(path)
    machine = content["machines"].get(machine_key())
    if machine is None:
        return None
    if (machine.get("source"), machine.get("measured")) != (source, measured):
        return Earlier(_compact(machine["rows"]), f"{machine['created']}: {_reason(content)}", False)
    # Taken from this run: what it replaced stands in the history.
    entries = [entry for entry in content["history"] if entry["machine"] == machine_key()]
    previous = entries[-1].get("previous", {})
    rows = {key: (float(row[0]), str(row[1]), str(row[2])) for key, row in previous.get("rows", {}).items()}
    return Earlier(rows, f"{previous.get('date', '')}: {previous.get('reason', '')}", True)


def _reason(content: Mapping[str, Any]) -> str:
    entries = [entry for entry in content["history"] if entry["machine"] == machine_key()]
    return str(entries[-1]["reason"]) if entries else ""


def _compact(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[float, str, str]]:
    return {
        key: (round(row["ratio"], 4), row["reference"], row["track"])
        for key, row in rows.items()
        if row["ratio"] is not None
    }


def update(
    records: Sequence[BenchRecord],
    reason: str,
    path: Path = BASELINE,
    *,
    measured: str = "",
    source: str = "",
) -> None:
    """Replace this machine's rows by those of `records`, and keep the reason and the ratios that were there before.

    A second baseline in a row for the same reason takes the place of the first in the history.

    Parameters
    ----------
    records : sequence of BenchRecord
    reason : str
        Why the figures may change; goes into the history.
    path : Path
    measured, source : str
        When the session ended, and the digest of the sources that it measured.

    Raises
    ------
    ValueError
        If no reason is given, nothing was measured, or a row does not agree with its reference.
    """
    if not reason.strip():
        raise ValueError("reason: empty; say why the figures may change")
    if not records:
        raise ValueError("records: none; run `make bench` first")
    wrong = [record.key for record in records if record.role == "candidate" and not record.agrees]
    if wrong:
        raise ValueError(f"records: {', '.join(wrong)} did not agree with the reference; that is no baseline")
    content = read_baseline(path)
    _add_to_history(content, reason.strip(), source)
    content["machines"][machine_key()] = {
        "created": now(),
        "measured": measured,
        "source": source,
        "machine": describe_machine(),
        "versions": versions(),
        "rows": {record.key: _row(record) for record in records},
    }
    write_text(path, dump_json(content))


def _add_to_history(content: dict[str, Any], reason: str, source: str) -> None:
    """An entry with date, reason, digest of the sources, and what the baseline was until now."""
    here = machine_key()
    entry: dict[str, Any] = {"date": now(), "machine": here, "reason": reason, "source": source}
    history = content["history"]
    last = next((index for index in reversed(range(len(history))) if history[index]["machine"] == here), None)
    if last is not None and history[last]["reason"] == reason:
        # What is being replaced was never the state that somebody meant to keep.
        entry["previous"] = history.pop(last).get("previous", {})
    elif last is not None:
        machine = content["machines"][here]
        entry["previous"] = {
            "date": machine["created"],
            "reason": history[last]["reason"],
            "rows": _compact(machine["rows"]),
        }
    history.append(entry)


def _row(record: BenchRecord) -> dict[str, str | float | None]:
    """Ratio to the reference with its interval, median in seconds, peak memory in bytes."""
    ratio = record.ratio
    return {
        "reference": record.reference,
        "track": record.track,
        "ratio": ratio.median if ratio else None,
        "low": ratio.low if ratio else None,
        "high": ratio.high if ratio else None,
        "seconds": record.median,
        "peak_memory_bytes": record.peak_memory_bytes,
    }


def changes(
    records: Sequence[BenchRecord], rows: Mapping[str, tuple[float, str, str]]
) -> list[tuple[str, float, BenchRecord]]:
    """Rows that were measured then and now against the same reference: name, ratio then, record of now."""
    found = []
    for record in records:
        ratio, *input_then = rows.get(record.key, (None, "", ""))
        if ratio is not None and record.ratio is not None and input_then == [record.reference, record.track]:
            found.append((record.key, ratio, record))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m bench.report.baseline", description=__doc__)
    parser.add_argument("--reason", required=True, help="why the figures may change")
    parser.add_argument("--from", dest="source", type=Path, default=Path("reports/bench.json"))
    options = parser.parse_args(arguments)
    try:
        records, content = read_fresh_report(options.source)
        if failed := content["session"]["failed"]:
            raise ValueError(
                f"{options.source}: {', '.join(failed)} failed; expected a session without failures"
            )
        update(records, options.reason, measured=content["created"], source=content["source"])
    except (ValueError, FileNotFoundError) as error:
        print(f"baseline: {error}", file=sys.stderr)
        return 1
    print(f"{BASELINE}: {len(records)} rows for {machine_key()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
