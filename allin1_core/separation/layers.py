"""Layers of a loaded network computed otherwise: in a copy of it that shares its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def with_layers(
    network: nn.Module, forward_of: Callable[[nn.Module, nn.Module], Callable[..., Any] | None]
) -> nn.Module:
    """The same network with other ``forward`` methods; it stays as it is, and shares its weights.

    Parameters
    ----------
    network : Module
    forward_of : callable
        Called with each module and its copy, whose children have been replaced: the copy's ``forward``, or None.
    """
    converted = copy.copy(network)
    converted._modules = {
        name: None if child is None else with_layers(child, forward_of)
        for name, child in network._modules.items()
    }
    forward = forward_of(network, converted)
    if forward is not None:
        converted.forward = forward
    return converted


def is_zero_padded(layer: nn.Module) -> bool:
    """Whether a convolution pads with zeros, by numbers."""
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def is_plain(layer: nn.MultiheadAttention) -> bool:
    """Whether queries, keys and values are of one size, with biases, and nothing is added to them."""
    return (
        layer.batch_first
        and layer.in_proj_weight is not None
        and layer.in_proj_bias is not None
        and layer.bias_k is None
        and not layer.add_zero_attn
    )


def attention(
    product: Callable[[Tensor, Tensor, Tensor], Tensor],
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    layer: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    need_weights: bool = True,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """``layer(query, key, value, ...)`` of ``float32 (batch, length, size)``, where `is_plain`.

    Parameters
    ----------
    product : callable
        Of values, weight and bias: ``values @ weight.T + bias``.
    attend : callable
        As `torch.nn.functional.scaled_dot_product_attention`, of ``(batch, heads, length, size)``. Where weights are
        asked for, or there is a mask, the layer itself is called.
    """
    if need_weights or any(option is not None and option is not False for option in options.values()):
        attended: tuple[Tensor, Tensor | None] = layer(
            query, key, value, need_weights=need_weights, **options
        )
        return attended
    parts = zip((query, key, value), layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3), strict=True)
    heads = [product(*part).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2) for part in parts]
    values = attend(*heads)
    return product(values.transpose(1, 2).flatten(2), layer.out_proj.weight, layer.out_proj.bias), None
