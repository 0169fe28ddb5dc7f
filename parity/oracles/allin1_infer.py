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
from collections.abc import Mapping, Sequence
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
def _modules() -> tuple[Any, Any, Any]:
    """The peer's modules of the model, the configuration and the ensemble."""
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
        importlib.import_module("allin1_infer.models.ensemble"),
    )


class Peer:
    """The folds of a model in the peer's own classes, on a torch device."""

    def __init__(self, checkpoints: Sequence[Checkpoint], device: str = "cpu") -> None:
        import torch
        from omegaconf import OmegaConf

        models, config, ensemble = _modules()
        folds = []
        for checkpoint in checkpoints:
            options = OmegaConf.structured(config.Config(data=config.HarmonixConfig()))
            # The peer's ensemble averages what its loader has put there.
            options.best_threshold_beat = checkpoint.thresholds.beat
            options.best_threshold_downbeat = checkpoint.thresholds.downbeat
            fold = models.AllInOne(options).eval()
            state = {name: torch.from_numpy(value) for name, value in checkpoint.parameters.items()}
            fold.load_state_dict(state, strict=True)
            folds.append(fold.to(device))
        self._model = folds[0] if len(folds) == 1 else ensemble.Ensemble(folds)
        self._device = device

    def run(self, spectrogram: np.ndarray) -> Any:
        """The peer's output for a spectrogram (4, T, 81), where it was computed."""
        import torch

        with torch.no_grad():
            output = self._model(torch.from_numpy(spectrogram)[None].to(self._device))
            if self._device.startswith("cuda"):
                torch.cuda.synchronize(self._device)
        return output

    def __call__(self, spectrogram: np.ndarray) -> dict[str, np.ndarray]:
        """Logits ``beat``, ``downbeat``, ``segment`` (T,), ``label`` (10, T), and ``embeddings`` (4, T, 24)."""
        return to_numpy(self.run(spectrogram))


def to_numpy(output: Any) -> dict[str, np.ndarray]:
    """The peer's logits and embeddings by our names."""
    found = {
        "beat": output.logits_beat,
        "downbeat": output.logits_downbeat,
        "segment": output.logits_section,
        "label": output.logits_function,
        "embeddings": output.embeddings,
    }
    return {name: value[0].cpu().numpy() for name, value in found.items()}


def probabilities(logits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Sigmoid of ``beat``, ``downbeat`` and ``segment``, softmax of ``label``."""
    found = {name: 1 / (1 + np.exp(-logits[name])) for name in ("beat", "downbeat", "segment")}
    exponentials = np.exp(logits["label"] - logits["label"].max(axis=0))
    return {**found, "label": exponentials / exponentials.sum(axis=0)}
