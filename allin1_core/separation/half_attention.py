"""Attention in float16 for ``fast`` on CUDA, where torch has a kernel for the tensor cores that float32 has not."""

from __future__ import annotations

import functools

from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from allin1_core.separation.layers import attention, is_plain, with_layers


def with_half_attention(network: nn.Module) -> nn.Module:
    """The same network whose attention rounds queries, keys and values to float16: as many bits as TF32 has.

    Attention that is not plain, as with masks, stays. A value beyond 65,504 gives NaN.
    """

    def forward_of(layer: nn.Module, _: nn.Module) -> functools.partial | None:
        if type(layer) is nn.MultiheadAttention and is_plain(layer):
            return functools.partial(attention, linear, _attend, layer)
        return None

    return with_layers(network, forward_of)


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return scaled_dot_product_attention(queries.half(), keys.half(), values.half()).float()
