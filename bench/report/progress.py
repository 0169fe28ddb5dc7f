"""Says before a benchmark session how long it will take, and during it what is running and how long is left.

The estimate adds up what each benchmark took in the last session here (reports/bench.json), else in the one that the
baseline was taken from (bench/gate/baseline.json). A benchmark takes a fixed time (imports, reading audio, memory in
a fresh process) and a time for each round; the recorded number of rounds scales the second part.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_UNKNOWN_SECONDS = 15.0
_SHARE_OF_ROUNDS = 0.7  # measured over the suite: the part of a benchmark's time that grows with the rounds


class Durations:
    """How long each benchmark takes, from an earlier session.

    Parameters
    ----------
    seconds : mapping
        By the benchmark's pytest name.
    rounds : int
        Of that session.
    """

    def __init__(self, seconds: Mapping[str, float], rounds: int) -> None:
        self.seconds = dict(seconds)
        self.rounds = max(1, rounds)

    def of(self, name: str, rounds: int) -> float:
        """Seconds that the benchmark of this name will take; a flat guess if it has never run."""
        if name not in self.seconds:
            return _UNKNOWN_SECONDS
        share = 1 + _SHARE_OF_ROUNDS * (rounds / self.rounds - 1)
        return self.seconds[name] * max(0.1, share)

    def total(self, names: Sequence[str], rounds: int) -> float:
        """Seconds for all of them."""
        return sum(self.of(name, rounds) for name in names)


def read_durations(*paths: Path) -> Durations:
    """From the first of the files that is there and holds some; empty otherwise."""
    for path in paths:
        if path.exists():
            session = json.loads(path.read_text(encoding="utf-8")).get("session", {})
            if session.get("durations"):
                return Durations(session["durations"], session.get("rounds", 1))
    return Durations({}, 1)


def words(seconds: float) -> str:
    """``about 3 min 20 s``; seconds alone below two minutes."""
    if seconds < 120:
        return f"about {max(1, round(seconds)):d} s"
    minutes, rest = divmod(round(seconds, -1), 60)
    return f"about {minutes:.0f} min {rest:.0f} s"


class Progress:
    """Lines to print before and during a session.

    Parameters
    ----------
    names : sequence of str
        Of the benchmarks, in the order in which they will run.
    rounds : int
    durations : Durations
    """

    def __init__(self, names: Sequence[str], rounds: int, durations: Durations) -> None:
        self._expected = {name: durations.of(name, rounds) for name in names}
        self._known = sum(name in durations.seconds for name in names)
        self._done = 0
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def announcement(self) -> str:
        """What is going to happen, and how long it will take."""
        total = len(self._expected)
        text = f"{total} benchmarks, {words(sum(self._expected.values()))} on a quiet machine"
        unknown = total - self._known
        return text + (f" ({unknown} never ran before: {_UNKNOWN_SECONDS:.0f} s assumed)" if unknown else "")

    def line(self, name: str) -> str:
        """What starts now, and how long is left."""
        left = sum(seconds for other, seconds in self._expected.items() if other not in self.seconds)
        self._done += 1
        self._started = time.perf_counter()
        return f"[{self._done}/{len(self._expected)}] {name.rpartition('/')[2]}, {words(left)} left"

    def finished(self, name: str) -> None:
        """The benchmark that was announced last has ended."""
        self.seconds[name] = round(time.perf_counter() - self._started, 2)
