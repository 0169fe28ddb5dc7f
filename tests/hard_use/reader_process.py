"""Reads hostile files one after the other in a process of its own, where a crash, a hang or greed can be seen.

The process may take `MEMORY` bytes of address space more than its libraries need. It writes a line of JSON for each
file: how reading ended, how long it took, and the peak of resident memory above what was there before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from allin1_core.errors import Allin1Error, printable

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 512 << 20
# A file may take 400 times as long as hashing 16 MiB does in the same process; the slowest takes eighty times.
MOST_HASHINGS = 400


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the reading of one file ended.

    Attributes
    ----------
    path : str
    ended : str
        ``read``, ``refused`` (an `Allin1Error`), or the name of another exception.
    message : str
    seconds : float
        CPU seconds.
    peak_bytes : int
        Of resident memory, above what the process held before this file.
    hashing_seconds : float
        What SHA-256 of 16 MiB took in the same process.
    """

    path: str
    ended: str
    message: str
    seconds: float
    peak_bytes: int
    hashing_seconds: float

    def fault(self, memory: int) -> str:
        """What is wrong with how it ended; empty if nothing is."""
        if self.ended not in ("read", "refused"):
            return f"{self.path!r}: {self.ended}: {self.message}"
        if self.ended == "refused" and printable(self.path) not in self.message:
            return f"{self.path!r}: the message does not name the file: {self.message}"
        if self.ended == "refused" and not self.message.isprintable():
            return f"{self.path!r}: the message breaks its line: {self.message!r}"
        if self.seconds > MOST_HASHINGS * self.hashing_seconds:
            return f"{self.path!r}: took {self.seconds:.1f} s, SHA-256 of 16 MiB {self.hashing_seconds:.3f} s"
        if self.peak_bytes > memory:
            return f"{self.path!r}: took {self.peak_bytes >> 20} MB"
        return ""


def read_hostile_files(
    reader: str,
    paths: Iterable[Path],
    *,
    warmup: Iterable[Path] = (),
    memory: int = MEMORY,
    timeout: float = 300,
    **keywords: Any,
) -> list[Reading]:
    """Read files in a child process.

    Parameters
    ----------
    reader : str
        ``module:function``, called with each path and the keywords.
    warmup : iterable of Path
        Read before the limit is set, so that libraries loaded on first use do not count: one file of each kind.
    memory : int
        Bytes that the process may take beyond its libraries.
    timeout : float
        Seconds for all of them.

    Returns
    -------
    list of Reading
        A file that killed the process, or did not end, is the last and says so.
    """
    names = [str(path) for path in paths]
    request = {"reader": reader, "paths": names, "memory": memory, "keywords": keywords}
    request["warmup"] = [str(path) for path in warmup]
    child = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
        text=True,
    )
    try:
        output, errors = child.communicate(json.dumps(request), timeout=timeout)
    except subprocess.TimeoutExpired:
        child.kill()
        output, errors = child.communicate()
        errors = "hung: " + errors
    readings = [Reading(**json.loads(line)) for line in output.splitlines() if line.startswith("{")]
    if len(readings) < len(names):
        where = names[len(readings)]
        readings.append(Reading(where, f"process ended with {child.returncode}", errors[-2000:], 0.0, 0, 0.0))
    return readings


def faults(readings: Sequence[Reading], *, memory: int = MEMORY) -> list[str]:
    """What is wrong with how they ended."""
    return [fault for reading in readings if (fault := reading.fault(memory))]


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("/proc/self/status: no VmHWM")


def _hashing_seconds() -> float:
    seconds = []
    for _ in range(3):
        start = time.process_time()
        hashlib.sha256(bytes(16 << 20)).digest()
        seconds.append(time.process_time() - start)
    return min(seconds)


def _read(
    read: Callable[..., Any], path: str, keywords: dict[str, Any], hashing_seconds: float = 0.0
) -> Reading:
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _peak(), time.process_time()
    ended, message = "read", ""
    try:
        read(Path(path), **keywords)
    except Allin1Error as error:
        ended, message = "refused", str(error)
    except Exception as error:  # whatever it is, the test reports it by its name
        ended, message = type(error).__name__, str(error)
    seconds = time.process_time() - start
    return Reading(path, ended, message, seconds, _peak() - before, hashing_seconds)


def main() -> None:
    import resource

    request = json.load(sys.stdin)
    module, _, function = request["reader"].partition(":")
    read = getattr(importlib.import_module(module), function)
    for path in request["warmup"]:
        _read(read, path, request["keywords"])
    hashing = _hashing_seconds()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + request["memory"],) * 2)
    for path in request["paths"]:
        print(json.dumps(dataclasses.asdict(_read(read, path, request["keywords"], hashing))), flush=True)


if __name__ == "__main__":
    main()
