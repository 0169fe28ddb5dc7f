"""The model of all-in-one-infer 3.1.0, the published network in plain PyTorch, with parameters put into it.

Its package ``__init__`` imports Demucs, torchaudio and a decoder; the model module needs only torch, omegaconf and
hydra-core. So the package is entered as an empty namespace, and only ``allin1_infer.models`` is imported.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import types
from typing import Any

import numpy as np

from allin1_core.network import Checkpoint

ORACLE = "all-in-one-infer 3.1.0"
_VERSION = "3.1.0"
_NEEDS = ("torch", "omegaconf", "hydra")


def missing() -> str | None:
    """Why the peer cannot run here, or None if it can."""
    try:
        version = importlib.metadata.version("all-in-one-infer")
    except importlib.metadata.PackageNotFoundError:
        return "all-in-one-infer is not installed (the extra 'peers')"
    if version != _VERSION:
        return f"all-in-one-infer is {version}; the comparison is with {_VERSION}"
    absent = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    return f"all-in-one-infer needs {', '.join(absent)}" if absent else None


@functools.cache
def _modules() -> tuple[Any, Any]:
    """The peer's model and configuration modules."""
    if "allin1_infer" not in sys.modules:
        spec = importlib.machinery.PathFinder.find_spec("allin1_infer")
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError("allin1_infer")
        package = types.ModuleType("allin1_infer")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["allin1_infer"] = package
    return (
        importlib.import_module("allin1_infer.models.allinone"),
        importlib.import_module("allin1_infer.config"),
    )


class Peer:
    """One fold in the peer's model."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        import torch

        models, config = _modules()
        settings = config.Config(data=config.HarmonixConfig())
        self._model = models.AllInOne(settings).eval()
        state = {name: torch.from_numpy(value) for name, value in checkpoint.parameters.items()}
        self._model.load_state_dict(state, strict=True)

    def __call__(self, spectrogram: np.ndarray) -> dict[str, np.ndarray]:
        """Logits ``beat``, ``downbeat``, ``segment`` (T,), ``label`` (10, T), and ``embeddings`` (4, T, 24)."""
        import torch

        with torch.no_grad():
            output = self._model(torch.from_numpy(spectrogram)[None])
        found = {
            "beat": output.logits_beat,
            "downbeat": output.logits_downbeat,
            "segment": output.logits_section,
            "label": output.logits_function,
            "embeddings": output.embeddings,
        }
        return {name: value[0].numpy() for name, value in found.items()}
