"""Our Triton kernels compiled for a card that is not here: ``python -m parity.triton_targets 90 exact``.

These are the network's; with ``separation`` in place of the precision, those of Demucs' networks. Triton compiles for
any card on any machine, and its compiler refuses much that its interpreter takes. It prints, as JSON, what was
compiled, in its order: ``name``, ``shared`` memory in bytes, and ``after`` how many calls it was.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from allin1_core.network import Configuration
from allin1_core.network.triton_model import TritonNetwork
from parity.inputs.networks import random_checkpoint


def compiled(capability: int, run: Callable[[], Iterator[None]]) -> list[dict[str, Any]]:
    """What is launched in the calls between which `run` yields."""
    found: dict[str, dict[str, Any]] = {}
    launch, calls = JITFunction.run, 0

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **keywords: Any) -> None:
        kernel = launch(self, *arguments, grid=grid, warmup=True, **keywords)
        entry = {"name": kernel.metadata.name, "shared": kernel.metadata.shared, "after": calls}
        found.setdefault(kernel.hash, entry)

    JITFunction.run = compile_only
    driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", capability, 32),
            get_current_device=lambda: 0,
            get_current_stream=lambda device=None: 0,
        )
    )
    for _ in run():
        calls += 1
    return list(found.values())


def network(precision: str) -> Iterator[None]:
    """A network of two blocks on a frame of a track, and then on batches with embeddings."""
    few = Configuration(num_blocks=2)
    network = TritonNetwork(
        [random_checkpoint(seed, few) for seed in range(2)], device="cpu", precision=precision, num_threads=1
    )
    network.logits(torch.zeros(1, 4, 1, 81), False)
    yield
    network.logits(torch.zeros(3, 4, 977, 81), True)


def separation() -> Iterator[None]:
    """Networks of few channels whose lengths are multiples of 16, and are not."""
    from demucs_infer.htdemucs import HTDemucs

    from allin1_core.separation.triton_network import with_triton

    for samples in (2**14, 5000):
        options = {"channels": 8, "bottom_channels": 64, "t_layers": 2, "t_heads": 1, "nfft": 1024}
        demucs = HTDemucs(["drums", "bass"], segment=Fraction(samples, 44100), **options).eval()
        with torch.inference_mode():
            with_triton(demucs)(torch.zeros(1, 2, samples))
        yield


if __name__ == "__main__":
    what = sys.argv[2]
    run = separation if what == "separation" else functools.partial(network, what)
    print(json.dumps(compiled(int(sys.argv[1]), run)))
