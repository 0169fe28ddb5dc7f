"""Calls of the compiled and the numpy backends of the allin1_core in a folder, timed in a process of their own.

The gate compares two trees by them: a process of each answers by turns (`Tree`). Instructions are counted over one of
them (`bench.measure.instructions`). Inputs are seeded, and made by the folder's own ``parity``; their digests tell
whether two trees have the same. This file is run as a script, by its path, so that nothing of this tree is imported
beside the other's.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_CALLS = 5

# With its inputs as arguments.
Call = functools.partial[Any]


def _spectrogram(backend: str, precision: str, seconds: int) -> Call:
    from allin1_core.spectrogram import select

    compute = select(backend, precision=precision)
    stems = np.random.default_rng(0).integers(-20000, 20000, (4, seconds * 44100), dtype=np.int16)
    return functools.partial(compute, stems, 44100)


def _network() -> Call:
    from allin1_core.network import build_model
    from parity.inputs.networks import random_checkpoint, random_spectrogram

    network = build_model([random_checkpoint(0)], backend="fused", device="cpu", num_threads=1)
    frames = random_spectrogram(200)
    return functools.partial(network, frames)


def _decoder() -> Call:
    from allin1_core.dbn import DBNDownBeatTrackingProcessor
    from parity.inputs.activations import steady

    decode = DBNDownBeatTrackingProcessor(beats_per_bar=[3, 4], threshold=0.24, fps=100, num_threads=1)
    return functools.partial(decode, steady(15))


def _online() -> Call:
    from allin1_core.dbn import DBNBeatTrackingProcessor
    from parity.inputs.activations import steady

    track = DBNBeatTrackingProcessor(fps=100, online=True)
    return functools.partial(track, steady(5).sum(axis=1))


def _structure() -> Call:
    from allin1_core.structure import LOCAL_MAXIMA_WINDOW, pick_boundaries, sections
    from allin1_core.structure.numpy_backend import local_maxima

    generator = np.random.default_rng(0)
    probability = generator.random(19551, dtype=np.float32)
    labels = generator.random((10, probability.size), dtype=np.float32)

    def run(probability: np.ndarray, labels: np.ndarray) -> Any:
        return sections(pick_boundaries(local_maxima(probability, LOCAL_MAXIMA_WINDOW)), labels)

    return functools.partial(run, probability, labels)


# What is timed: by name, what makes its inputs and returns the call; a call takes some milliseconds on one thread.
ROWS: dict[str, Callable[[], Call]] = {
    "spectrogram/fused/exact": lambda: _spectrogram("fused", "exact", 4),
    "spectrogram/fused/fast": lambda: _spectrogram("fused", "fast", 4),
    "spectrogram/numpy/exact": lambda: _spectrogram("numpy", "exact", 1),
    "network/fused/exact": _network,
    "decoder/cython/exact": _decoder,
    "structure/numpy/exact": _structure,
}
# Of what is not timed the instructions are counted.
COUNTED = {**ROWS, "decoder/cython/online": _online}


def _digest(call: Call) -> str:
    """Of a call's inputs."""
    return hashlib.sha256(b"".join(np.asarray(one).tobytes() for one in call.args)).hexdigest()


def environment(folder: Path) -> Mapping[str, str]:
    """Of a process with the allin1_core and the parity of a folder: one thread, and freed memory kept (glibc)."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    kept = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**30))
    return {**os.environ, **one, **kept, "PYTHONPATH": str(folder), "PYTHONHASHSEED": "0"}


class Tree:
    """A process that makes the calls of a folder's allin1_core when it is asked to; a context manager.

    Parameters
    ----------
    folder : Path
        Holds ``allin1_core``, built, and ``parity``.

    Raises
    ------
    RuntimeError
        By any method, if the process ended; its standard error, which is that of this process, says why.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()

    def rows(self) -> dict[str, str]:
        """Digests of the inputs of the calls, by their names; each was made once. To be asked first, and once."""
        names, digests = self._answer().split(), self._answer().split()
        return dict(zip(names, digests, strict=True))

    def seconds(self, row: str) -> float:
        """CPU seconds of a call: the mean of a few, since the first finds the caches as the other process left them."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{row}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._folder}: its process ended with {self._process.wait()}")
        return line


def main(arguments: list[str]) -> None:
    """With the name of a call: make it, once. Without: answer what is asked on standard input."""
    import allin1_core
    from allin1_core.threads import limited_cores

    expected, found = Path(os.environ["PYTHONPATH"], "allin1_core"), Path(allin1_core.__file__).parent
    if found.resolve() != expected.resolve():
        raise RuntimeError(f"{found} was imported; expected {expected}")
    with limited_cores(1):
        if arguments:
            COUNTED[arguments[0]]()()
            return
        made = {row: make() for row, make in ROWS.items()}
        for call in made.values():
            call()
        gc.collect()
        gc.freeze()
        gc.disable()
        print(*made)
        print(*map(_digest, made.values()), flush=True)
        for line in sys.stdin:
            call = made[line.strip()]
            start = time.process_time_ns()
            for _ in range(_CALLS):
                call()
            print((time.process_time_ns() - start) / _CALLS / 1e9, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
