"""Separation with Demucs on torch: the models that the package demucs-infer loads, driven by `overlap_add`."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core.files.writing import expand_user
from allin1_core.separation.protocol import check_own_model, not_loaded, weights_digest
from allin1_core.threads import Lock

_ONE_AT_A_TIME = Lock()


class Separator:
    """Demucs with its weights; see `allin1_core.separation.protocol.Separator`.

    Parameters
    ----------
    model : str
        ``htdemucs`` or another name that demucs-infer knows; with `repository`, the name of a file in it.
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``.
    precision : str
        ``exact`` or ``fast``; see `overlap_add.OverlapAdd`.
    repository : path-like, optional
        Folder with models of one's own, instead of a download: ``NAME.safetensors`` of a Hybrid Transformer Demucs,
        which executes nothing, or else ``NAME.th`` or ``NAME.yaml``, as Demucs' ``--repo`` takes them. A ``.th`` is a
        pickle, which demucs-infer opens with ``torch.load(weights_only=False)``: it can execute any code. Use only
        files that you made or trust.

    Raises
    ------
    WeightsError
        If the model is unknown, or its weights cannot be had or are damaged.
    """

    takes_int16 = True

    def __init__(
        self,
        model: str,
        *,
        device: str,
        precision: str = "exact",
        repository: str | os.PathLike[str] | None = None,
    ) -> None:
        from allin1_core.separation.overlap_add import OverlapAdd

        folder = None if repository is None else expand_user(repository)
        if folder is not None:
            check_own_model(model, folder)
        source = "the weights that demucs-infer downloads" if folder is None else str(folder)
        try:
            loaded = _load(model, folder)
        # demucs-infer, torch and urllib each raise their own kinds here, down to pickle errors.
        except Exception as error:
            raise not_loaded(model, error, f" from {source}") from error
        self._sources: list[str] = list(loaded.sources)
        self.sample_rate = int(loaded.samplerate)
        self.num_channels = int(loaded.audio_channels)
        weights = sorted(loaded.state_dict().items())
        digest = weights_digest((name, tensor.cpu().numpy()) for name, tensor in weights)
        self._model = OverlapAdd(loaded, device=device, precision=precision)
        self.provenance: dict[str, object] = {
            "model": model,
            "weights_sha256": digest,
            "products": self._model.products,
        }

    @staticmethod
    def model_names() -> list[str]:
        """Names that demucs-infer knows, bags of models before single ones."""
        from demucs_infer.model_info import list_models

        found = list_models()
        return [name for kind in ("bag", "single", "community") for name in found.get(kind, ())]

    def __call__(
        self,
        mix: np.ndarray,
        *,
        seed: int,
        overlap: float = 0.25,
        progress: Callable[[float], None] | None = None,
    ) -> dict[str, Any]:
        """Separate ``int16`` or ``float32 (num_channels, num_samples)`` into float32 tensors on the device, by name."""
        import torch

        # Demucs' networks draw numbers from the global generator, to no effect: the caller's stays as it was. There is
        # one for all threads, as is the precision of products, so they separate one after the other.
        with _ONE_AT_A_TIME:
            callers_state = random.getstate()
            try:
                stems = self._model(torch.from_numpy(mix), seed=seed, overlap=overlap, progress=progress)
            finally:
                random.setstate(callers_state)
        return dict(zip(self._sources, stems, strict=True))


def _load(model: str, folder: Path | None) -> Any:
    from demucs_infer.pretrained import get_model

    if folder is not None and (folder / f"{model}.safetensors").is_file():
        from demucs_infer.safetensors import load_safetensors_model

        return load_safetensors_model(folder / f"{model}.safetensors")
    return get_model(model, repo=folder)
