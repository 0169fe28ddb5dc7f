"""``make device``: parity and times on a GPU -> reports/device-CARD.md and .json, judged by the gate's bars.

    python -m bench.device [--device cuda] [--reports reports] [--limit SECONDS] [--commit HASH] [--brief]

Each part runs in a process of its own with a time limit, so that one that fails does not cost the others; what it had
measured by then is kept. It needs no network and no madmom. It exits 0 if all parts ran, all tests passed and all bars
held, 1 if not, and 2 without such a device. With ``--device cpu --brief`` everything is run on small inputs, and proves
that it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from allin1_core.backends.table import installed_version
from allin1_core.files.writing import write_text
from parity.environment import describe_machine, source_digest
from parity.reports.history import commit
from parity.reports.publish import dump_json, now, publish, scratch_folder

_ROOT = Path(__file__).resolve().parents[2]
_VERSIONS = ("torch", "triton", "numpy", "scipy", "demucs-infer")
# In this order, should a machine be taken back early: what users wait for longest, and what only a device can tell,
# first; tests, which as a rule only confirm, last.
_PARTS = {
    "spectrogram": "bench.device.spectrogram:rows",
    "separation": "bench.device.separation:rows",
    "mix": "bench.device.pipeline:rows_of_mix",
    "stems": "bench.device.pipeline:rows",
    "library": "bench.device.library:rows",
    "network": "bench.device.network:rows",
    "parity": "bench.device.parity:rows",
}
# The longest that each part may take, in seconds: about twice what it takes on one of this year's cards.
_LIMITS = {
    "spectrogram": 40,
    "separation": 80,
    "mix": 60,
    "stems": 50,
    "library": 60,
    "network": 80,
    "parity": 100,
}
# Less than it takes to begin a part, in seconds.
_TOO_LITTLE = 5.0
# Of a part's time what is left to its tests' beginning and end.
_AROUND_TESTS = 15.0
# Rounds of what takes seconds.
_FULL: dict[str, dict[str, Any]] = {"separation": {"rounds": 2}, "mix": {"rounds": 3}}
_BRIEF: dict[str, dict[str, Any]] = {
    "parity": {"select": "2049 and int16 and (fused-exact or (torch and in_torch-exact))"},
    "spectrogram": {"seconds": 3.0, "rounds": 1},
    "network": {"seconds": 1.0, "rounds": 1, "batches": (2,), "hour": 2.0, "num_folds": 2},
    "separation": {"seconds": 2.0, "rounds": 1},
    "stems": {"seconds": 3.0, "rounds": 1},
    "mix": {"seconds": 2.0, "rounds": 1},
    "library": {"seconds": 2.0, "songs": 4, "alone": 2, "more": 6},
}


def rows_of(part: str, device: str, brief: bool, limit: float) -> Iterator[dict[str, object]]:
    """Measure a part in this process, which has so many seconds; each row when it is measured."""
    keywords: dict[str, Any] = {"device": device, **(_BRIEF if brief else _FULL).get(part, {})}
    if part == "parity":
        keywords["seconds"] = limit - _AROUND_TESTS
    if brief and part in ("separation", "mix"):
        from parity.inputs.separation import SMALL

        keywords["shape"] = SMALL
    module, _, function = _PARTS[part].partition(":")
    yield from getattr(importlib.import_module(module), function)(**keywords)


def run_part(part: str, device: str, brief: bool, limit: float) -> dict[str, Any]:
    """Rows of a part, measured in a process of its own; if it fails or takes too long, those it had, and why."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        path, log = Path(name, "rows.json"), Path(name, "output.txt")
        command = [sys.executable, "-m", "bench.device", "--part", part, "--device", device]
        command += ["--into", str(path), "--limit", str(limit)]
        # Into a file: who reads a pipe waits for all that have it open, and so for a process that was left behind.
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *["--brief"] * brief],
                cwd=_ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # On a CPU threads that wait sleep: a dry run is short work on a busy machine.
                env={**os.environ, "OMP_WAIT_POLICY": "passive"} if device == "cpu" else None,
            )
            error = ""
            try:
                process.wait(timeout=max(limit, 1.0))
            except subprocess.TimeoutExpired:
                error = f"not done within {limit:.0f} s"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
                process.wait()
        text = log.read_text(encoding="utf-8", errors="replace")
        if process.returncode and not error:
            error = _last_line(text, process.returncode)
        rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    if error or part == "parity":
        print(text[-6000:], file=sys.stderr, flush=True)
    return {"rows": rows, "error": error, "seconds": time.perf_counter() - start}


