"""``python -m bench.device.kernels``: the network's Triton kernels compiled for this card, both precisions at a time.

Triton keeps them on disk. ``make device`` has them compiled while its C++ is, so that no part waits for it.
"""

from __future__ import annotations

import multiprocessing

from allin1_core import backends
from allin1_core.network import Configuration, build_model
from parity.inputs.networks import random_checkpoint


def compile_kernels(precision: str) -> None:
    """All kernels of a precision: two blocks have them all, whatever the number of folds and the length of a track."""
    few = Configuration(num_blocks=2)
    build_model([random_checkpoint(0, few)], backend="triton", device="cuda", precision=precision)


if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(len(backends.PRECISIONS)) as pool:
        pool.map(compile_kernels, backends.PRECISIONS)
