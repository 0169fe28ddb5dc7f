"""Packing of parameters in the kernels' layout: one run of floats for the stem, for each block and for the heads.

A linear layer y = W x + b lies as b, then W in groups of `OUTPUTS` outputs, each group input by input, so that the
inner loop reads it front to back. What is constant is multiplied in beforehand, in float64: a layer norm's weight g
and bias h go into the linear layer behind it, W (g n + h) + b = (W g) n + (W h + b), and the root of the head size
and log2 e, since softmax is computed in powers of two, into the queries. The order is that of `fused.h`, which also
says the sizes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from allin1_core.network import _fused
from allin1_core.network.configuration import HEADS, Configuration

# As in fused.h.
OUTPUTS = 6
_LOGITS_PADDED = 18
_SLICE = 48
# Scores are logarithms to base 2.
_LOG2_E = np.log2(np.e)


@dataclasses.dataclass(frozen=True)
class PackedParameters:
    """One fold's parameters, packed.

    Attributes
    ----------
    stem : float32 (n,)
    blocks : list of float32 (n,)
    keys_values : list of float32 (n,)
        For each block, the projections that the pass before it applies.
    padding : list of float32 (96,)
        For each block, keys and values of the zeros that are appended to a short track.
    heads : float32 (n,)
    """

    stem: np.ndarray
    blocks: list[np.ndarray]
    keys_values: list[np.ndarray]
    padding: list[np.ndarray]
    heads: np.ndarray


def pack(parameters: Mapping[str, np.ndarray], configuration: Configuration) -> PackedParameters:
    """Pack one fold's parameters, by their names in the PyTorch ``state_dict``."""
    blocks = [_Block(parameters, f"encoder.layers.{index}") for index in range(configuration.num_blocks)]
    packed = PackedParameters(
        stem=_stem(parameters),
        blocks=[block.packed() for block in blocks],
        keys_values=[block.time_keys_values() for block in blocks],
        padding=[block.time_padding() for block in blocks],
        heads=_heads(parameters, configuration),
    )
    found = {
        "stem": packed.stem.size,
        "block": packed.blocks[0].size,
        "keys_values": packed.keys_values[0].size,
        "heads": packed.heads.size,
    }
    expected = {name: _fused.SIZES[name] for name in found}
    if found != expected:
        raise AssertionError(f"packed sizes {found}; the kernels were compiled for {expected}")
    return packed


def _groups(weight: np.ndarray) -> np.ndarray:
    """(outputs, inputs) as (outputs / OUTPUTS, inputs, OUTPUTS)."""
    outputs, inputs = weight.shape
    return weight.reshape(outputs // OUTPUTS, OUTPUTS, inputs).transpose(0, 2, 1)


def _linear(weight: np.ndarray, bias: np.ndarray) -> list[np.ndarray]:
    return [bias, _groups(weight)]


def _join(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(part, dtype=np.float32).ravel() for part in parts])


def _convolution(parameters: Mapping[str, np.ndarray], index: int) -> list[np.ndarray]:
    """Inputs in the order time, band, channel in: a tap in time is a run of the rows (band, channel)."""
    weight = parameters[f"embeddings.conv{index}.weight"]
    return _linear(
        weight.transpose(0, 2, 3, 1).reshape(weight.shape[0], -1), parameters[f"embeddings.conv{index}.bias"]
    )


