"""Separation with Demucs on MLX, through the package demucs-mlx."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from allin1_core.errors import WeightsError
from allin1_core.separation.protocol import not_loaded, weights_digest


class Separator:
    """Demucs with its weights; see `allin1_core.separation.protocol.Separator`.

    Parameters
    ----------
    model : str
        ``htdemucs`` or another name that demucs-mlx knows.
    device : str
        ``mlx``.
    precision : str
        Either: demucs-mlx computes both in float32.
    repository : path-like, optional
        Refused: demucs-mlx takes no models of one's own.

    Raises
    ------
    WeightsError
        If the model is unknown, or its weights cannot be had.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str,
        precision: str = "exact",
        repository: str | os.PathLike[str] | None = None,
    ) -> None:
        from demucs_mlx.api import Separator as Demucs

        if repository is not None:
            raise WeightsError(
                f"{repository}: demucs-mlx loads only its own models; use demix_backend='demucs-infer' for this one"
            )
        try:
            self._demucs = Demucs(model)
        # demucs-mlx, MLX and the hub client each raise their own kinds here.
        except Exception as error:
            raise not_loaded(model, error) from error
        self.sample_rate = int(self._demucs.samplerate)
        self.num_channels = int(self._demucs.audio_channels)
        self.provenance: dict[str, object] = {
            "model": model,
            "weights_sha256": weights_digest(_arrays(self._demucs.model)),
        }

    def __call__(
        self,
        mix: np.ndarray,
        *,
        seed: int,
        overlap: float = 0.25,
        progress: Callable[[float], None] | None = None,
    ) -> dict[str, np.ndarray]:
        """Separate ``float32 (num_channels, num_samples)`` into stems of that shape, by name."""
        self._demucs.update_parameter(seed=seed, overlap=overlap)
        _, separated = self._demucs.separate_tensor(mix)
        if progress is not None:
            progress(1.0)
        return {stem: np.asarray(samples, dtype=np.float32) for stem, samples in separated.items()}


def _arrays(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    from mlx.utils import tree_flatten

    for part in getattr(model, "models", [model]):
        arrays: dict[str, Any] = dict(tree_flatten(part.parameters()))
        yield from ((name, np.asarray(array)) for name, array in sorted(arrays.items()))
