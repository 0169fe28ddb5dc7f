"""How often the gate's test of times is wrong: replays of recorded pairs, with and without losses put in.

    python -m bench.gate.simulate --record reports/gate_quiet.json --minutes 10
    python -m bench.gate.simulate --record reports/gate_slow.json --minutes 12 --slow decoder/cython/exact
    python -m bench.gate.simulate reports/gate_quiet.json reports/gate_busy.json reports/gate_slow.json

The first times pairs of this tree and itself, as the gate does with the base commit, for as long as is said; once on a
quiet machine, once beside others. The second slows one kernel of the tree by 5 %. The third replays gates from what was
recorded, and writes what came out into reports/gate.md.

A replay takes its pairs from the recording in blocks of consecutive ones (moving-block bootstrap), so that spells of
the machine stay whole, and lets a coin swap the two sides of a pair, as it does when pairs are taken. A loss is put
into one row of the tree, by multiplying its times. The pairs of a recording, as they stand one after the other, are
real runs as well, on an unchanged tree or on one with a slower kernel, and are judged as such.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from allin1_core.files.writing import write_text
from bench.gate.base import ROOT, lay_out
from bench.gate.pairs import Decision, Times, judge_pairs, time_pair
from bench.gate.report import write_section
from bench.gate.sequential import ALPHA, BETA, LOOKS, LOSS, TOLERATED, slowdown
from parity.environment import machine_key
from parity.reports.publish import dump_json, now
from parity.reports.tables import markdown

UNCHANGED, LOSSES = 1000, 200
_SIZES = (1.03, 1.05, 1.10)
_BLOCK = 4  # pairs
# By row, the module and in it the function that runs the kernel.
_KERNELS = {
    "spectrogram/fused/exact": ("allin1_core/spectrogram/fused_backend.py", "log_bands"),
    "network/fused/exact": ("allin1_core/network/fused.py", "FusedNetwork.logits"),
    "decoder/cython/exact": ("allin1_core/dbn/viterbi.py", "viterbi"),
}
# Appended to a module: what takes its part of the kernel's own time more, on the clock of the thread.
_SLOWED = """

def _slowed(kernel):
    from time import thread_time_ns

    @functools.wraps(kernel)
    def run(*arguments, **keywords):
        start = thread_time_ns()
        output = kernel(*arguments, **keywords)
        end = thread_time_ns()
        while thread_time_ns() - end < {part} * (end - start):
            pass
        return output

    return run


