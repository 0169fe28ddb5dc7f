"""The network's Triton kernels compiled for a card that is not here: ``python -m parity.triton_targets 90 exact``.

Triton compiles for any card on any machine, and its compiler refuses much that its interpreter takes. It prints, as
JSON, what was compiled, in its order: ``name``, ``shared`` memory in bytes, and ``after`` how many calls it was.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from allin1_core.network import Configuration
from allin1_core.network.triton_model import TritonNetwork
from parity.inputs.networks import random_checkpoint


def compiled(capability: int, precision: str) -> list[dict[str, Any]]:
    """What a network of two blocks launches for a frame of a track, and then for batches and embeddings."""
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
    few = Configuration(num_blocks=2)
    network = TritonNetwork(
        [random_checkpoint(seed, few) for seed in range(2)], device="cpu", precision=precision, num_threads=1
    )
    network.logits(torch.zeros(1, 4, 1, 81), False)
    calls = 1
    network.logits(torch.zeros(3, 4, 977, 81), True)
    return list(found.values())


if __name__ == "__main__":
    print(json.dumps(compiled(int(sys.argv[1]), sys.argv[2])))
