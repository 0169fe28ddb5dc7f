"""The network in MLX: one lazy graph for a track and its folds, evaluated once.

The structure is that of `torch_model`: every array has a leading axis of folds, and time is walked in pieces so that
what is gathered for attention stays bounded. Only a track too long for that (five minutes for eight folds, 43 for
one) runs its folds one after another, and each piece is evaluated before the next one is built.

Shapes are written with F folds, B tracks, K instruments, T frames, C channels, H heads, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from allin1_core.errors import BackendError
from allin1_core.network import neighbourhood
from allin1_core.network.mlx_attention import Array, attend, windows_on
from allin1_core.network.weights import Checkpoint

# Rows (folds x tracks x instruments x frames) of one piece of time; its widest array is then about 100 MB.
_ROWS = 1 << 17
# Rows up to which all folds run in one graph.
_ROWS_TOGETHER = 1 << 20


class MLXNetwork:
    """The network of one or more folds on MLX's default device; implements `model.Network`."""

    def __init__(
        self, checkpoints: Sequence[Checkpoint], *, device: str, precision: str, num_threads: int
    ) -> None:
        # MLX chooses device and threads by itself, and computes in float32 whatever the precision.
        del device, precision, num_threads
        self._checkpoints = list(checkpoints)
        self._all_folds = _Group(checkpoints)
        self._single_folds = [_Group([checkpoint]) for checkpoint in checkpoints]

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
        rows = len(self._checkpoints) * batch * instruments * frames
        together = rows <= _ROWS_TOGETHER
        sums, embeddings = [], []
        for group in [self._all_folds] if together else self._single_folds:
            hidden = group.hidden_states(spectrogram, stepwise=not together)
            sums.append(group.heads(hidden).sum(axis=0))
            if return_embeddings:
                embeddings.append(hidden)
            if not together:
                mx.eval(sums, embeddings)
        logits = sum(sums[1:], sums[0]) / len(self._checkpoints)
        stacked = mx.concatenate(embeddings).transpose(1, 2, 3, 4, 0) if return_embeddings else None
        return logits, stacked

    def probabilities(self, logits: Array) -> Array:
        return mx.concatenate([mx.sigmoid(logits[:, :3]), mx.softmax(logits[:, 3:], axis=1)], axis=1)

    def synchronize(self, arrays: Sequence[Array]) -> None:
        mx.eval(list(arrays))


