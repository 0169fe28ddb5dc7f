"""Peak memory of a call, measured where nothing else runs: in a fresh process, above what was there before.

The child imports what the call needs, unpickles its arguments, makes an optional small warm-up call (so that
libraries loaded on first use count as loaded), sets the kernel's high-water mark of resident memory back, makes
the call, and reads the mark. So inputs are not counted, and results are.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.measure.load import pinned_threads

_ROOT = Path(__file__).resolve().parents[2]


def peak_memory_bytes(function: Callable[..., Any], *arguments: Any, **options: Any) -> int:
    """Peak memory alone of `peak_memory_and_seconds`, with its parameters."""
    return peak_memory_and_seconds(function, *arguments, **options)[0]


def peak_memory_and_seconds(
    function: Callable[..., Any],
    *arguments: Any,
    warmup: Sequence[Any] | None = None,
    threads: int | None = None,
    timeout: float = 600,
    **keywords: Any,
) -> tuple[int, float]:
    """Peak resident memory of ``function(*arguments, **keywords)`` in a fresh process.

    Parameters
    ----------
    function : callable
        At the top level of a module that can be imported: it is handed over by name.
    *arguments, **keywords
        Anything that can be pickled.
    warmup : sequence, optional
        Positional arguments of a small call that is made, with the same keywords, before the measured one.
    threads : int, optional
        Threads that BLAS, OpenMP, torch and the kernels of ours may use in the child.
    timeout : float
        Seconds.

    Returns
    -------
    int, float
        Bytes above the interpreter with its libraries and the arguments loaded; seconds that the call took.

    Raises
    ------
    ValueError
        If the function cannot be handed over by name.
    RuntimeError
        If the call failed in the child; carries the child's last lines.
    """
    if function.__module__ == "__main__" or "<locals>" in function.__qualname__:
        raise ValueError(
            f"function: {function.__qualname__} in {function.__module__} cannot be imported by another process; "
            "expected a function at the top level of a module"
        )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(_ROOT), *filter(None, sys.path)]))
    if threads is not None:
        environment.update(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads))
    with tempfile.TemporaryDirectory() as folder:
        request, answer = Path(folder, "request"), Path(folder, "answer")
        with request.open("wb") as file:
            pickle.dump((threads, function, arguments, keywords, warmup), file, protocol=5)
        child = subprocess.run(
            [sys.executable, "-m", "bench.measure.memory", str(request), str(answer)],
            env=environment,
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if child.returncode != 0:
            raise RuntimeError(
                f"{function.__module__}:{function.__qualname__} failed in the child (status {child.returncode}): "
                + child.stderr.strip()[-2000:]
            )
        peak, seconds = answer.read_text().split()
        return int(peak), float(seconds)


def _peak() -> int:
    """High-water mark of resident memory in bytes."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _measure(request: Path) -> tuple[int, float]:
    with request.open("rb") as file:
        threads, function, arguments, keywords, warmup = pickle.load(file)
    with pinned_threads(threads) if threads is not None else contextlib.nullcontext():
        if warmup is not None:
            function(*warmup, **keywords)
        # Sets the kernel's mark to what is resident now; elsewhere (macOS) it is what imports and warm-up reached.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        before = _peak()
        start = time.perf_counter()
        output = function(*arguments, **keywords)
        elapsed = time.perf_counter() - start
        after = _peak()
    del output
    return max(0, after - before), elapsed


if __name__ == "__main__":
    Path(sys.argv[2]).write_text("{} {}".format(*_measure(Path(sys.argv[1]))))