{kernel} = _slowed({kernel})
"""


def slow_down(tree: Path, row: str, times: float = LOSS) -> None:
    """Let the kernel of a row take so many times as long, in a tree that was laid out."""
    module, kernel = _KERNELS[row]
    with (tree / module).open("a", encoding="utf-8") as file:
        file.write(_SLOWED.format(part=times - 1, kernel=kernel))


def record(path: Path, minutes: float, slow: str | None = None) -> None:
    """Add pairs of this tree, the kernel of one row slower if that is given, and itself, until the time is over."""
    tree, base = lay_out(None, ROOT / "build" / "simulate")
    recording = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"pairs": [], "load": []}
    if slow is not None:
        slow_down(tree, slow)
    if recording.setdefault("slow", slow) != slow:
        raise ValueError(f"{path}: made with --slow {recording['slow']}, not {slow}; expected another file")
    recording |= {"machine": machine_key(), "ended": now()}
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        recording["pairs"].append(time_pair(tree, base, len(recording["pairs"])))
        recording["load"].append(os.getloadavg()[0])
        recording["ended"] = now()
        write_text(path, dump_json(recording))


def slowdowns(pairs: Sequence[Times]) -> dict[str, np.ndarray]:
    """Of each row what `bench.gate.sequential` calls x, of every pair: float64 (pairs,)."""
    return {row: np.array([slowdown(*pair[row]) for pair in pairs]) for row in pairs[0]}


def replay(
    recorded: Mapping[str, np.ndarray], generator: np.random.Generator, slowed: Mapping[str, float]
) -> dict[str, Decision]:
    """One gate on pairs drawn from a recording; `slowed` has the factor by which rows are slower."""
    length = len(next(iter(recorded.values())))
    starts = generator.integers(length, size=-(-LOOKS[-1] // _BLOCK))
    drawn = (starts[:, None] + np.arange(_BLOCK)).ravel() % length
    swapped = generator.choice([-1, 1], size=drawn.size)

    def next_pair(number: int, wanted: Sequence[str]) -> dict[str, float]:
        return {
            row: float(recorded[row][drawn[number]] ** swapped[number]) * slowed.get(row, 1.0)
            for row in wanted or recorded
        }

    return judge_pairs(next_pair)


def real_runs(recorded: Mapping[str, np.ndarray]) -> list[dict[str, Decision]]:
    """The recording as it stands, cut into as many gates as it holds."""
    length, start = len(next(iter(recorded.values()))), 0
    runs: list[dict[str, Decision]] = []

    def next_pair(number: int, _: Sequence[str]) -> dict[str, float]:
        return {row: float(values[start + number]) for row, values in recorded.items()}

    while start + LOOKS[-1] <= length:
        runs.append(judge_pairs(next_pair))
        start += max(decision.pairs for decision in runs[-1].values())
    return runs


def _is_slower(run: Mapping[str, Decision]) -> bool:
    """Whether a gate called any row slower."""
    return any(decision.passed is False for decision in run.values())


def _outcomes(decisions: Sequence[Decision]) -> str:
    """How many were called slower, as fast, and left open."""
    passed = [decision.passed for decision in decisions]
    return " / ".join(str(passed.count(verdict)) for verdict in (False, True, None))


def simulate(path: Path) -> list[str]:
    """Lines on one recording, for the report."""
    recording = json.loads(path.read_text(encoding="utf-8"))
    recorded = slowdowns(recording["pairs"])
    load = np.percentile(recording["load"], [5, 50, 95])
    real = real_runs(recorded)
    lines = [
        f"### {path.stem}: {len(recording['pairs'])} pairs, load average {load[1]:.1f} ({load[0]:.1f}-{load[2]:.1f})",
        "",
        f"{recording['machine']}, {recording['ended']}. ",
    ]
    if recording.get("slow"):
        lines[-1] += _on_a_slower_tree(recording["slow"], recorded, real)
        return [*lines, ""]
    generator = np.random.default_rng(14)
    unchanged = [replay(recorded, generator, {}) for _ in tqdm(range(UNCHANGED), desc=path.stem, unit="gate")]
    alarms, real_alarms = (sum(map(_is_slower, runs)) for runs in (unchanged, real))
    pairs = np.percentile([max(row.pairs for row in run.values()) for run in unchanged], [50, 95])
    lines[-1] += (
        f"Unchanged trees: {alarms} of {UNCHANGED} replays had a row that was called slower, and {real_alarms} of "
        f"{len(real)} real runs (the recording in its own order). A gate took {pairs[0]:.0f} pairs (median; "
        f"{pairs[1]:.0f} in the longest twentieth)."
    )
    lines.append("")
    table = []
    for row, values in recorded.items():
        cells = {
            "row": row,
            "spread of a pair": f"{np.std(np.log(values)):.1%}",
            "unchanged: slower / as fast / open": _outcomes([run[row] for run in unchanged]),
        }
        for size in _SIZES:
            runs = [replay(recorded, generator, {row: size})[row] for _ in range(LOSSES)]
            cells[f"{size - 1:.0%} slower: found / passed / open"] = _outcomes(runs)
        table.append(cells)
    return [*lines, markdown(table, right={*table[0]} - {"row"}), ""]


def _on_a_slower_tree(
    slow: str, recorded: Mapping[str, np.ndarray], real: Sequence[Mapping[str, Decision]]
) -> str:
    """What real runs said of a tree in which the kernel of one row was slowed."""
    kernel = slow.rpartition("/")[0]  # serves every precision
    found = sum(run[slow].passed is False for run in real)
    others = sum(
        _is_slower({row: decision for row, decision in run.items() if not row.startswith(kernel)})
        for run in real
    )
    return (
        f"The kernel of {slow} takes {LOSS - 1:.0%} more time in the tree, which the pairs saw as "
        f"{np.median(recorded[slow]) - 1:.1%}: {found} of {len(real)} real runs called that row slower, and {others} "
        "one of another kernel."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate.simulate", description=__doc__)
    parser.add_argument("recordings", nargs="*", type=Path)
    parser.add_argument("--record", type=Path, help="add pairs to this recording")
    parser.add_argument("--minutes", type=float, default=10, help="for so long")
    parser.add_argument("--slow", choices=_KERNELS, help="with the kernel of this row slower in the tree")
    options = parser.parse_args(arguments)
    if options.record:
        try:
            record(options.record, options.minutes, options.slow)
        except ValueError as error:
            parser.error(str(error))
        return 0
    command = " ".join(["python -m bench.gate.simulate", *map(str, options.recordings)])
    lines = [
        f"At most {ALPHA:.2%} of the gates of unchanged trees may call a row slower, and at most {BETA:.0%} may pass "
        f"one that is {LOSS - 1:.0%} slower (bench/gate/sequential.py; {TOLERATED - 1:.0%} is tolerated). Replayed by "
        f"`{command}`, {UNCHANGED} unchanged trees and {LOSSES} losses of each size and row from each recording:",
        "",
    ]
    for path in options.recordings:
        lines += simulate(path)
    write_section("How sure the test of times is", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