class _Group:
    """Folds that run together."""

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self._configuration = checkpoints[0].configuration
        self._num_folds = len(checkpoints)
        self._stepwise = False
        stacked = {
            name: np.stack([checkpoint.parameters[name] for checkpoint in checkpoints])
            for name in checkpoints[0].parameters
        }
        # MLX convolves with weights (out, time, band, in).
        self._parameters = {
            name: mx.array(value.transpose(0, 1, 3, 4, 2) if value.ndim == 5 else value)
            for name, value in stacked.items()
        }
        self._head_weight, self._head_bias = (
            mx.concatenate(
                [
                    self._parameters[f"{head}_classifier.classifier.{kind}"]
                    for head in ("beat", "downbeat", "section", "function")
                ],
                axis=1,
            )
            for kind in ("weight", "bias")
        )
        size, rows = self._configuration.instrument_kernel_size, self._configuration.num_instruments
        num_rows = neighbourhood.padded_length(rows, size, 1)
        self._instrument_bias = [
            mx.array(
                np.stack(
                    [
                        neighbourhood.instrument_bias(bias, num_rows, size)[:, :rows]
                        for bias in stacked[f"encoder.layers.{block}.instlayer.attention.self.rpb"]
                    ]
                )
            )
            for block in range(self._configuration.num_blocks)
        ]

    def hidden_states(self, spectrogram: Array, *, stepwise: bool) -> Array:
        """From (B, K, T, bands) to the normalised hidden states (F, B, K, T, C)."""
        self._stepwise = stepwise
        hidden = self._stem(spectrogram)
        for block, dilation in enumerate(self._configuration.dilations):
            hidden = self._time_layer(hidden, f"encoder.layers.{block}.timelayer", dilation)
            hidden = self._instrument_layer(hidden, block)
        return self._layer_norm(hidden, "norm")

    def heads(self, hidden: Array) -> Array:
        """From (F, B, K, T, C) to logits (F, B, 3 + labels, T): one linear layer over all instruments' channels."""
        folds, batch, instruments, frames, channels = hidden.shape
        joined = hidden.transpose(0, 1, 3, 2, 4).reshape(folds, batch, frames, instruments * channels)
        return _linear(joined, self._head_weight, self._head_bias).swapaxes(2, 3)

    def _stem(self, spectrogram: Array) -> Array:
        """Three convolutions over time and frequency, for each instrument by itself."""
        batch, instruments, frames, bands = spectrogram.shape
        padded = mx.pad(
            spectrogram.reshape(batch * instruments, frames, bands, 1), [(0, 0), (1, 1), (0, 0), (0, 0)]
        )
        folds = []
        for fold in range(self._num_folds):
            inner = [
                self._settled(self._convolve(self._convolve(padded[:, start : stop + 2], 0, fold), 1, fold))
                for start, stop in self._pieces(batch * instruments, frames)
            ]
            joined = mx.pad(mx.concatenate(inner, axis=1), [(0, 0), (1, 1), (0, 0), (0, 0)])
            outer = [
                self._settled(self._convolve(joined[:, start : stop + 2], 2, fold)[:, :, 0])
                for start, stop in self._pieces(batch * instruments, frames)
            ]
            folds.append(mx.concatenate(outer, axis=1))
        hidden = mx.stack(folds).reshape(self._num_folds, batch, instruments, frames, -1)
        return self._layer_norm(hidden, "embeddings.norm", epsilon=1e-5)

    def _convolve(self, x: Array, index: int, fold: int) -> Array:
        """Convolution, maximum over three bands, ELU; from (N, t, bands, in) to (N, t - k + 1, fewer bands, out)."""
        weight, bias = (
            self._parameters[f"embeddings.conv{index}.{kind}"][fold] for kind in ("weight", "bias")
        )
        x = mx.conv2d(x, weight) + bias
        sequences, frames, bands, channels = x.shape
        x = x[:, :, : bands // 3 * 3].reshape(sequences, frames, bands // 3, 3, channels).max(axis=3)
        return nn.elu(x)

    def _time_layer(self, hidden: Array, name: str, dilation: int) -> Array:
        """Two dilated attentions along time on the same input, then a feed-forward layer on both results."""
        folds, batch, instruments, frames, channels = hidden.shape
        kernel_size = self._configuration.kernel_size
        length = neighbourhood.padded_length(frames, kernel_size, 2 * dilation)
        normalised = self._layer_norm(hidden, f"{name}.layernorm_before")
        normalised = normalised.reshape(folds, batch * instruments, frames, 1, channels)
        normalised = mx.pad(normalised, [(0, 0), (0, 0), (0, length - frames), (0, 0), (0, 0)])
        attentions = [
            _Attention(self, f"{name}.{attention}", normalised, kernel_size, dilation_)
            for attention, dilation_ in (("attention", dilation), ("attention2", 2 * dilation))
        ]
        pieces = []
        for start, stop in self._pieces(batch * instruments, frames):
            shortcut = hidden[:, :, :, start:stop]
            first, second = (
                shortcut + attention(start, stop).reshape(shortcut.shape) for attention in attentions
            )
            change = self._feed_forward(mx.concatenate([first, second], axis=-1), name)
            pieces.append(self._settled((first + second) / 2 + change))
        return self._settled(mx.concatenate(pieces, axis=3))

    def _instrument_layer(self, hidden: Array, block: int) -> Array:
        """One attention over all instruments and neighbouring frames, then a feed-forward layer."""
        name = f"encoder.layers.{block}.instlayer"
        _, batch, instruments, frames, _ = hidden.shape
        kernel_size = self._configuration.instrument_kernel_size
        length = neighbourhood.padded_length(frames, kernel_size, 1)
        num_rows = neighbourhood.padded_length(instruments, kernel_size, 1)
        normalised = self._layer_norm(hidden, f"{name}.layernorm_before").swapaxes(2, 3)
        normalised = mx.pad(
            normalised, [(0, 0), (0, 0), (0, length - frames), (0, num_rows - instruments), (0, 0)]
        )
        attention = _Attention(
            self, f"{name}.attention", normalised, kernel_size, 1, self._instrument_bias[block]
        )
        pieces = []
        for start, stop in self._pieces(batch * instruments, frames):
            attended = hidden[:, :, :, start:stop] + attention(start, stop, instruments).swapaxes(2, 3)
            pieces.append(self._settled(attended + self._feed_forward(attended, name)))
        return self._settled(mx.concatenate(pieces, axis=3))

    def _settled(self, x: Array) -> Array:
        """The same; of a long track it is evaluated, and the memory that this took is given back."""
        if self._stepwise:
            mx.eval(x)
            mx.clear_cache()
        return x

    def _feed_forward(self, x: Array, name: str) -> Array:
        x = self._layer_norm(x, f"{name}.layernorm_after")
        x = nn.gelu(self.linear(x, f"{name}.intermediate.dense"))
        return self.linear(x, f"{name}.output.dense")

    def linear(self, x: Array, name: str) -> Array:
        return _linear(x, self._parameters[f"{name}.weight"], self._parameters[f"{name}.bias"])

    def parameter(self, name: str) -> Array:
        return self._parameters[name]

    def num_heads(self) -> int:
        return self._configuration.num_heads

    def _layer_norm(self, x: Array, name: str, epsilon: float | None = None) -> Array:
        epsilon = self._configuration.layer_norm_epsilon if epsilon is None else epsilon
        shape = (self._num_folds, *(1,) * (x.ndim - 2), x.shape[-1])
        weight, bias = (self._parameters[f"{name}.{kind}"].reshape(shape) for kind in ("weight", "bias"))
        return mx.fast.layer_norm(x, None, None, epsilon) * weight + bias

    def _pieces(self, rows_per_frame: int, frames: int) -> Iterator[tuple[int, int]]:
        size = max(1, _ROWS // (rows_per_frame * self._num_folds))
        return ((start, min(start + size, frames)) for start in range(0, frames, size))


class _Attention:
    """One attention of a layer: keys and values of the whole (padded) time, queries piece by piece.

    Takes the normalised and padded input (F, N, T, R, C): N sequences of R rows that see each other.
    """

    def __init__(
        self,
        group: _Group,
        name: str,
        normalised: Array,
        kernel_size: int,
        dilation: int,
        row_bias: Array | None = None,
    ) -> None:
        self._group = group
        self._name = name
        self._normalised = normalised
        self._keys = self._project("key", normalised)
        self._values = self._project("value", normalised)
        self._neighbours, self._bias_index = windows_on(normalised.shape[2], kernel_size, dilation)
        # (F, H, rows of queries, rows of keys, distances)
        self._bias = group.parameter(f"{name}.self.rpb")[:, :, None, None] if row_bias is None else row_bias

    def __call__(self, start: int, stop: int, num_rows: int = 1) -> Array:
        """Output projection of what the first `num_rows` rows attend to: (F, N, stop - start, num_rows, C)."""
        queries = self._project("query", self._normalised[:, :, start:stop, :num_rows])
        attended = attend(
            queries / queries.shape[-1] ** 0.5,
            self._keys,
            self._values,
            self._neighbours[start:stop],
            mx.take(self._bias, self._bias_index[start:stop], axis=-1),
        )
        return self._group.linear(attended.reshape(*attended.shape[:4], -1), f"{self._name}.output.dense")

    def _project(self, what: str, x: Array) -> Array:
        projected = self._group.linear(x, f"{self._name}.self.{what}")
        return projected.reshape(*projected.shape[:-1], self._group.num_heads(), -1)


def _linear(x: Array, weight: Array, bias: Array) -> Array:
    """A linear layer of each fold: (F, ..., inputs), (F, outputs, inputs), (F, outputs) to (F, ..., outputs)."""
    rows = x.reshape(x.shape[0], -1, x.shape[-1])
    return (rows @ weight.swapaxes(1, 2) + bias[:, None]).reshape(*x.shape[:-1], -1)
