"""``python -m bench.device.kernels``: the network's Triton kernels compiled for this card, both precisions at a time.

Triton keeps them on disk. ``make device`` has them compiled while its C++ is, so that no part waits for it.
"""

from __future__ import annotations

import multiprocessing
import sys
import time

from allin1_core import backends
from allin1_core.network import Configuration, build_model
from parity.inputs.networks import random_checkpoint

# For both together, in seconds; what is not compiled by then is compiled when it is needed.
_LONGEST = 90.0


def compile_kernels(precision: str) -> None:
    """All kernels of a precision: two blocks have them all, whatever the number of folds and the length of a track."""
    few = Configuration(num_blocks=2)
    build_model([random_checkpoint(0, few)], backend="triton", device="cuda", precision=precision)


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=compile_kernels, args=(precision,), daemon=True)
        for precision in backends.PRECISIONS
    ]
    for process in processes:
        process.start()
    end = time.monotonic() + _LONGEST
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    sys.exit(any(process.exitcode != 0 for process in processes))
