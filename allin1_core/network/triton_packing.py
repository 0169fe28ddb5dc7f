"""Packing of parameters as the Triton kernels take them: of each layer all folds' weights, biases and tables.

What is constant is multiplied in beforehand, in float64, as in `packing`. Weights are float16 (folds, 2, ...): their
nearest float16, then what that leaves. Everything is padded with zeros to the kernels' widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from allin1_core.errors import UnfitBackendError
from allin1_core.network.configuration import HEADS, Configuration

_WIDTH = 32
_LOG2_E = np.log2(np.e)
# The largest value of a log spectrogram that is reckoned with: four times that of samples within full scale.
_LARGEST_INPUT = 16.0
_FLOAT16_MAX = float(np.finfo(np.float16).max)
Arrays = dict[str, np.ndarray]


def split(weights: np.ndarray) -> np.ndarray:
    """float64 (...) as the float16 pair (2, ...) that adds up to it, to 2^-24 of a value or 3e-8."""
    high = weights.astype(np.float16)
    return np.stack([high, (weights - high).astype(np.float16)])


def pack(parameters: Mapping[str, np.ndarray], configuration: Configuration) -> dict[str, Arrays]:
    """Pack one fold's parameters, by their names in the PyTorch ``state_dict``.

    Returns
    -------
    dict of dict of array
        By kernel, followed by the number of its block: ``weights`` in float64, before they are split, and float32
        ``biases`` and other tables.
    """
    get = _Getter(parameters)
    packed = {
        "stem_frequency": _stem_frequency(get),
        "stem_time": _stem_time(get),
        "heads": _heads(get, configuration),
    }
    for index in range(configuration.num_blocks):
        for kernel, arrays in _block(get, f"encoder.layers.{index}").items():
            packed[f"{kernel}{index}"] = arrays
    get.reaches(*(arrays["weights"] for arrays in packed.values() if "weights" in arrays))
    if not get.largest <= _FLOAT16_MAX:
        raise UnfitBackendError(
            f"network backend 'triton': with these weights a factor may reach {get.largest:.3g}; its float16 "
            f"ends at {_FLOAT16_MAX:.0f}; use backend='torch'"
        )
    return packed


class _Getter:
    """Parameters in float64, and the largest magnitude that a weight or what goes into a product can have.

    What a layer norm gives has at most the root of its width as its Euclidean norm, attention gives weighted means of
    values, and GELU and ELU enlarge nothing that is above 1.
    """

    def __init__(self, parameters: Mapping[str, np.ndarray]) -> None:
        self._parameters = parameters
        self.largest = 1.0

    def reaches(self, *values: np.ndarray) -> None:
        """Note what there is or can be."""
        self.largest = max(self.largest, *(float(np.abs(value).max()) for value in values))

    def __call__(self, name: str) -> np.ndarray:
        return self._parameters[name].astype(np.float64)

    def linear(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return self(f"{name}.weight"), self(f"{name}.bias")

    def after_norm(self, name: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
        """A linear layer, and the weight and bias of the layer norm before it, as one linear layer."""
        weight, bias = self.linear(name)
        gain, shift = self.linear(norm)
        weight, bias = weight * gain, weight @ shift + bias
        self.reaches(weight.shape[1] ** 0.5 * np.linalg.norm(weight, axis=1) + np.abs(bias))
        return weight, bias

    def norm(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias of a layer norm."""
        gain, shift = self.linear(name)
        self.reaches(gain.size**0.5 * np.abs(gain) + np.abs(shift))
        return gain, shift


def _padded(array: np.ndarray, *shape: int) -> np.ndarray:
    """Zeros behind the entries of the last axes, up to this shape."""
    first = array.ndim - len(shape)
    return np.pad(
        array, [(0, 0)] * first + [(0, size - array.shape[first + axis]) for axis, size in enumerate(shape)]
    )


def _tile(weight: np.ndarray) -> np.ndarray:
    """(outputs, inputs) as (32, 32): inputs, outputs."""
    return _padded(weight.T, _WIDTH, _WIDTH)


def _packed(weights: Sequence[np.ndarray], biases: Sequence[np.ndarray], **tables: np.ndarray) -> Arrays:
    def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([array.ravel() for array in arrays])

    return {"weights": joined(weights), "biases": joined(biases).astype(np.float32), **tables}


