"""The network of every backend on seeded random weights against a naive float64 reference; needs no weights."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from allin1_core.network import Checkpoint, Configuration, NetworkOutput, build_model
from parity.agreement import compare, require_each
from parity.implementations import cpu_device
from parity.inputs.networks import random_checkpoint, random_spectrogram
from parity.oracles import naive_network
from parity.reports.records import ParityRecorder
from parity.test_network import BACKENDS, check, differences

# Around the window of 5, of the double attention's 10, and of the padding that longer dilations need.
LENGTHS = (1, 2, 5, 9, 10, 11, 100, 1000)
# A chunk of the fused stem is 254 frames, a tile 64: lengths at which a vector, tile or chunk ends early.
SEAMS = (3, 4, 15, 16, 17, 63, 64, 65, 127, 129, 253, 254, 255, 256, 257, 507, 509, 760)
FEW_BLOCKS = Configuration(num_blocks=4)


@functools.cache
def expected(frames: int, num_blocks: int) -> dict[str, np.ndarray]:
    checkpoint = random_checkpoint(1, Configuration(num_blocks=num_blocks))
    return naive_network.run(checkpoint.parameters, random_spectrogram(frames))


def run(backend: str, checkpoints: list[Checkpoint], spectrogram: np.ndarray) -> NetworkOutput:
    device = cpu_device("network", backend)
    model = build_model(checkpoints, backend=backend, device=device)
    return model(spectrogram, return_embeddings=True).to_numpy()


@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths(backend: str, frames: int, record_parity: ParityRecorder) -> None:
    reference = expected(frames, 11)
    found = run(backend, [random_checkpoint(1)], random_spectrogram(frames))
    agreements = differences(found, reference)
    # Of order 3, through 11 blocks.
    agreements["embeddings"] = compare(found.embeddings, reference["embeddings"], allowed=5e-4)
    check(record_parity, f"random weights, {frames} frames", naive_network.ORACLE, backend, agreements)


@pytest.mark.parametrize("frames", SEAMS)
def test_fused_seams(frames: int) -> None:
    found = run("fused", [random_checkpoint(1, FEW_BLOCKS)], random_spectrogram(frames))
    require_each(differences(found, expected(frames, 4)), frames)
