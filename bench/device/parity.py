"""The parity suite on a device: `rows` runs what has the device in its name, and says how it ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from allin1_core.backends.table import module_exists
from allin1_core.threads import usable_cores
from parity.reports.records import NOT_REACHED, ParityRecord, read_records

_ROOT = Path(__file__).resolve().parents[2]
_FILES = (
    "spectrogram",
    "network",
    "network_random",
    "triton",
    "triton_separation",
    "attention",
    "separation",
    "structure",
    "pipeline",
)
_MOST_PROCESSES = 8


def rows(
    *, device: str = "cuda", select: str | None = None, seconds: float | None = None
) -> list[dict[str, object]]:
    """Run the cases of a device.

    Parameters
    ----------
    device : str
    select : str, optional
        Names of the tests, as pytest's ``-k`` takes them; by default all of the device.
    seconds : float, optional
        What is not begun by then is not run.

    Returns
    -------
    list of dict
        A row for the tests, with how many ``passed``, ``failed``, were ``skipped`` and ``not reached`` in time, and the
        names of those that failed in ``failures``; then one for each implementation, with the largest ``difference``
        of its comparisons,
        whether it ``agrees`` in all, and how it is ``held to`` what.

    Raises
    ------
    RuntimeError
        If the tests could not be run.
    """
    files = [f"parity/test_{name}.py" for name in _FILES if (_ROOT / f"parity/test_{name}.py").is_file()]
    kind = device.partition(":")[0]
    select = select or ("cuda or triton" if kind == "cuda" else kind)
    command = [
        sys.executable,
        "-m",
        "pytest",
        *files,
        "-q",
        "--durations=15",
        "-k",
        select,
        "-p",
        "no:cacheprovider",
    ]
    if module_exists("xdist"):
        command += ["-n", str(min(_MOST_PROCESSES, usable_cores())), "--dist", "worksteal"]
    if seconds is not None:
        command += ["--within", str(seconds)]
    with tempfile.TemporaryDirectory() as name:
        # As `make parity` does: threads that wait for work sleep.
        env = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        status = subprocess.run(
            [*command, "--parity-report", name], cwd=_ROOT, env=env, check=False
        ).returncode
        report = Path(name, "parity.json")
        if status not in (0, 1) or not report.is_file():
            raise RuntimeError(f"pytest ended with {status}, and without a report")
        outcome = json.loads(report.read_text(encoding="utf-8"))["outcome"]
        records = read_records(report)
    late = sum(reason.startswith(NOT_REACHED) for reason in outcome["skipped"])
    tests: dict[str, object] = {
        "name": "tests",
        "passed": outcome["passed"],
        "failed": len(outcome["failed"]),
        "skipped": len(outcome["skipped"]) - late,
        "not reached": late,
        "failures": outcome["failed"],
    }
    return [tests, *by_implementation(records)]


def by_implementation(records: list[ParityRecord]) -> list[dict[str, object]]:
    """A row for each stage, backend, precision and device."""
    groups: dict[tuple[str, str, str, str], list[ParityRecord]] = {}
    for record in records:
        key = (record.stage, record.backend, record.precision, record.device)
        groups.setdefault(key, []).append(record)
    found: list[dict[str, object]] = []
    for (stage, backend, precision, device), group in groups.items():
        differences = [float(record.measures.get("max_difference", 0.0)) for record in group]
        found.append(
            {
                "name": f"{stage}, {backend}, {precision}, {device}",
                "comparisons": len(group),
                "difference": max(differences) if all(d == d for d in differences) else float("nan"),
                "held to": ", ".join(dict.fromkeys(record.bound for record in group)),
                "agrees": all(record.passed for record in group),
            }
        )
    return found
