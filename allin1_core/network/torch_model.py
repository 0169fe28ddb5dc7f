"""The network in plain PyTorch, for CPU, CUDA and MPS; the reference that the other backends are compared with.

All folds of an ensemble run together: every tensor has a leading axis of folds, and a linear layer is one batched
matrix product. Time is walked in pieces, so that what is gathered for attention and the inner width of the
feed-forward layers stay small: of the cache's order on a CPU, of a gigabyte's on a GPU.

Shapes are written with F folds, B tracks, K instruments, T frames, C channels, H heads, D channels of a head.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from allin1_core.errors import BackendError
from allin1_core.network import neighbourhood
from allin1_core.network.torch_attention import attend, windows_on
from allin1_core.network.weights import Checkpoint

# Rows (folds x tracks x instruments x frames) of one piece of time: on a CPU its widest tensor fits the cache, on
# a GPU it is about 2 GB.
_ROWS_ON_CPU = 4096
_ROWS_ON_GPU = 1 << 20
# Folds that run together: on a CPU more would only leave the cache.
_FOLDS_ON_CPU = 1


class TorchNetwork:
    """The network of one or more folds on a torch device; implements `model.Network`."""

    def __init__(
        self, checkpoints: Sequence[Checkpoint], *, device: str, precision: str, num_threads: int
    ) -> None:
        self._device = torch.device(device)
        self._precision = precision
        self._num_threads = num_threads
        self._configuration = checkpoints[0].configuration
        on_cpu = self._device.type == "cpu"
        self._rows = _ROWS_ON_CPU if on_cpu else _ROWS_ON_GPU
        together = _FOLDS_ON_CPU if on_cpu else len(checkpoints)
        self._groups = [
            _Group(checkpoints[first : first + together], self._device, self._rows)
            for first in range(0, len(checkpoints), together)
        ]
        self._num_folds = len(checkpoints)

    def as_native(self, spectrogram: Any) -> Tensor:
        if isinstance(spectrogram, np.ndarray):
            spectrogram = torch.from_numpy(np.ascontiguousarray(spectrogram))
        if not isinstance(spectrogram, Tensor):
            raise BackendError(
                f"spectrogram: {type(spectrogram).__module__}.{type(spectrogram).__name__}; the torch backend takes "
                "torch tensors and numpy arrays; convert it with numpy.asarray"
            )
        return spectrogram.to(self._device)

    def logits(self, spectrogram: Tensor, return_embeddings: bool) -> tuple[Tensor, Tensor | None]:
        total: Tensor | None = None
        embeddings = []
        with torch.no_grad(), self._settings():
            for group in self._groups:
                hidden = group.hidden_states(spectrogram)
                logits = group.heads(hidden).sum(dim=0)
                total = logits if total is None else total + logits
                if return_embeddings:
                    embeddings.append(hidden)
            assert total is not None
            stacked = torch.cat(embeddings).permute(1, 2, 3, 4, 0) if return_embeddings else None
            return total / self._num_folds, stacked

    def probabilities(self, logits: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([torch.sigmoid(logits[:, :3]), torch.softmax(logits[:, 3:], dim=1)], dim=1)

    def synchronize(self, arrays: Sequence[Tensor]) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        """Set the precision of products and the number of threads, which torch keeps per process, and restore."""
        if self._device.type == "cpu":
            threads = torch.get_num_threads()
            torch.set_num_threads(self._num_threads)
            try:
                yield
            finally:
                torch.set_num_threads(threads)
            return
        tf32 = self._precision == "fast"
        matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = matmul
            torch.backends.cudnn.allow_tf32 = convolution


class _Group:
    """Folds that run together."""

    def __init__(self, checkpoints: Sequence[Checkpoint], device: torch.device, rows: int) -> None:
        self._configuration = checkpoints[0].configuration
        self._device = device
        self._num_folds = len(checkpoints)
        self._rows = rows
        self._parameters = {
            name: torch.from_numpy(np.stack([checkpoint.parameters[name] for checkpoint in checkpoints])).to(
                device
            )
            for name in checkpoints[0].parameters
        }
        self._head_weight, self._head_bias = (
            torch.cat(
                [
                    self._parameters[f"{head}_classifier.classifier.{kind}"]
                    for head in ("beat", "downbeat", "section", "function")
                ],
                dim=1,
            )
            for kind in ("weight", "bias")
        )
        size = self._configuration.instrument_kernel_size
        num_instruments = self._configuration.num_instruments
        num_rows = neighbourhood.padded_length(num_instruments, size, 1)
        self._instrument_bias = [
            torch.from_numpy(
                np.stack(
                    [
                        neighbourhood.instrument_bias(
                            checkpoint.parameters[f"encoder.layers.{block}.instlayer.attention.self.rpb"],
                            num_rows,
                            size,
                        )[:, :num_instruments]
                        for checkpoint in checkpoints
                    ]
                )
            ).to(device)
            for block in range(self._configuration.num_blocks)
        ]

    def hidden_states(self, spectrogram: Tensor) -> Tensor:
        """From (B, K, T, bands) to the normalised hidden states (F, B, K, T, C)."""
        hidden = self._stem(spectrogram)
        for block, dilation in enumerate(self._configuration.dilations):
            hidden = self._time_layer(hidden, f"encoder.layers.{block}.timelayer", dilation)
            hidden = self._instrument_layer(hidden, block)
        return self._layer_norm(hidden, "norm")

    def heads(self, hidden: Tensor) -> Tensor:
        """From (F, B, K, T, C) to logits (F, B, 3 + labels, T): one linear layer over all instruments' channels."""
        joined = hidden.permute(0, 1, 3, 2, 4).flatten(3)
        return _linear(joined, self._head_weight, self._head_bias).transpose(2, 3)

    def _stem(self, spectrogram: Tensor) -> Tensor:
        """Three convolutions over time and frequency, for each instrument by itself."""
        batch, instruments, frames, bands = spectrogram.shape
        padded = functional.pad(spectrogram.reshape(batch * instruments, 1, frames, bands), (0, 0, 1, 1))
        sequences, channels = batch * instruments, self._configuration.num_channels
        inner_bands = ((bands - 2) // 3 - 11) // 3
        # What convolution 1 gives, with a frame of zeros at either end for convolution 2.
        inner = spectrogram.new_zeros(sequences, channels, frames + 2, inner_bands)
        hidden = spectrogram.new_empty(self._num_folds, sequences, frames, channels)
        for fold in range(self._num_folds):
            (w0, b0), (w1, b1), (w2, b2) = (
                (
                    self._parameters[f"embeddings.conv{index}.weight"][fold],
                    self._parameters[f"embeddings.conv{index}.bias"][fold],
                )
                for index in range(3)
            )
            for start, stop in self._pieces(sequences, frames):
                x = _pooled_elu(functional.conv2d(padded[:, :, start : stop + 2], w0, b0))
                inner[:, :, start + 1 : stop + 1] = _pooled_elu(functional.conv2d(x, w1, b1))
            for start, stop in self._pieces(sequences, frames):
                x = _pooled_elu(functional.conv2d(inner[:, :, start : stop + 2], w2, b2))
                hidden[fold, :, start:stop] = x.squeeze(3).transpose(1, 2)
        hidden = hidden.unflatten(1, (batch, instruments))
        return self._layer_norm(hidden, "embeddings.norm", epsilon=1e-5)

    def _time_layer(self, hidden: Tensor, name: str, dilation: int) -> Tensor:
        """Two dilated attentions along time on the same input, then a feed-forward layer on both results."""
        _, batch, instruments, frames, _ = hidden.shape
        kernel_size = self._configuration.kernel_size
        length = neighbourhood.padded_length(frames, kernel_size, 2 * dilation)
        normalised = self._layer_norm(hidden, f"{name}.layernorm_before")
        normalised = functional.pad(normalised, (0, 0, 0, length - frames)).flatten(1, 2)
        attentions = [
            _Attention(self, f"{name}.{attention}", normalised.unsqueeze(3), kernel_size, dilation_)
            for attention, dilation_ in (("attention", dilation), ("attention2", 2 * dilation))
        ]
        output = torch.empty_like(hidden)
        for start, stop in self._pieces(batch * instruments, frames):
            shortcut = hidden[:, :, :, start:stop]
            first, second = (
                shortcut + attention(start, stop).reshape(shortcut.shape) for attention in attentions
            )
            change = self._feed_forward(torch.cat([first, second], dim=-1), name)
            output[:, :, :, start:stop] = (first + second) / 2 + change
        return output

    def _instrument_layer(self, hidden: Tensor, block: int) -> Tensor:
        """One attention over all instruments and neighbouring frames, then a feed-forward layer."""
        name = f"encoder.layers.{block}.instlayer"
        _, batch, instruments, frames, _ = hidden.shape
        kernel_size = self._configuration.instrument_kernel_size
        length = neighbourhood.padded_length(frames, kernel_size, 1)
        num_rows = neighbourhood.padded_length(instruments, kernel_size, 1)
        normalised = self._layer_norm(hidden, f"{name}.layernorm_before")
        normalised = functional.pad(normalised, (0, 0, 0, length - frames, 0, num_rows - instruments))
        attention = _Attention(
            self,
            f"{name}.attention",
            normalised.transpose(2, 3),
            kernel_size,
            1,
            self._instrument_bias[block],
        )
        output = torch.empty_like(hidden)
        for start, stop in self._pieces(batch * instruments, frames):
            attended = hidden[:, :, :, start:stop] + attention(start, stop, instruments).transpose(2, 3)
            output[:, :, :, start:stop] = attended + self._feed_forward(attended, name)
        return output

    def _feed_forward(self, x: Tensor, name: str) -> Tensor:
        x = self._layer_norm(x, f"{name}.layernorm_after")
        x = functional.gelu(self.linear(x, f"{name}.intermediate.dense"))
        return self.linear(x, f"{name}.output.dense")

    def linear(self, x: Tensor, name: str) -> Tensor:
        return _linear(x, self._parameters[f"{name}.weight"], self._parameters[f"{name}.bias"])

    def parameter(self, name: str) -> Tensor:
        return self._parameters[name]

    def num_heads(self) -> int:
        return self._configuration.num_heads

    def _layer_norm(self, x: Tensor, name: str, epsilon: float | None = None) -> Tensor:
        normalised = functional.layer_norm(
            x, x.shape[-1:], eps=self._configuration.layer_norm_epsilon if epsilon is None else epsilon
        )
        shape = (self._num_folds, *(1,) * (x.ndim - 2), x.shape[-1])
        weight, bias = (self._parameters[f"{name}.{kind}"].view(shape) for kind in ("weight", "bias"))
        return torch.addcmul(bias, normalised, weight)

    def _pieces(self, rows_per_frame: int, frames: int) -> Iterator[tuple[int, int]]:
        size = max(1, self._rows // (rows_per_frame * self._num_folds))
        return ((start, min(start + size, frames)) for start in range(0, frames, size))


class _Attention:
    """One attention of a layer: keys and values of the whole (padded) time, queries piece by piece.

    Takes the normalised and padded input (F, N, T, R, C): N sequences of R rows that see each other.
    """

    def __init__(
        self,
        group: _Group,
        name: str,
        normalised: Tensor,
        kernel_size: int,
        dilation: int,
        row_bias: Tensor | None = None,
    ) -> None:
        self._group = group
        self._name = name
        self._normalised = normalised
        self._heads = group.num_heads()
        self._keys = self._project("key", normalised)
        self._values = self._project("value", normalised)
        self._neighbours, self._bias_index = windows_on(
            normalised.device, normalised.shape[2], kernel_size, dilation
        )
        # (F, H, rows of queries, rows of keys, distances)
        self._bias = group.parameter(f"{name}.self.rpb")[:, :, None, None] if row_bias is None else row_bias

    def __call__(self, start: int, stop: int, num_rows: int = 1) -> Tensor:
        """Output projection of what the first `num_rows` rows attend to: (F, N, stop - start, num_rows, C)."""
        queries = self._project("query", self._normalised[:, :, start:stop, :num_rows])
        attended = attend(
            queries / queries.shape[-1] ** 0.5,
            self._keys,
            self._values,
            self._neighbours[start:stop],
            self._bias[..., self._bias_index[start:stop]],
        )
        return self._group.linear(attended.flatten(4), f"{self._name}.output.dense")

    def _project(self, what: str, x: Tensor) -> Tensor:
        return self._group.linear(x, f"{self._name}.self.{what}").unflatten(-1, (self._heads, -1))


def _pooled_elu(x: Tensor) -> Tensor:
    return functional.elu(functional.max_pool2d(x, (1, 3)))


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer of each fold: (F, ..., inputs), (F, outputs, inputs), (F, outputs) to (F, ..., outputs)."""
    rows = x.reshape(x.shape[0], -1, x.shape[-1])
    return torch.baddbmm(bias.unsqueeze(1), rows, weight.transpose(1, 2)).view(*x.shape[:-1], -1)