def _stem_frequency(get: _Getter) -> Arrays:
    (first, first_bias), (second, second_bias) = (get.linear(f"embeddings.conv{index}") for index in (0, 1))
    inputs = _LARGEST_INPUT
    for weight, bias in ((first, first_bias), (second, second_bias)):
        inputs = max(1.0, float((inputs * np.abs(weight).sum(axis=(1, 2, 3)) + np.abs(bias)).max()))
    get.reaches(np.array(inputs))
    # The three windows under a maximum see five bands: inputs are (frame, band).
    windows = np.zeros((3, 3, 5, first.shape[0]))
    for under in range(3):
        windows[under, :, under : under + 3] = first[:, 0].transpose(1, 2, 0)
    kernels = np.pad(second[:, :, 0].transpose(2, 1, 0), ((2, 2), (0, 0), (0, 0)))
    return _packed(
        [_padded(windows.reshape(3, 15, -1), 16, 16), _padded(kernels, 16, _WIDTH)],
        [_padded(first_bias, 16), _padded(second_bias, _WIDTH)],
    )


def _stem_time(get: _Getter) -> Arrays:
    weight, bias = get.linear("embeddings.conv2")
    norm = get.norm("embeddings.norm")
    return _packed(
        [_padded(weight.transpose(2, 3, 1, 0), _WIDTH, _WIDTH)],
        [_padded(vector, _WIDTH) for vector in (bias, *norm)],
    )


def _projections(get: _Getter, layer: str, attentions: Sequence[str]) -> Arrays:
    """Queries, keys and values of each attention; the root of the head size and log2 e go into the queries."""
    weights = []
    biases = [_padded(vector, _WIDTH) for vector in get.norm(f"{layer}.layernorm_before")]
    for attention in attentions:
        for what in ("query", "key", "value"):
            name = f"{layer}.{attention}.self.{what}"
            get.after_norm(
                name, f"{layer}.layernorm_before"
            )  # its reach; applied apart, as zeros may follow the norm
            weight, bias = get.linear(name)
            if what == "query":
                num_heads = get(f"{layer}.{attention}.self.rpb").shape[0]
                factor = _LOG2_E / (weight.shape[0] / num_heads) ** 0.5
                weight, bias = weight * factor, bias * factor
            weights.append(_tile(weight))
            biases.append(_padded(bias, _WIDTH))
    return _packed(weights, biases)


def _feed_forward(get: _Getter, layer: str, attentions: Sequence[str]) -> Arrays:
    """Output projections, then the feed-forward layer a chunk of its inner width at a time."""
    outputs = [get.linear(f"{layer}.{attention}.output.dense") for attention in attentions]
    up, up_bias = get.after_norm(f"{layer}.intermediate.dense", f"{layer}.layernorm_after")
    down, down_bias = get.linear(f"{layer}.output.dense")
    channels = down.shape[0]
    weights = [_tile(weight) for weight, _ in outputs]
    biases = [_padded(bias, _WIDTH) for bias in (*(bias for _, bias in outputs), down_bias)]
    for first in range(0, up.shape[0], _WIDTH):
        chunk = slice(first, first + _WIDTH)
        weights += [_tile(part) for part in np.split(up[chunk], up.shape[1] // channels, axis=1)]
        weights.append(_tile(down[:, chunk]))
        biases.append(_padded(up_bias[chunk], _WIDTH))
    return _packed(weights, biases)


def _block(get: _Getter, prefix: str) -> dict[str, Arrays]:
    time, instruments = f"{prefix}.timelayer", f"{prefix}.instlayer"
    both, across = ("attention", "attention2"), ("attention",)
    padding = np.stack([get(f"{instruments}.attention.self.{what}.bias") for what in ("key", "value")])
    return {
        "project_time": _projections(get, time, both),
        "attend_time": {
            "biases": _table(np.stack([get(f"{time}.{name}.self.rpb") for name in both]) * _LOG2_E)
        },
        "feed_forward_time": _feed_forward(get, time, both),
        "project_instruments": _projections(get, instruments, across),
        "attend_instruments": {
            "biases": _table(get(f"{instruments}.attention.self.rpb") * _LOG2_E),
            "padding": _table(padding),
        },
        "feed_forward_instruments": _feed_forward(get, instruments, across),
    }


def _table(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).ravel()


def _heads(get: _Getter, configuration: Configuration) -> Arrays:
    linear = [get.linear(f"{head}_classifier.classifier") for head in HEADS]
    weight = np.concatenate([weight for weight, _ in linear])
    bias = np.concatenate([bias for _, bias in linear])
    by_instrument = weight.reshape(weight.shape[0], configuration.num_instruments, -1).transpose(1, 2, 0)
    norm = get.norm("norm")
    return _packed(
        [_padded(by_instrument, _WIDTH, 16)],
        [*(_padded(vector, _WIDTH) for vector in norm), _padded(bias, 16)],
    )
