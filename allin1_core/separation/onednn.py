"""Convolutions, linear layers and attention of a torch network by oneDNN, in the forms that it is fastest at.

MKL runs its AVX2 code on processors with AVX-512 of other makers than its own, half as fast as oneDNN's, which torch
comes with, too, and takes for most convolutions. And `torch.nn.MultiheadAttention` holds all weights of a layer at a
time, 8 heads of 2,688 by 2,688 in Demucs. torch's own fused attention needs no more than a block of them, but has MKL
multiply: with AVX-512 it is done here, a block of queries at a time whose weights fit the cache.

Convolutions take and give arrays whose channels lie side by side (channels last). So oneDNN computes them at the rate
of products, those of one tap too, which torch leaves to MKL, and Demucs' residual branches, to which each frequency is
a signal of its own, need no copies. What lies between them keeps that layout.

Sums differ in their order alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, scaled_dot_product_attention

from allin1_core.separation.layers import attention, is_plain, is_zero_padded, with_layers

# Weights of a block of queries, for each thread: 2 MiB. Smaller ones would have threads wait for each other more often.
_WEIGHTS_OF_A_THREAD = 2**19


def with_onednn(network: nn.Module) -> nn.Module:
    """The same network with these layers computed by oneDNN; itself where torch has no MKL, or no oneDNN.

    Parameters
    ----------
    network : Module
        On the CPU, in float32, for inference. It stays as it is, and shares its weights.
    """
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return network
    return with_layers(network, _forward_of)


def _forward_of(module: nn.Module, converted: nn.Module) -> Callable[..., Any] | None:
    if type(module) in (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d) and is_zero_padded(
        module
    ):
        return functools.partial(_convolution, module)
    if type(module) is nn.GroupNorm and module.num_groups == 1 and module.affine:
        return functools.partial(_normalised, module)
    if isinstance(module, nn.GroupNorm) and type(module) is not nn.GroupNorm:
        # Demucs' own, between linear layers, transposes before and after: whatever follows would be strided.
        return functools.partial(_made_contiguous, module.forward)
    if any(type(child) is nn.LSTM for child in module.children()):
        # It cuts its input by strides, and wants time innermost.
        return functools.partial(_of_contiguous, converted.forward)
    if type(module) is nn.Linear:
        return functools.partial(_product, weight=module.weight, bias=module.bias)
    if type(module) is nn.MultiheadAttention and is_plain(module):
        return functools.partial(attention, _product, _attend, module)
    return None


def _convolution(layer: Any, signals: Tensor) -> Tensor:
    """``layer(signals)`` of ``float32 (batch, channels, ..., length)``; one dimension is an image of height 1."""
    flat = signals.dim() == 3
    images, weight = (one.unsqueeze(2) if flat else one for one in (signals, layer.weight))
    images = images.contiguous(memory_format=torch.channels_last)
    padding, stride, dilation = (
        (outer, *inner) if flat else inner
        for outer, inner in ((0, layer.padding), (1, layer.stride), (1, layer.dilation))
    )
    last: tuple[Any, ...] = (stride, dilation, layer.groups, "none", [], "")
    if layer.transposed:
        added = (0, *layer.output_padding) if flat else layer.output_padding
        convolved = torch.ops.mkldnn._convolution_transpose_pointwise(
            images, weight, layer.bias, padding, added, *last
        )
    else:
        convolved = torch.ops.mkldnn._convolution_pointwise(images, weight, layer.bias, padding, *last)
    return convolved.squeeze(2) if flat else convolved


def _normalised(layer: nn.GroupNorm, signals: Tensor) -> Tensor:
    """``layer(signals)`` of ``float32 (batch, channels, ..., length)`` and one group.

    Where channels lie side by side, torch takes the mean of squares less the square of the mean, 1e-4 off for 8 million
    values. So a signal is normalised as one channel, for which it sums squares of differences.
    """
    last = signals.movedim(1, -1)
    values = last.reshape(len(signals), 1, -1)
    normalised = group_norm(values, 1, eps=layer.eps).view(last.shape)
    return torch.addcmul(layer.bias, normalised, layer.weight).movedim(-1, 1)


def _of_contiguous(forward: Callable[[Tensor], Tensor], signals: Tensor) -> Tensor:
    return forward(signals.contiguous())


def _made_contiguous(forward: Callable[[Tensor], Tensor], signals: Tensor) -> Tensor:
    return forward(signals).contiguous()


def _product(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``values @ weight.T + bias``."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")
    return product


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    attended: Tensor = (_in_blocks if _has_avx512() else scaled_dot_product_attention)(queries, keys, values)
    return attended


def _has_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def _in_blocks(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """``scaled_dot_product_attention`` of ``float32 (batch, heads, length, size)``, block by block of the queries."""
    (batch, heads, length, size), rows = queries.shape, _rows_of_a_block(keys.shape[2])
    attended = queries.new_empty(batch, length, heads, size).transpose(1, 2)
    for index in np.ndindex(batch, heads):
        scaled_keys, transposed = keys[index] * size**-0.5, values[index].T.contiguous()
        for block, result in zip(queries[index].split(rows), attended[index].split(rows), strict=True):
            weights = _product(block, scaled_keys, None).softmax(-1)
            result.copy_(_product(weights, transposed, None))
    return attended


def _rows_of_a_block(num_keys: int) -> int:
    return max(1, _WEIGHTS_OF_A_THREAD * torch.get_num_threads() // num_keys)
