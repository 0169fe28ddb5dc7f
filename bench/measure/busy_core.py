"""Runs the gate's speed rows again and again on an unchanged tree while another process keeps one core busy.

    python -m bench.measure.busy_core [--repetitions 20]

This measures how often the gate fails without cause. The result goes into bench/measure/busy_core.json, and from there
into reports/bench.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.gate.bars import Row, read_bars
from bench.gate.cases import Case
from bench.gate.judge import ratio_to_keep, short_case
from bench.gate.speed import SlowdownCheck
from parity.environment import machine_key
from parity.reports.publish import dump_json, now

RESULT = Path(__file__).with_name("busy_core.json")


_BACKENDS = (("spectrogram", "numpy"), ("spectrogram", "torch"), ("decoder", "cython"), ("network", "fused"))


def short_cases() -> list[Case]:
    """One case of each kind that the gate times against the baseline."""
    return [short_case(Row(stage, backend)) for stage, backend in _BACKENDS]


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Another process that does nothing but keep a core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def repeat(repetitions: int) -> dict[str, Any]:
    """Judge every row that often against what it measured on the quiet machine before.

    Returns
    -------
    dict
        ``passed``, ``failed`` and ``unclear`` repetitions (one counts as failed if any of its rows does), and the
        verdicts that were not a pass.
    """
    bars = read_bars()
    cases = short_cases()
    quiet = {case.key: ratio_to_keep(case, bars) for case in cases}
    counts = {"passed": 0, "failed": 0, "unclear": 0}
    others = []
    with busy_core():
        for _ in tqdm(range(repetitions), desc="repetitions", unit="run"):
            verdicts = [
                SlowdownCheck(
                    case, quiet[case.key], bars.max_slowdown, bars.slowdown_rounds
                ).measure_until_clear()
                for case in cases
            ]
            others += [str(verdict) for verdict in verdicts if verdict.passed is not True]
            results = {verdict.passed for verdict in verdicts}
            counts["failed" if False in results else "unclear" if None in results else "passed"] += 1
    return {
        "date": now(),
        "machine": machine_key(),
        "repetitions": repetitions,
        "rows": [case.key for case in cases],
        **counts,
        "not_passed": others,
    }


def sentence(path: Path = RESULT) -> str | None:
    """The result in words, for the report; None if it was never measured."""
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    return (
        f"The gate's {len(result['rows'])} speed rows, repeated {result['repetitions']} times on an unchanged tree "
        f"while another process kept one core busy: {result['passed']} passed, {result['failed']} failed, "
        f"{result['unclear']} too noisy to judge ({result['machine']}, {result['date']})."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m bench.measure.busy_core", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20)
    options = parser.parse_args(arguments)
    result = repeat(options.repetitions)
    RESULT.write_text(dump_json(result), encoding="utf-8")
    print(sentence())
    return 0 if result["passed"] == options.repetitions else 1


if __name__ == "__main__":
    sys.exit(main())