def _stem(parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    parts = [part for index in range(3) for part in _convolution(parameters, index)]
    return _join([*parts, parameters["embeddings.norm.weight"], parameters["embeddings.norm.bias"]])


def _heads(parameters: Mapping[str, np.ndarray], configuration: Configuration) -> np.ndarray:
    weight = np.concatenate([parameters[f"{head}_classifier.classifier.weight"] for head in HEADS])
    bias = np.concatenate([parameters[f"{head}_classifier.classifier.bias"] for head in HEADS])
    missing = _LOGITS_PADDED - bias.size
    weight = np.pad(weight, ((0, missing), (0, 0))).reshape(_LOGITS_PADDED, configuration.num_instruments, -1)
    instruments = [_groups(weight[:, instrument]) for instrument in range(configuration.num_instruments)]
    return _join(
        [parameters["norm.weight"], parameters["norm.bias"], np.pad(bias, (0, missing)), *instruments]
    )


class _Block:
    """One block's parameters in float64, with the constant factors multiplied in."""

    def __init__(self, parameters: Mapping[str, np.ndarray], prefix: str) -> None:
        self._parameters = parameters
        self._time, self._instrument = f"{prefix}.timelayer", f"{prefix}.instlayer"

    def _get(self, name: str) -> np.ndarray:
        return self._parameters[name].astype(np.float64)

    def _after_norm(self, norm: str, *layers: str) -> tuple[np.ndarray, np.ndarray]:
        """Linear layers that read the same layer norm, one below the other."""
        gain, shift = self._get(f"{norm}.weight"), self._get(f"{norm}.bias")
        weight = np.concatenate([self._get(f"{layer}.weight") for layer in layers])
        bias = np.concatenate([self._get(f"{layer}.bias") for layer in layers])
        return weight * gain, weight @ shift + bias

    def _queries(self, layer: str, *attentions: str) -> list[np.ndarray]:
        weight, bias = self._after_norm(
            f"{layer}.layernorm_before", *(f"{name}.self.query" for name in attentions)
        )
        num_heads = self._parameters[f"{attentions[0]}.self.rpb"].shape[0]
        factor = _LOG2_E / (weight.shape[1] / num_heads) ** 0.5
        return _linear(weight * factor, bias * factor)

    def _bias(self, attention: str) -> np.ndarray:
        return self._get(f"{attention}.self.rpb") * _LOG2_E

    def _keys_values(self, layer: str, *attentions: str) -> list[np.ndarray]:
        names = [f"{name}.self.{what}" for name in attentions for what in ("key", "value")]
        return _linear(*self._after_norm(f"{layer}.layernorm_before", *names))

    def _padding(self, *attentions: str) -> list[np.ndarray]:
        return [self._get(f"{name}.self.{what}.bias") for name in attentions for what in ("key", "value")]

    def _output(self, attention: str) -> list[np.ndarray]:
        return _linear(
            self._get(f"{attention}.output.dense.weight"), self._get(f"{attention}.output.dense.bias")
        )

    def _feed_forward(self, layer: str) -> list[np.ndarray]:
        weight, bias = self._after_norm(f"{layer}.layernorm_after", f"{layer}.intermediate.dense")
        down = self._get(f"{layer}.output.dense.weight")
        slices = [slice(first, first + _SLICE) for first in range(0, bias.size, _SLICE)]
        up_parts = [part for piece in slices for part in _linear(weight[piece], bias[piece])]
        down_parts = [_groups(down[:, piece]) for piece in slices]
        return [*up_parts, self._get(f"{layer}.output.dense.bias"), *down_parts]

    def packed(self) -> np.ndarray:
        time, instrument = self._time, self._instrument
        first, second, across = f"{time}.attention", f"{time}.attention2", f"{instrument}.attention"
        return _join(
            [
                *self._queries(time, first, second),
                self._bias(first),
                self._bias(second),
                *self._output(first),
                *self._output(second),
                *self._feed_forward(time),
                *self._keys_values(instrument, across),
                *self._padding(across),
                *self._queries(instrument, across),
                self._bias(across),
                *self._output(across),
                *self._feed_forward(instrument),
            ]
        )

    def time_keys_values(self) -> np.ndarray:
        return _join(self._keys_values(self._time, f"{self._time}.attention", f"{self._time}.attention2"))

    def time_padding(self) -> np.ndarray:
        return _join(self._padding(f"{self._time}.attention", f"{self._time}.attention2"))