def _last_line(output: str, status: int) -> str:
    lines = output.strip().splitlines()
    return f"{lines[-1].strip()[:500]} (exit status {status})" if lines else f"exit status {status}"


def card_of(device: str) -> tuple[str, str]:
    """Name of a device and version of its driver.

    Raises
    ------
    RuntimeError
        If it is not here.
    """
    if device == "cpu":
        return "CPU", "none"
    # Without torch, which takes seconds to import; of several cards `cuda:N` names one.
    number = int(device.partition(":")[2] or 0)
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    cards: list[str] = []
    if device.startswith("cuda") and shutil.which(command[0]):
        cards = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    if number >= len(cards):
        raise RuntimeError(
            f"device {device!r}: nvidia-smi shows no such GPU; run it on a machine with an NVIDIA card, or with "
            "--device cpu --brief to see that it runs"
        )
    name, _, driver = cards[number].rpartition(",")
    return name.strip(), driver.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    start = time.perf_counter()
    parser = argparse.ArgumentParser(prog="python -m bench.device", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--reports", type=Path, default=_ROOT / "reports", help="folder of the report")
    parser.add_argument("--limit", type=float, default=330.0, help="seconds for all parts together")
    parser.add_argument("--commit", help="of this tree, where it is no checkout")
    parser.add_argument("--brief", action="store_true", help="small inputs: to see that everything runs")
    parser.add_argument("--part", choices=_PARTS, action="append", help="measure this alone (repeatable)")
    parser.add_argument(
        "--into", type=Path, help="write the rows of the one part to this file, and no report"
    )
    options = parser.parse_args(arguments)
    if options.into:
        rows: list[dict[str, object]] = []
        for row in rows_of(options.part[0], options.device, options.brief, options.limit):
            rows.append(row)
            write_text(options.into, dump_json(rows))
        return 0
    try:
        card, driver = card_of(options.device)
    except RuntimeError as error:
        print(f"device: {error}", file=sys.stderr)
        return 2
    # Here, as it takes as long to import as some parts to measure.
    from bench.device.report import draw, render
    from bench.gate.bars import read_bars
    from bench.gate.device import baseline, judge_device

    name = "device-" + re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
    before = baseline(options.reports / f"{name}.json")
    parts = {
        part: {"rows": [], "error": "not begun", "seconds": 0.0} for part in options.part or tuple(_PARTS)
    }
    figures: dict[str, str] = {}
    for part in parts:
        print(f"device: {part} ...", file=sys.stderr, flush=True)
        left = options.limit - (time.perf_counter() - start)
        if left < _TOO_LITTLE:
            parts[part] = {**parts[part], "error": f"not begun: the {options.limit:.0f} s were over"}
        else:
            parts[part] = run_part(part, options.device, options.brief, min(_LIMITS[part], left))
        print(f"device: {part} took {parts[part]['seconds']:.0f} s", file=sys.stderr, flush=True)
        verdicts = judge_device(parts, before, read_bars().device, brief=options.brief)
        content = {
            "card": card,
            "driver": driver,
            "created": now(),
            "commit": options.commit or commit()[0],
            "source": source_digest(),
            "machine": describe_machine(),
            "versions": {one: version for one in _VERSIONS if (version := installed_version(one))},
            "seconds": time.perf_counter() - start,
            "parts": parts,
            "gate": [dataclasses.asdict(verdict) for verdict in verdicts],
        }
        # After each part: what was measured is kept if a machine is taken back before the last one.
        with scratch_folder(options.reports) as scratch:
            figures |= draw({"parts": {part: parts[part]}}, name, scratch)
            text = render(content, figures)
            path = publish(scratch, options.reports, name, text, content)
    print(f"device report: {path} (and {path.with_suffix('.json').name})")
    failed = [verdict for verdict in verdicts if verdict.passed is False]
    for verdict in failed:
        print(f"device: FAILED {verdict}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
