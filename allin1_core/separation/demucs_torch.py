"""Separation with Demucs on torch, through the package demucs-infer."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from allin1_core.errors import WeightsError
from allin1_core.files.writing import expand_user
from allin1_core.separation.protocol import not_loaded
from allin1_core.threads import Lock

_RANDOM = Lock()


class Separator:
    """Demucs with its weights; see `allin1_core.separation.protocol.Separator`.

    Parameters
    ----------
    model : str
        ``htdemucs`` or another name that demucs-infer knows; with `repository`, the name of a file in it.
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``.
    repository : path-like, optional
        Folder with models of one's own (``NAME.th``, as Demucs' ``--repo`` takes them), instead of a download.
        Such a file is a pickle, which demucs-infer opens with ``torch.load(weights_only=False)``: it can execute any
        code. Use only files that you made or trust.

    Raises
    ------
    WeightsError
        If the model is unknown, or its weights cannot be had or are damaged.
    """

    def __init__(self, model: str, *, device: str, repository: str | os.PathLike[str] | None = None) -> None:
        from demucs_infer.api import Separator as Demucs

        folder = None if repository is None else expand_user(repository)
        if folder is not None and not folder.is_dir():
            raise WeightsError(f"{folder}: no such folder; expected one with the separation model {model}.th")
        source = "the weights that demucs-infer downloads" if folder is None else str(folder)
        try:
            self._demucs = Demucs(model, repo=folder, device=device)
        # demucs-infer, torch and urllib each raise their own kinds here, down to pickle errors.
        except Exception as error:
            raise not_loaded(model, error, f" from {source}") from error
        self.sample_rate = int(self._demucs.samplerate)
        self.num_channels = int(self._demucs.audio_channels)
        self.provenance: dict[str, object] = {"model": model, "weights_sha256": _digest(self._demucs.model)}

    def __call__(
        self, mix: np.ndarray, *, seed: int, progress: Callable[[float], None] | None = None
    ) -> dict[str, np.ndarray]:
        """Separate ``float32 (num_channels, num_samples)`` into stems of that shape, by name."""
        import torch

        def report(state: dict[str, Any]) -> None:
            if progress is not None and state["state"] == "end":
                progress(min(1.0, (state["segment_offset"] + 1) / mix.shape[1]))

        # Demucs draws its time shift from the global generator: lend it ours, and leave the caller's as it was. There
        # is one for all threads, so they separate one after the other.
        with _RANDOM:
            self._demucs.update_parameter(callback=report, callback_arg=None)
            callers_state = random.getstate()
            random.seed(seed)
            try:
                with torch.inference_mode():
                    _, separated = self._demucs.separate_tensor(torch.from_numpy(mix), self.sample_rate)
            finally:
                random.setstate(callers_state)
        return {stem: samples.cpu().numpy() for stem, samples in separated.items()}


def _digest(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
