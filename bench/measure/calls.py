"""Calls whose memory is measured in a fresh process; this module imports no more than each of them needs."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.material import shared_folder

if TYPE_CHECKING:
    from allin1_core.network import Checkpoint


def compute_spectrogram(stems: np.ndarray, **keywords: Any) -> np.ndarray:
    """The log spectrogram of stems, with the keywords of `allin1_core.spectrogram.log_spectrogram`."""
    from allin1_core.spectrogram import log_spectrogram

    return log_spectrogram(stems, **keywords)


def decode(activations: np.ndarray, **keywords: Any) -> np.ndarray:
    """Beats from activations at 100 frames a second."""
    from allin1_core.dbn import DBNDownBeatTrackingProcessor

    return DBNDownBeatTrackingProcessor(fps=100, **keywords)(activations)


@functools.cache
def checkpoints() -> tuple[Checkpoint, ...]:
    """The eight published folds or, without the shared material, as many with seeded random parameters; read once."""
    from allin1_core.network import load_checkpoints
    from parity.inputs.networks import random_checkpoint

    folder = shared_folder()
    if folder is not None:
        return tuple(load_checkpoints("harmonix-all", weights_dir=folder / "weights"))
    return tuple(random_checkpoint(seed) for seed in range(8))


def run_network(spectrogram: np.ndarray, num_folds: int, **keywords: Any) -> None:
    """Folds built and run, with the keywords of `allin1_core.network.build_model`."""
    from allin1_core.network import build_model

    model = build_model(checkpoints()[:num_folds], **keywords)
    model.synchronize(model(spectrogram))


def analyse(folder: Path, model: str, weights_dir: Path | None) -> None:
    """A folder of stems, from loading the weights on."""
    from allin1_core import Analyzer

    Analyzer(model=model, weights_dir=weights_dir)(folder)


def analyse_as_before(folder: Path, model: str, weights_dir: Path | None) -> None:
    """The same by the pipeline that is replaced."""
    from allin1_core.network import load_checkpoints
    from parity.oracles.pipeline import Pipeline

    Pipeline(load_checkpoints(model, weights_dir=weights_dir))(folder)
