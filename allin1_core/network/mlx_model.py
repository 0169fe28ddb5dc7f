"""The network in MLX: one lazy graph for a track and its folds, evaluated once.

Only a track too long for that (five minutes for eight folds, 43 for one) runs its folds one after another, and each
piece of time is evaluated before the next one is built.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from allin1_core.errors import BackendError
from allin1_core.network import architecture, attention
from allin1_core.network.weights import Checkpoint

Array = mx.array

# Rows (folds x tracks x instruments x frames) of one piece of time; its widest array is then about 100 MB.
_ROWS = 1 << 17
# Rows up to which all folds run in one graph.
_ROWS_TOGETHER = 1 << 20


class MLXNetwork:
    """The network of one or more folds on MLX's default device; implements `protocol.Network`."""

    def __init__(
        self, checkpoints: Sequence[Checkpoint], *, device: str, precision: str, num_threads: int
    ) -> None:
        # MLX chooses device and threads by itself, and computes in float32 whatever the precision.
        del device, precision, num_threads
        self._all_folds = architecture.Folds(checkpoints, MLXOperations())
        stepwise = MLXOperations(stepwise=True)
        self._single_folds = [architecture.Folds([checkpoint], stepwise) for checkpoint in checkpoints]

    def as_native(self, spectrogram: Any) -> Array:
        if isinstance(spectrogram, mx.array):
            return spectrogram
        if isinstance(spectrogram, np.ndarray):
            return mx.array(spectrogram)
        raise BackendError(
            f"spectrogram: {type(spectrogram).__module__}.{type(spectrogram).__name__}; the mlx backend takes mlx "
            "and numpy arrays; convert it with numpy.asarray"
        )

    def logits(self, spectrogram: Array, return_embeddings: bool) -> tuple[Array, Array | None]:
        batch, instruments, frames, _ = spectrogram.shape
        together = len(self._single_folds) * batch * instruments * frames <= _ROWS_TOGETHER
        groups = [self._all_folds] if together else self._single_folds
        return architecture.ensemble(groups, spectrogram, return_embeddings)

    def probabilities(self, logits: Array) -> Array:
        return architecture.probabilities(self._all_folds.operations, logits)

    def synchronize(self, arrays: Sequence[Array]) -> None:
        mx.eval(list(arrays))


@dataclasses.dataclass(frozen=True)
class MLXOperations:
    """MLX's array operations; implements `operations.Operations`.

    Attributes
    ----------
    rows : int
    stepwise : bool
        Evaluate each piece of time before the next one is built, and give back the memory that this took.
    """

    rows: int = _ROWS
    stepwise: bool = False

    image_axes = (1, 3)

    array = staticmethod(mx.array)
    concatenate = staticmethod(mx.concatenate)
    gelu = staticmethod(nn.gelu)
    sigmoid = staticmethod(mx.sigmoid)
    softmax = staticmethod(mx.softmax)
    take = staticmethod(mx.take)

    def pad(self, x: Array, widths: Mapping[int, tuple[int, int]]) -> Array:
        return mx.pad(x, [widths.get(axis, (0, 0)) for axis in range(x.ndim)])

    def joined(
        self,
        piece: Callable[[int, int], Array],
        ranges: Sequence[tuple[int, int]],
        axis: int,
        margin: int = 0,
    ) -> Array:
        pieces = [self.settled(piece(start, stop)) for start, stop in ranges]
        return self.settled(self.pad(mx.concatenate(pieces, axis=axis), {axis: (margin, margin)}))

    def settled(self, x: Array) -> Array:
        if self.stepwise:
            mx.eval(x)
            mx.clear_cache()
        return x

    def linear(self, rows: Array, weight: Array, bias: Array) -> Array:
        return rows @ weight.swapaxes(1, 2) + bias[:, None]

    def convolve(self, images: Array, weight: Array, bias: Array) -> Array:
        x = mx.conv2d(images, weight) + bias
        sequences, frames, bands, channels = x.shape
        return nn.elu(x[:, :, : bands // 3 * 3].reshape(sequences, frames, -1, 3, channels).max(axis=3))

    def layer_norm(self, x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
        return mx.fast.layer_norm(x, None, None, epsilon) * weight + bias


neighbourhood_attention = functools.partial(attention.neighbourhood_attention, MLXOperations())
