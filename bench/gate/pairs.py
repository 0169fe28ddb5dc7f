"""Times of the tree beside the base commit, pair by pair; `bench.gate.sequential` says how sure a verdict is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.gate.sequential import LOOKS, LOSS, decide, slowdown
from bench.gate.speed import Verdict
from bench.measure.tree import Tree

# Of a pair. More would not help: two processes differ by more than the rounds within them.
ROUNDS = 11

# Of each row the seconds of every round: of the tree, and of the base.
Times = dict[str, tuple[list[float], list[float]]]


@dataclasses.dataclass(frozen=True)
class Decision:
    """On one row: ends of the interval of how many times slower, whether it is as fast, after how many pairs."""

    low: float
    high: float
    passed: bool | None
    pairs: int


def time_pair(tree: Path, base: Path, number: int, wanted: Sequence[str] = ()) -> Times:
    """Fresh processes of both trees, which make all calls by turns.

    Parameters
    ----------
    tree, base : Path
    number : int
        Of the pair; seeds the coin for who begins.
    wanted : sequence of str, optional
        Rows; by default those that both trees have.

    Raises
    ------
    RuntimeError
        If a row has other inputs in one tree than in the other, or a process ended.
    """
    tree_first = bool(np.random.default_rng([14, number]).integers(2))
    folders = [tree, base] if tree_first else [base, tree]
    with Tree(folders[0]) as one, Tree(folders[1]) as other:
        inputs = one.rows(), other.rows()
        common = [row for row in inputs[0] if row in inputs[1]]
        if changed := [row for row in common if inputs[0][row] != inputs[1][row]]:
            raise RuntimeError(
                f"{', '.join(changed)}: other inputs than the base's; name a base with BASE=commit"
            )
        times: Times = {row: ([], []) for row in wanted or common}
        for _ in range(ROUNDS):
            for row, sides in times.items():
                for process, side in zip((one, other), sides if tree_first else sides[::-1], strict=True):
                    side.append(process.seconds(row))
    return times


def judge_pairs(next_pair: Callable[[int, Sequence[str]], Mapping[str, float]]) -> dict[str, Decision]:
    """Take pairs until every row is clear, or the last look is over.

    Parameters
    ----------
    next_pair : callable
        Given the number of the pair and the rows that are wanted (none: all), gives how many times slower each was.
    """
    seen = {row: [value] for row, value in next_pair(0, ()).items()}
    decisions: dict[str, Decision] = {}
    for number in range(1, LOOKS[-1] + 1):
        if number in LOOKS:
            for row, values in seen.items():
                if len(values) == number:
                    decisions[row] = Decision(*decide(values, len(seen)), number)
        wanted = [row for row in seen if row not in decisions or decisions[row].passed is None]
        if not wanted or number == LOOKS[-1]:
            break
        for row, value in next_pair(number, wanted).items():
            seen[row].append(value)
    return decisions


def check_times(tree: Path, base: Path, say: Callable[[str], None]) -> list[Verdict]:
    """Whether each row is as fast as in the base commit."""

    def next_pair(number: int, wanted: Sequence[str]) -> dict[str, float]:
        if number in (0, *LOOKS):
            say(f"timing beside the base commit: pair {number + 1}, {len(wanted) or 'all'} rows")
        return {row: slowdown(*sides) for row, sides in time_pair(tree, base, number, wanted).items()}

    return [
        Verdict(
            row,
            "time beside the base",
            f"{decision.low:.3f}-{decision.high:.3f}x in {decision.pairs} pairs"
            + (": cannot tell" if decision.passed is None else ""),
            f"not slower; a loss of {LOSS - 1:.0%} is found",
            decision.passed,
            required=False,
        )
        for row, decision in judge_pairs(next_pair).items()
    ]
