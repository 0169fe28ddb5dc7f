"""``make device``: parity and times on a GPU -> reports/device-CARD.md and .json, judged by the gate's bars.

    python -m bench.device [--device cuda] [--reports reports] [--limit SECONDS] [--commit HASH] [--brief]

Each part runs in a process of its own with a time limit, so that one that fails does not cost the others; what it had
measured by then is kept, also if the whole is interrupted or ended (SIGTERM). It needs no network and no madmom. It
exits 0 if all parts ran, all tests passed and all bars held, 1 if not, and 2 without such a device. With
``--device cpu --brief`` everything is run on small inputs, and proves that it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
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
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allin1_core.backends.table import installed_version
from allin1_core.files.writing import write_text
from parity.environment import describe_machine, source_digest
from parity.reports.history import commit
from parity.reports.publish import dump_json, now, publish, scratch_folder

if TYPE_CHECKING:
    from bench.gate.speed import Verdict

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
_INTERRUPTED = "interrupted"
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
            except KeyboardInterrupt:
                error = _INTERRUPTED
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
                with contextlib.suppress(subprocess.TimeoutExpired):  # one that a driver holds does not end
                    process.wait(_TOO_LITTLE)
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
    """Name of a device, of a part of a card that part's, and version of its driver.

    Raises
    ------
    RuntimeError
        If torch does not see it.
    """
    if device == "cpu":
        return "CPU", "none"
    script = "import sys, torch; print(torch.cuda.get_device_name(sys.argv[1]))"
    asked = subprocess.run(
        [sys.executable, "-c", script, device], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        raise RuntimeError(
            f"device {device!r}: {_last_line(asked.stderr, asked.returncode)}; run it with a Python whose torch sees "
            "an NVIDIA card (PYTHON=...), or with --device cpu --brief to see that it runs"
        )
    driver = "unknown"
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        driver = output.partition("\n")[0].strip() or driver
    return asked.stdout.strip(), driver


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
    import bench.device.report  # noqa: F401  what it needs and is missing is said before anything is measured
    from bench.gate.bars import read_bars
    from bench.gate.device import baseline, judge_device

    name = "device-" + re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
    before = baseline(options.reports / f"{name}.json")
    judge = functools.partial(judge_device, before=before, bars=read_bars().device, brief=options.brief)
    parts = {
        part: {"rows": [], "error": "not begun", "seconds": 0.0} for part in options.part or tuple(_PARTS)
    }
    content = {
        "card": card,
        "driver": driver,
        "created": now(),
        "commit": options.commit or commit()[0],
        "source": source_digest(),
        "machine": describe_machine(),
        "versions": {one: version for one in _VERSIONS if (version := installed_version(one))},
        "parts": parts,
    }
    figures: dict[str, str] = {}
    for part in parts:
        print(f"device: {part} ...", file=sys.stderr, flush=True)
        left = options.limit - (time.perf_counter() - start)
        if left < _TOO_LITTLE:
            parts[part] = {**parts[part], "error": f"not begun: the {options.limit:.0f} s were over"}
        else:
            try:
                parts[part] = run_part(part, options.device, options.brief, min(_LIMITS[part], left))
            except OSError as error:  # no room for what it writes
                parts[part] = {**parts[part], "error": f"not begun: {error}"}
        print(
            f"device: {part} took {parts[part]['seconds']:.0f} s{' and failed' * bool(parts[part]['error'])}",
            file=sys.stderr,
            flush=True,
        )
        content["seconds"] = time.perf_counter() - start
        # After each part: what was measured is kept if a machine is taken back before the last one.
        failed = _report(content, part, figures, options.reports / name, judge)
        if parts[part]["error"] == _INTERRUPTED:
            break
    print(f"device report: {options.reports / name}.md (and {name}.json)")
    for line in failed:
        print(f"device: FAILED {line}", file=sys.stderr)
    return 1 if failed else 0


def _report(
    content: dict[str, Any],
    part: str,
    figures: dict[str, str],
    place: Path,
    judge: Callable[[Any], Sequence[Verdict]],
) -> list[str]:
    """Judge what there is, and write the report, to which a part has come; what failed.

    Whatever is wrong with a figure or a page is the part's error: the others are still to be measured.
    """
    from bench.device.report import draw, render

    result = content["parts"][part]
    content["gate"] = []
    try:
        with scratch_folder(place.parent) as scratch:
            try:
                figures |= draw({"parts": {part: result}}, place.name, scratch)
            except Exception as error:
                traceback.print_exc()
                result["error"] = result["error"] or f"no figure: {type(error).__name__}: {error}"
            verdicts = judge(content["parts"])
            content["gate"] = [dataclasses.asdict(verdict) for verdict in verdicts]
            publish(scratch, place.parent, place.name, render(content, figures), content)
        return [str(verdict) for verdict in verdicts if verdict.passed is False]
    except Exception as error:
        traceback.print_exc()
        result["error"] = result["error"] or f"no report: {type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            write_text(place.with_suffix(".json"), dump_json(content))
        return [f"{name}: {one['error']}" for name, one in content["parts"].items() if one["error"]]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
