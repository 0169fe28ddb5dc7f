"""Demucs' networks on CUDA with our Triton kernels (`triton_layers`, `triton_attention`) between torch's products.

torch adds the biases of a convolution in a pass of its own, sums a signal that is normalised in one program, and takes
a pass for each of what follows; here it is one pass, or two where there is a normalisation. Layers of another structure
than those below stay torch's.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import torch
import triton
from demucs_infer.demucs import DConv
from demucs_infer.hdemucs import HDecLayer, HEncLayer
from demucs_infer.transformer import LayerScale, MyGroupNorm
from torch import Tensor, nn
from torch.nn.functional import linear, pad, scaled_dot_product_attention

from allin1_core.backends.triton_kernels import check_capability, unfit_where_not_compiled
from allin1_core.separation import triton_attention, triton_layers
from allin1_core.separation.layers import attention, is_plain, is_zero_padded, with_layers

_LOG = logging.getLogger(__name__)
_NAME = "separation"
_REMEDY = "provide them, or separate with plain torch"
_MOST_PARTS = triton_layers.MOST_PARTS.value
# Values that a program sums at least, unless a signal has fewer, and those that it has at a time.
_LEAST_OF_A_PART, _OF_A_SUM = 2**14, 2**11
# Values that a program takes at most, where each is computed from itself and where signals are normalised.
_OF_AN_ACTIVATION, _OF_A_NORMALISATION = 2**10, 2**11
_WARPS = 4
# Queries of a program, and the keys that it takes at a time: of six sizes that were tried on an H100 the quickest.
_QUERIES, _KEYS = 128, 32
_SIZES_OF_A_HEAD = (16, 32, 64)


def with_triton(network: nn.Module, *, attend: bool = True) -> nn.Module:
    """The same network with these layers computed by our kernels.

    Parameters
    ----------
    network : Module
        On CUDA, in float32, for inference. It stays as it is, and shares its weights.
    attend : bool
        Whether attention is computed by them, too.
    """

    def forward_of(module: nn.Module, converted: nn.Module) -> Callable[..., Any] | None:
        if attend and type(module) is nn.MultiheadAttention and is_plain(module):
            return functools.partial(attention, linear, _attended, module)
        return _forward_of(module, converted)

    return with_layers(network, forward_of)


def check_kernels(device: torch.device) -> None:
    """Raise `UnfitBackendError` if the kernels cannot be compiled and run on a card; a few of them are."""
    check_capability(device, _NAME, _REMEDY)
    _LOG.info("separation: loading Triton kernels, which are compiled once for each kind of card")
    with unfit_where_not_compiled(_NAME, _REMEDY), torch.inference_mode(), torch.cuda.device(device):
        values, biases = torch.zeros((1, 2, 8), device=device), torch.zeros(4, device=device)
        norm, norm_of_gates = (nn.GroupNorm(1, channels).to(device) for channels in (2, 4))
        hidden = _normalised(_activated(values, biases), biases, norm, "gelu")
        _gated(values.repeat(1, 2, 1), biases, norm_of_gates, biases, hidden, 1)
        _attended(*(torch.zeros((1, 1, 1, 64), device=device) for _ in range(3))).cpu()


def _forward_of(module: nn.Module, converted: nn.Module) -> Callable[..., Any] | None:
    if type(module) is DConv and _is_fused(module):
        return functools.partial(_residual_branches, module, 1)
    if type(module) is HEncLayer and not module.empty and _has_plain_layers(module, "conv", "rewrite"):
        return functools.partial(_encoded, converted, converted.forward)
    if type(module) is HDecLayer and _has_plain_layers(module, "conv_tr", "rewrite"):
        return functools.partial(_decoded, converted)
    if type(module) is MyGroupNorm and _is_of_whole_signals(module):
        return functools.partial(_normalised_channels_last, module)
    return None


def _is_fused(branches: Any) -> bool:
    """Whether every residual branch is two convolutions, each normalised, with GELU, GLU and scale alone."""
    return all(
        [type(part) for part in layer]
        == [nn.Conv1d, nn.GroupNorm, nn.GELU, nn.Conv1d, nn.GroupNorm, nn.GLU, LayerScale]
        and all(map(_is_plain_convolution, (layer[0], layer[3])))
        and all(map(_is_of_whole_signals, (layer[1], layer[4])))
        and layer[2].approximate == "none"
        and layer[5].dim == 1
        and not layer[6].channel_last
        for layer in branches.layers
    )


def _has_plain_layers(layer: Any, *names: str) -> bool:
    """Whether an encoder's or decoder's layer has these convolutions, the second if at all, and normalises nothing."""
    norms = (getattr(layer, name, None) for name in ("norm1", "norm2"))
    convolutions = [getattr(layer, name, None) for name in names]
    return all(norm is None or type(norm) is nn.Identity for norm in norms) and all(
        one is None or _is_plain_convolution(one) for one in convolutions
    )


def _is_plain_convolution(layer: Any) -> bool:
    return layer.bias is not None and is_zero_padded(layer)


def _is_of_whole_signals(norm: Any) -> bool:
    return bool(norm.num_groups == 1 and norm.affine)


def _attended(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """``scaled_dot_product_attention`` of float32 (batch, heads, length, size)."""
    size = queries.shape[-1]
    if size not in _SIZES_OF_A_HEAD:
        return scaled_dot_product_attention(queries, keys, values)
    queries, keys, values = (one.transpose(1, 2).contiguous() for one in (queries, keys, values))
    (batch, num_queries, heads, _), num_keys = queries.shape, keys.shape[1]
    out = torch.empty_like(queries)
    triton_attention.attend[triton.cdiv(num_queries, _QUERIES), batch * heads](
        queries, keys, values, out, num_queries, num_keys, heads, queries.stride(0), keys.stride(0),
        size**-0.5 * math.log2(math.e), SIZE=size, QUERIES=_QUERIES, KEYS=_KEYS, num_warps=_WARPS, num_stages=2,
    )  # fmt: skip
    return out.transpose(1, 2)


def _encoded(layer: Any, forward: Callable[..., Tensor], x: Tensor, inject: Tensor | None = None) -> Tensor:
    """``HEncLayer.forward``; that itself where the other branch's signals are added."""
    if inject is not None:
        return forward(x, inject)
    if not layer.freq and x.dim() == 4:
        x = x.flatten(1, 2)
    if not layer.freq:
        x = pad(x, (0, -x.shape[-1] % layer.stride))
    y = _of_branches(
        layer, _activated(_convolved(layer.conv, x), layer.conv.bias, in_rows=_is_in_rows(layer))
    )
    return (
        y if layer.rewrite is None else _activated(_convolved(layer.rewrite, y), layer.rewrite.bias, glu=True)
    )


