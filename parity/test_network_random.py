"""The network of every backend on seeded random weights against a naive float64 reference; needs no weights."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from allin1_core.network import Checkpoint, Configuration, NetworkOutput, _fused, build_model
from allin1_core.network.fused import FusedNetwork
from parity.agreement import compare, compare_each, require_each
from parity.implementations import cpu_device
from parity.inputs.networks import random_checkpoint, random_spectrogram
from parity.oracles import naive_network
from parity.oracles.network_golden import OUTPUTS
from parity.reports.records import ParityRecorder
from parity.test_network import BACKENDS, BOUND, check, differences

# Around the window of 5, of the double attention's 10, and of the padding that longer dilations need.
LENGTHS = (1, 2, 5, 9, 10, 11, 100, 1000)
# A chunk of the fused kernels is 248 frames, a tile 64: lengths at which a vector, tile or chunk ends early.
SEAMS = (3, 4, 15, 16, 17, 63, 64, 65, 244, 247, 248, 249, 252, 253, 495, 497, 760)
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


@pytest.mark.parametrize("instructions", _fused.instruction_sets())
def test_fused_instruction_sets(instructions: str) -> None:
    """Every version of the kernels that this machine can run."""
    network = FusedNetwork(
        [random_checkpoint(1, FEW_BLOCKS)],
        device="cpu",
        precision="exact",
        num_threads=1,
        instruction_set=instructions,
    )
    probabilities = network.probabilities(network.logits(random_spectrogram(497)[None], False)[0])[0]
    reference = expected(497, 4)
    rows = np.stack([reference[name] for name in OUTPUTS[:3]])
    compare(probabilities, np.concatenate([rows, reference["label"]]), allowed=BOUND).require(instructions)


def test_fused_threads_give_the_same_bits() -> None:
    checkpoints = [random_checkpoint(seed, FEW_BLOCKS) for seed in (1, 2)]
    spectrogram = random_spectrogram(1500)
    one, many = (
        build_model(checkpoints, backend="fused", num_threads=threads)(spectrogram, return_embeddings=True)
        for threads in (1, 5)
    )
    require_each(compare_each(many, one, (*OUTPUTS, "embeddings"), allowed=0), "5 threads")


@pytest.mark.parametrize("backend", BACKENDS)
def test_long_dilation_inside_the_track(backend: str) -> None:
    """A track longer than the longest window, so that every block has an inside: against plain torch."""
    pytest.importorskip("torch")
    checkpoint, spectrogram = random_checkpoint(3, Configuration(num_blocks=7)), random_spectrogram(760)
    found, reference = (run(name, [checkpoint], spectrogram) for name in (backend, "torch"))
    require_each(differences(found, reference), backend)


def test_a_changed_weight_is_seen() -> None:
    """The comparison above can fail: one bias of the relative positions, moved by a tenth, is enough."""
    checkpoint = random_checkpoint(1)
    name = "encoder.layers.10.timelayer.attention2.self.rpb"
    moved = checkpoint.parameters[name].copy()
    moved[0, 4] += 0.1
    changed = Checkpoint(
        "changed", checkpoint.configuration, checkpoint.thresholds, {**checkpoint.parameters, name: moved}
    )
    found = run("fused", [changed], random_spectrogram(100))
    assert not all(one.passed for one in differences(found, expected(100, 11)).values())
