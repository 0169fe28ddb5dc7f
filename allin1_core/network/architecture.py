"""The layers of the All-In-One network (Kim & Nam, arXiv 2307.16425), in their order, for every array library.

::

    log spectrogram (B, K, T, bands)
    -> stem: three convolutions for each instrument      (F, B, K, T, C)
    -> blocks of a time layer and an instrument layer    (F, B, K, T, C)
    -> layer norm: the embeddings                        (F, B, K, T, C)
    -> heads on all instruments' channels                (F, B, 3 + labels, T)
    -> mean over the folds: the logits                   (B, 3 + labels, T)

The folds of an ensemble can run together: every array has a leading axis of folds, and a linear layer is one batched
matrix product. Time is walked in pieces, so that what is gathered for attention and the inner width of the
feed-forward layers stay small.

Shapes are written with F folds, B tracks, K instruments, T frames, C channels, H heads, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from allin1_core.network import neighbourhood
from allin1_core.network.attention import attend, windows_on
from allin1_core.network.configuration import HEADS
from allin1_core.network.model import NUM_SCALARS
from allin1_core.network.operations import Array, Operations
from allin1_core.network.weights import Checkpoint


def ensemble(
    groups: Sequence[Folds], spectrogram: Array, return_embeddings: bool
) -> tuple[Array, Array | None]:
    """Mean logits (B, 3 + labels, T) of groups of folds that run one after another, and the embeddings
    (B, K, T, C, F) of all folds or None."""
    sums, embeddings = [], []
    for folds in groups:
        hidden = folds.hidden_states(spectrogram)
        sums.append(folds.summed_logits(hidden))
        if return_embeddings:
            embeddings.append(hidden)
    logits = sum(sums[1:], sums[0]) / sum(folds.num_folds for folds in groups)
    if not return_embeddings:
        return logits, None
    return logits, groups[0].operations.concatenate(embeddings, 0).moveaxis(0, -1)


def probabilities(operations: Operations, logits: Array) -> Array:
    """Sigmoid of the three scalars of a frame and softmax over its labels, of the shape of `logits`."""
    scalars = operations.sigmoid(logits[:, :NUM_SCALARS])
    return operations.concatenate([scalars, operations.softmax(logits[:, NUM_SCALARS:], 1)], 1)


class Folds:
    """Folds that run together."""

    def __init__(self, checkpoints: Sequence[Checkpoint], operations: Operations) -> None:
        self.operations = operations
        self.num_folds = len(checkpoints)
        self._configuration = checkpoints[0].configuration
        stacked = {
            name: self._laid_out(name, np.stack([checkpoint.parameters[name] for checkpoint in checkpoints]))
            for name in checkpoints[0].parameters
        }
        # The heads are one linear layer.
        for kind in ("weight", "bias"):
            heads = [stacked[f"{head}_classifier.classifier.{kind}"] for head in HEADS]
            stacked[f"heads.{kind}"] = np.concatenate(heads, axis=1)
        self._parameters = {name: operations.array(value) for name, value in stacked.items()}

    def _laid_out(self, name: str, parameter: np.ndarray) -> np.ndarray:
        """A parameter (F, ...) with its axes as the layers want them."""
        if parameter.ndim == 5:  # the weight of a convolution (F, out, in, time, band)
            return np.moveaxis(parameter, 2, 1 + self.operations.image_axes[1])
        if not name.endswith(".rpb"):
            return parameter
        # Relative positional bias, to (distances, F, H, rows of queries, rows of keys).
        if parameter.ndim == 3:
            table = parameter[:, :, None, None]
        else:
            size, rows = self._configuration.instrument_kernel_size, self._configuration.num_instruments
            num_rows = neighbourhood.padded_length(rows, size, 1)
            table = np.stack(
                [neighbourhood.instrument_bias(fold, num_rows, size)[:, :rows] for fold in parameter]
            )
        return np.ascontiguousarray(np.moveaxis(table, -1, 0))

    def hidden_states(self, spectrogram: Array) -> Array:
        """From (B, K, T, bands) to the normalised hidden states (F, B, K, T, C)."""
        hidden = self._stem(spectrogram)
        for block, dilation in enumerate(self._configuration.dilations):
            hidden = self._time_layer(hidden, f"encoder.layers.{block}.timelayer", dilation)
            hidden = self._instrument_layer(hidden, f"encoder.layers.{block}.instlayer")
        return self.operations.settled(self._layer_norm(hidden, "norm"))

    def summed_logits(self, hidden: Array) -> Array:
        """From (F, B, K, T, C) to the sum over the folds of the heads' logits, (B, 3 + labels, T)."""
        joined = hidden.swapaxes(2, 3).flatten(3)
        return self.operations.settled(self._linear(joined, "heads").swapaxes(2, 3).sum(0))

    def _stem(self, spectrogram: Array) -> Array:
        """Three convolutions over time and frequency, for each instrument by itself."""
        batch, instruments, frames, bands = spectrogram.shape
        shape = [batch * instruments, frames + 2, bands]
        shape.insert(self.operations.image_axes[1], 1)  # images of one channel
        images = self.operations.pad(spectrogram, {2: (1, 1)}).reshape(shape)
        folds = [self._convolutions(images, fold)[None] for fold in range(self.num_folds)]
        hidden = self.operations.concatenate(folds, 0)
        hidden = hidden.reshape(self.num_folds, batch, instruments, frames, -1)
        return self._layer_norm(hidden, "embeddings.norm", epsilon=1e-5)

    def _convolutions(self, images: Array, fold: int) -> Array:
        """Those of one fold, from images with a frame of zeros at either end to (N, T, C)."""
        time, channels = self.operations.image_axes

        def convolved(images: Array, start: int, stop: int, *layers: int) -> Array:
            # Convolutions 0 and 2 reach a frame to either side, which the margins allow; convolution 1 none.
            x = images[(slice(None),) * time + (slice(start, stop + 2),)]
            for layer in layers:
                name = f"embeddings.conv{layer}"
                weight, bias = (self._parameters[f"{name}.{kind}"][fold] for kind in ("weight", "bias"))
                x = self.operations.convolve(x, weight, bias)
            return x

        def first(start: int, stop: int) -> Array:
            return convolved(images, start, stop, 0, 1)

        def last(start: int, stop: int) -> Array:
            return convolved(inner, start, stop, 2).moveaxis(channels, -1)[:, :, 0]

        num_rows, frames = images.shape[0], images.shape[time] - 2
        inner = self._piecewise(first, num_rows, frames, time, margin=1)
        return self._piecewise(last, num_rows, frames, 1)

    def _time_layer(self, hidden: Array, name: str, dilation: int) -> Array:
        """Two dilated attentions along time on the same input, then a feed-forward layer on both results."""
        _, batch, instruments, frames, _ = hidden.shape
        kernel_size = self._configuration.kernel_size
        length = neighbourhood.padded_length(frames, kernel_size, 2 * dilation)
        normalised = self._layer_norm(hidden, f"{name}.layernorm_before")
        normalised = self.operations.pad(normalised, {3: (0, length - frames)}).flatten(1, 2)[:, :, :, None]
        attentions = [
            self._attention(normalised, f"{name}.{attention}", kernel_size, dilation_)
            for attention, dilation_ in (("attention", dilation), ("attention2", 2 * dilation))
        ]

        def piece(start: int, stop: int) -> Array:
            shortcut = hidden[:, :, :, start:stop]
            first, second = (
                shortcut + attention(start, stop, 1).reshape(shortcut.shape) for attention in attentions
            )
            change = self._feed_forward(self.operations.concatenate([first, second], -1), name)
            return (first + second) / 2 + change

        return self._piecewise(piece, batch * instruments, frames, 3)

    def _instrument_layer(self, hidden: Array, name: str) -> Array:
        """One attention over all instruments and neighbouring frames, then a feed-forward layer."""
        _, batch, instruments, frames, _ = hidden.shape
        kernel_size = self._configuration.instrument_kernel_size
        length = neighbourhood.padded_length(frames, kernel_size, 1)
        num_rows = neighbourhood.padded_length(instruments, kernel_size, 1)
        normalised = self._layer_norm(hidden, f"{name}.layernorm_before").swapaxes(2, 3)
        normalised = self.operations.pad(
            normalised, {2: (0, length - frames), 3: (0, num_rows - instruments)}
        )
        attention = self._attention(normalised, f"{name}.attention", kernel_size, 1)

        def piece(start: int, stop: int) -> Array:
            attended = hidden[:, :, :, start:stop] + attention(start, stop, instruments).swapaxes(2, 3)
            return attended + self._feed_forward(attended, name)

        return self._piecewise(piece, batch * instruments, frames, 3)

    def _attention(
        self, x: Array, name: str, kernel_size: int, dilation: int
    ) -> Callable[[int, int, int], Array]:
        """One attention of a layer: keys and values of the whole time at once, queries piece by piece.

        Takes the normalised and padded input (F, N, T, R, C): N sequences of R rows that see each other. Returns a
        function of ``start, stop, num_rows`` that gives what the first `num_rows` rows of these frames attend to,
        after the output projection: (F, N, stop - start, num_rows, C).
        """

        def project(what: str, x: Array) -> Array:
            projected = self._linear(x, f"{name}.self.{what}")
            return projected.reshape(*projected.shape[:-1], self._configuration.num_heads, -1)

        keys, values = project("key", x), project("value", x)
        neighbours, bias_index = windows_on(self.operations, x.shape[2], kernel_size, dilation)

        def attended(start: int, stop: int, num_rows: int) -> Array:
            queries = project("query", x[:, :, start:stop, :num_rows])
            queries = queries / queries.shape[-1] ** 0.5
            bias = self.operations.take(self._parameters[f"{name}.self.rpb"], bias_index[start:stop], 0)
            output = attend(self.operations, queries, keys, values, neighbours[start:stop], bias)
            return self._linear(output.flatten(4), f"{name}.output.dense")

        return attended

    def _feed_forward(self, x: Array, name: str) -> Array:
        x = self._layer_norm(x, f"{name}.layernorm_after")
        x = self.operations.gelu(self._linear(x, f"{name}.intermediate.dense"))
        return self._linear(x, f"{name}.output.dense")

    def _linear(self, x: Array, name: str) -> Array:
        """A linear layer of each fold: (F, ..., inputs) to (F, ..., outputs)."""
        weight, bias = (self._parameters[f"{name}.{kind}"] for kind in ("weight", "bias"))
        rows = x.reshape(x.shape[0], -1, x.shape[-1])
        return self.operations.linear(rows, weight, bias).reshape(*x.shape[:-1], -1)

    def _layer_norm(self, x: Array, name: str, epsilon: float | None = None) -> Array:
        epsilon = self._configuration.layer_norm_epsilon if epsilon is None else epsilon
        shape = (self.num_folds, *(1,) * (x.ndim - 2), x.shape[-1])
        weight, bias = (self._parameters[f"{name}.{kind}"].reshape(shape) for kind in ("weight", "bias"))
        return self.operations.layer_norm(x, weight, bias, epsilon)

    def _piecewise(
        self, piece: Callable[[int, int], Array], rows_per_frame: int, frames: int, axis: int, margin: int = 0
    ) -> Array:
        """``piece(start, stop)`` for pieces of time that together cover all frames, joined along an axis."""
        size = max(1, self.operations.rows // (rows_per_frame * self.num_folds))
        ranges = [(start, min(start + size, frames)) for start in range(0, frames, size)]
        return self.operations.joined(piece, ranges, axis, margin)