def _decoded(layer: Any, x: Tensor, skip: Tensor | None, length: int) -> tuple[Tensor, Tensor]:
    """``HDecLayer.forward``."""
    if layer.freq and x.dim() == 3:
        x = x.unflatten(1, (layer.chin, -1))
    if skip is None:
        assert layer.empty
        y = x
    else:
        y = x + skip
        if layer.rewrite is not None:
            rewritten = _convolved(layer.rewrite, y)
            y = _activated(rewritten, layer.rewrite.bias, glu=True, in_rows=_is_in_rows(layer))
        elif _is_in_rows(layer):
            y = y.transpose(1, 2).contiguous()
        y = _of_branches(layer, y)
    z = _convolved(layer.conv_tr, y)
    if not layer.freq:
        z = z[..., layer.pad : layer.pad + length]
        assert z.shape[-1] == length, (z.shape[-1], length)
    elif layer.pad:
        z = z[..., layer.pad : -layer.pad, :]
    bias = layer.conv_tr.bias
    return (z + bias.view(-1, *[1] * (z.dim() - 2)) if layer.last else _activated(z, bias)), y


def _is_in_rows(layer: Any) -> bool:
    """Whether each frequency is a signal of its own to a layer's residual branches."""
    return bool(layer.freq and layer.dconv is not None)


def _of_branches(layer: Any, y: Tensor) -> Tensor:
    """The residual branches of a layer, if it has any; `y` is (batch, frequencies, channels, length) if in rows."""
    if layer.dconv is None:
        return y
    if not layer.freq:
        branched: Tensor = layer.dconv(y)
        return branched
    batch, frequencies, channels, length = y.shape
    signals = y.flatten(0, 1)
    if _is_fused(layer.dconv):
        in_order = _residual_branches(layer.dconv, frequencies, signals)
        return in_order.view(batch, channels, frequencies, length)
    return layer.dconv(signals).view(y.shape).transpose(1, 2)


def _residual_branches(branches: Any, frequencies: int, x: Tensor) -> Tensor:
    """``DConv.forward`` of signals (batch * frequencies, channels, length).

    Returns
    -------
    float32 (batch, channels, frequencies, length), or (batch, channels, length) of one frequency
    """
    x, last = x.contiguous(), len(branches.layers) - 1
    for index, (first, norm, _, second, norm_of_gates, _, scale) in enumerate(branches.layers):
        hidden = _normalised(_convolved(first, x), first.bias, norm, "gelu")
        rows = frequencies if index == last else 1
        x = _gated(_convolved(second, hidden), second.bias, norm_of_gates, scale.scale, x, rows)
    return x


