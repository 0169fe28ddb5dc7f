"""The network of every backend on seeded random weights against a naive float64 reference; needs no weights."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from allin1_core.network import Checkpoint, Configuration, NetworkOutput, build_model
from parity.agreement import compare, require_each
from parity.implementations import Implementation
from parity.inputs.networks import random_checkpoint, random_spectrogram
from parity.oracles import naive_network
from parity.reports.records import ParityRecorder
from parity.test_network import IMPLEMENTATIONS, bound, check, differences, large_bound

# Around the window of 5, of the double attention's 10, and of the padding that longer dilations need.
LENGTHS = (1, 2, 5, 9, 10, 11, 100, 1000)
# A chunk of the fused stem is 254 frames, a tile 64: lengths at which a vector, tile or chunk ends early.
SEAMS = (3, 4, 15, 16, 17, 63, 64, 65, 127, 129, 253, 254, 255, 256, 257, 507, 509, 760)
FEW_BLOCKS = Configuration(num_blocks=4)


@functools.cache
def expected(frames: int, num_blocks: int) -> dict[str, np.ndarray]:
    checkpoint = random_checkpoint(1, Configuration(num_blocks=num_blocks))
    return naive_network.run(checkpoint.parameters, random_spectrogram(frames))


def run(
    implementation: Implementation, checkpoints: list[Checkpoint], spectrogram: np.ndarray
) -> NetworkOutput:
    model = build_model(checkpoints, **dataclasses.asdict(implementation))
    return model(spectrogram, return_embeddings=True).to_numpy()


@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
def test_lengths(implementation: Implementation, frames: int, record_parity: ParityRecorder) -> None:
    reference = expected(frames, 11)
    found = run(implementation, [random_checkpoint(1)], random_spectrogram(frames))
    agreements = differences(found, reference, bound(implementation))
    # Of order 3, through 11 blocks.
    allowed = 2.5 * large_bound(implementation)
    agreements["embeddings"] = compare(found.embeddings, reference["embeddings"], allowed=allowed)
    check(record_parity, f"random weights, {frames} frames", naive_network.ORACLE, implementation, agreements)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
def test_features_near_0(implementation: Implementation, record_parity: ParityRecorder) -> None:
    """Their variance is a tenth of the epsilon that layer norm adds to it."""
    checkpoint = random_checkpoint(1, Configuration(num_blocks=2))
    scale = {"embeddings.norm.weight": np.float32(1e-3), "embeddings.norm.bias": np.float32(1e-3)}
    small = {name: value * scale.get(name, np.float32(1)) for name, value in checkpoint.parameters.items()}
    reference = naive_network.run(small, random_spectrogram(20))
    found = run(implementation, [dataclasses.replace(checkpoint, parameters=small)], random_spectrogram(20))
    agreements = differences(found, reference, bound(implementation))
    check(record_parity, "features near 0", naive_network.ORACLE, implementation, agreements)


@pytest.mark.parametrize("frames", SEAMS)
def test_fused_seams(frames: int) -> None:
    found = run(
        Implementation("fused", "exact"), [random_checkpoint(1, FEW_BLOCKS)], random_spectrogram(frames)
    )
    require_each(differences(found, expected(frames, 4)), frames)
