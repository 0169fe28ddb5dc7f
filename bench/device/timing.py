"""Times of calls on a device, taken by turns: each call waits until the device is idle."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

# Rounds end when a case has taken this long and has been called this often.
_ENOUGH_SECONDS = 8.0
_FEWEST_ROUNDS = 3


@dataclasses.dataclass
class Times:
    """Times of a case.

    Attributes
    ----------
    first_seconds : float
        Of the first call, which compiles and plans.
    seconds : list of float
        Of the counted calls.
    memory_gb : float or None
        Peak on the device during the first call, beyond what was there before; None on a CPU.
    output : object
        What the first call returned.
    """

    first_seconds: float
    memory_gb: float | None
    output: Any
    seconds: list[float] = dataclasses.field(default_factory=list)

    @property
    def median(self) -> float:
        """In seconds."""
        return statistics.median(self.seconds)

    def as_row(self, name: str, reference: Times | None = None) -> dict[str, object]:
        """What a report shows; `ratio` says how many times as fast as the reference it is, by rounds."""
        pairs = zip(reference.seconds, self.seconds, strict=False) if reference else ()
        ratios = [theirs / ours for theirs, ours in pairs]
        return {
            "name": name,
            "seconds": self.median,
            "rounds": len(self.seconds),
            "first_seconds": self.first_seconds,
            **({"ratio": statistics.median(ratios)} if ratios else {}),
            **({} if self.memory_gb is None else {"memory_gb": self.memory_gb}),
        }


def synchronize(device: str) -> None:
    """Wait until a CUDA device is idle; nothing for a CPU."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def times_by_turns(
    cases: Mapping[str, Callable[[], Any]], device: str, rounds: int, warmup: int = 1
) -> dict[str, Times]:
    """Time the cases by turns: a first call of each, further ones that warm up, and `rounds` that count.

    A case of seconds has fewer rounds, but not less than three.
    """
    found = {name: _first(call, device) for name, call in cases.items()}
    for number in range(warmup + rounds):
        for name, call in cases.items():
            times = found[name]
            if len(times.seconds) >= _FEWEST_ROUNDS and sum(times.seconds) > _ENOUGH_SECONDS:
                continue
            start = time.perf_counter()
            call()
            synchronize(device)
            elapsed = time.perf_counter() - start
            if number >= warmup:
                times.seconds.append(elapsed)
    return found


def _first(call: Callable[[], Any], device: str) -> Times:
    on_cuda = device.startswith("cuda")
    before = 0
    if on_cuda:
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    start = time.perf_counter()
    output = call()
    synchronize(device)
    elapsed = time.perf_counter() - start
    memory = (torch.cuda.max_memory_allocated(device) - before) / 1e9 if on_cuda else None
    return Times(elapsed, memory, output)