def _convolved(layer: Any, x: Tensor) -> Tensor:
    """``layer(x)`` without its bias."""
    return torch.convolution(
        x, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.transposed, layer.output_padding,
        layer.groups,
    )  # fmt: skip


def _activated(x: Tensor, bias: Tensor, *, glu: bool = False, in_rows: bool = False) -> Tensor:
    """GELU or GLU of ``x + bias``, float32 (batch, channels, ..., length).

    With `in_rows`, of (batch, channels, frequencies, length), it is (batch, frequencies, channels, length).
    """
    planes = x.flatten(2)  # no copy of what is cut along the first dimension of a plane
    if planes.stride(2) != 1:
        planes = planes.contiguous()
    batch, channels, size = planes.shape
    length = x.shape[-1]
    if glu:
        channels //= 2
    out = x.new_empty((batch, x.shape[2], channels, length) if in_rows else (batch, channels, *x.shape[2:]))
    triton_layers.activate[batch * channels, triton.cdiv(size, _OF_AN_ACTIVATION)](
        planes, bias, planes[:, channels:] if glu else planes, out, channels, size, length, planes.stride(0),
        planes.stride(1), out.stride(0), out.stride(2 if in_rows else 1), out.stride(1), GLU=glu, IN_ROWS=in_rows,
        BLOCK=_OF_AN_ACTIVATION, num_warps=_WARPS,
    )  # fmt: skip
    return out


def _moments(x: Tensor, bias: Tensor | None, channels: int, *, channels_last: bool) -> tuple[Tensor, int]:
    """Sums of the parts of signals in order, as `triton_layers.moments` gives them, and the parts' size."""
    size = x[0].numel()
    part_size = max(_LEAST_OF_A_PART, triton.cdiv(triton.cdiv(size, _MOST_PARTS), _OF_A_SUM) * _OF_A_SUM)
    sums = x.new_empty((len(x), 2, _MOST_PARTS))
    triton_layers.moments[len(x), triton.cdiv(size, part_size)](
        x, x if bias is None else bias, sums, channels, size // channels, part_size, BIASED=bias is not None,
        CHANNELS_LAST=channels_last, BLOCK=min(_OF_A_SUM, triton.next_power_of_2(size)), num_warps=_WARPS,
    )  # fmt: skip
    return sums, part_size


def _normalised(
    x: Tensor, bias: Tensor | None, norm: Any, activation: str = "none", *, channels_last: bool = False
) -> Tensor:
    """``norm(x + bias)`` of signals (batch, channels, length), or (batch, length, channels), and GELU of it."""
    x = x.contiguous()
    channels, size = norm.num_channels, x[0].numel()
    sums, part_size = _moments(x, bias, channels, channels_last=channels_last)
    out, block = torch.empty_like(x), min(_OF_A_NORMALISATION, triton.next_power_of_2(size))
    triton_layers.normalise[len(x), triton.cdiv(size, block)](
        x, x if bias is None else bias, sums, norm.weight, norm.bias, x, x, out, channels, size // channels,
        part_size, 1, 0, 0, 0, norm.eps, ACTIVATION=activation, BIASED=bias is not None,
        CHANNELS_LAST=channels_last, BLOCK=block, num_warps=_WARPS,
    )  # fmt: skip
    return out


def _normalised_channels_last(norm: Any, x: Tensor) -> Tensor:
    """``MyGroupNorm.forward`` of signals (batch, length, channels)."""
    return _normalised(x, None, norm, channels_last=True)


def _gated(x: Tensor, bias: Tensor, norm: Any, scale: Tensor, added: Tensor, frequencies: int) -> Tensor:
    """``added + scale * glu(norm(x + bias))``, as `_residual_branches` gives it."""
    x = x.contiguous()
    signals, channels, length = added.shape
    sums, part_size = _moments(x, bias, 2 * channels, channels_last=False)
    by_frequency = (signals // frequencies, channels, frequencies, length)
    out = x.new_empty(added.shape if frequencies == 1 else by_frequency)
    block = min(_OF_A_NORMALISATION, triton.next_power_of_2(channels * length))
    triton_layers.normalise[signals, triton.cdiv(channels * length, block)](
        x, bias, sums, norm.weight, norm.bias, scale, added, out, 2 * channels, length, part_size, frequencies,
        out.stride(0), length, out.stride(1), norm.eps, ACTIVATION="glu", BIASED=True, CHANNELS_LAST=False,
        BLOCK=block, num_warps=_WARPS,
    )  # fmt: skip
    return out
