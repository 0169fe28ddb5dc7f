"""Small networks with seeded random parameters, for properties that hold whatever the weights."""

from __future__ import annotations

import dataclasses

import numpy as np

from allin1_core.network import Checkpoint, Configuration, Model, build_model
from parity.implementations import cpu_device, names
from parity.inputs.networks import random_checkpoint

BACKENDS = names("network")
THREE_BLOCKS = Configuration(num_blocks=3)
# Frames that a frame can depend on, to either side, in a network of three blocks: two convolutions of width 3,
# per block two steps of the wider time attention (dilations 2, 4, 8; twice that at a border, where windows shift)
# and as many of the instrument layer's window of 5.
REACH = 2 + sum(4 * 2 * 2**block + 4 for block in range(3))


def checkpoint(configuration: Configuration = THREE_BLOCKS, seed: int = 0) -> Checkpoint:
    """Seeded parameters for a small network."""
    return random_checkpoint(seed, configuration)


def network(
    backend: str,
    configuration: Configuration = THREE_BLOCKS,
    seeds: tuple[int, ...] = (0,),
    num_threads: int = 2,
) -> Model:
    """A model with one fold for each seed, on the CPU or MLX's own device."""
    device = cpu_device("network", backend)
    folds = [checkpoint(configuration, seed) for seed in seeds]
    return build_model(folds, backend=backend, device=device, num_threads=num_threads)


def with_parameters(model: Model, backend: str, **changed: np.ndarray) -> Model:
    """The same one-fold network with some parameters exchanged (dots in their names written as two underscores)."""
    (fold,) = model.checkpoints
    parameters = {**fold.parameters, **{name.replace("__", "."): value for name, value in changed.items()}}
    device = cpu_device("network", backend)
    return build_model([dataclasses.replace(fold, parameters=parameters)], backend=backend, device=device)


def spectrogram(num_frames: int, seed: int = 0, batch: int | None = None) -> np.ndarray:
    """Log magnitudes as music has them, ``float32 (4, num_frames, 81)``, with a leading axis for a batch."""
    shape = (4, num_frames, 81) if batch is None else (batch, 4, num_frames, 81)
    return np.random.default_rng(seed).gamma(1.0, 0.4, shape).astype(np.float32)


def as_array(model: Model, spectrogram: np.ndarray) -> np.ndarray:
    """All probabilities, ``float32 (..., 3 + labels, T)``."""
    output = model(spectrogram).to_numpy()
    rows = [output.beat, output.downbeat, output.segment]
    return np.concatenate([np.stack(rows, axis=-2), output.label], axis=-2)
