"""Triton kernels of what Demucs' networks do between convolutions: biases, activations, normalisations and sums.

Arrays are float32, and so is arithmetic. A signal is normalised over all its channels and samples, in two passes:
`moments` sums parts of it, and `normalise` merges these sums and computes what follows.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Of a signal, the most that are summed by themselves; `normalise` reads the sums of all.
MOST_PARTS = tl.constexpr(128)


@triton.jit
def _gelu(x):
    return x * 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def activate(
    x, bias, gates, out, channels, plane, length, x_batch, x_channel, out_batch, out_channel, out_row,
    GLU: tl.constexpr, IN_ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """GELU of ``x + bias``, or GLU of it: `x` times the sigmoid of `gates`, each with its biases.

    A program takes BLOCK values of a plane of one of `channels`. Planes of `x` and `gates` lie in order; with IN_ROWS,
    rows of `length` in that of `out` are `out_row` apart. Other strides are of batch and channel.
    """
    batch = (tl.program_id(0) // channels).to(tl.int64)
    channel = tl.program_id(0) % channels
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < plane
    start = batch * x_batch + channel.to(tl.int64) * x_channel
    value = tl.load(x + start + at, mask=inside, other=0.0) + tl.load(bias + channel)
    if GLU:
        gate = tl.load(gates + start + at, mask=inside, other=0.0)
        value *= tl.sigmoid(gate + tl.load(bias + channels + channel))
    else:
        value = _gelu(value)
    out += batch * out_batch + channel.to(tl.int64) * out_channel
    if IN_ROWS:
        row = at // length
        at = (at - row * length) + row.to(tl.int64) * out_row
    tl.store(out + at, value, mask=inside)


@triton.jit
def _channel(at, channels, length, CHANNELS_LAST: tl.constexpr):
    return at % channels if CHANNELS_LAST else at // length


@triton.jit
def _biased(x, bias, at, channel, inside, BIASED: tl.constexpr):
    value = tl.load(x + at, mask=inside, other=0.0)
    if BIASED:
        value += tl.load(bias + channel, mask=inside, other=0.0)
    return value


@triton.jit
def _first(x, bias, BIASED: tl.constexpr):
    """The first value of a signal, of which differences are taken: so a large mean costs no digits."""
    value = tl.load(x)
    if BIASED:
        value += tl.load(bias)
    return value


@triton.jit
def moments(
    x, bias, sums, channels, length, part_size, BIASED: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Mean less the signal's first value, and squared deviations from it, of one part of a signal of ``x + bias``.

    From (signals, channels * length) to (signals, 2, MOST_PARTS). Each lane updates its own as Welford (1962) does, and
    those of the lanes are merged as Chan, Golub and LeVeque (1979) do.
    """
    size = channels * length
    x += tl.program_id(0).to(tl.int64) * size
    start = tl.program_id(1) * part_size
    stop = tl.minimum(start + part_size, size)
    first = _first(x, bias, BIASED)
    lanes = tl.arange(0, BLOCK)
    means = tl.zeros((BLOCK,), tl.float32)
    squares = tl.zeros((BLOCK,), tl.float32)
    count = 0.0
    for block in range(start, stop, BLOCK):
        at = block + lanes
        inside = at < stop
        channel = _channel(at, channels, length, CHANNELS_LAST)
        value = _biased(x, bias, at, channel, inside, BIASED) - first
        count += 1.0
        difference = value - means
        updated = means + difference * (1.0 / count)
        squares = tl.where(inside, squares + difference * (value - updated), squares)
        means = tl.where(inside, updated, means)
    counts = tl.cdiv(stop - start - lanes, BLOCK) * 1.0
    mean = tl.sum(means * counts, axis=0) / ((stop - start) * 1.0)
    apart = means - mean
    sums += tl.program_id(0).to(tl.int64) * (2 * MOST_PARTS) + tl.program_id(1)
    tl.store(sums, mean)
    tl.store(sums + MOST_PARTS, tl.sum(squares + counts * apart * apart, axis=0))


@triton.jit
def normalise(
    x, bias, sums, weight, offset, scale, added, out, channels, length, part_size, rows, out_batch, out_row,
    out_channel, epsilon, ACTIVATION: tl.constexpr, BIASED: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """A signal of ``x + bias`` over its deviation, times weight, plus offset, and what follows.

    ACTIVATION is ``none``, ``gelu``, or ``glu``: ``added + scale * glu(...)``, whose result has half the channels. Of
    that one signal s is written to row ``s % rows`` of batch ``s // rows`` in the strides of `out`; else in order.
    """
    size = channels * length
    signal = tl.program_id(0).to(tl.int64)
    x += signal * size
    first = _first(x, bias, BIASED)
    parts = tl.arange(0, MOST_PARTS)
    counts = tl.minimum(tl.maximum(size - parts * part_size, 0), part_size).to(tl.float32)
    filled = counts > 0.0
    sums += signal * (2 * MOST_PARTS) + parts
    means = tl.load(sums, mask=filled, other=0.0)
    mean = tl.sum(means * counts, axis=0) / (size * 1.0)
    apart = means - mean
    squares = tl.load(sums + MOST_PARTS, mask=filled, other=0.0) + counts * apart * apart
    factor = 1.0 / tl.sqrt_rn(tl.sum(squares, axis=0) / (size * 1.0) + epsilon)

    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if ACTIVATION == "glu":
        half = size // 2
        inside = at < half
        channel = at // length
        gate = channel + channels // 2
        value = (_biased(x, bias, at, channel, inside, BIASED) - first - mean) * factor
        value = value * tl.load(weight + channel, mask=inside, other=0.0)
        value += tl.load(offset + channel, mask=inside, other=0.0)
        other = (_biased(x + half, bias, at, gate, inside, BIASED) - first - mean) * factor
        other = other * tl.load(weight + gate, mask=inside, other=0.0)
        other += tl.load(offset + gate, mask=inside, other=0.0)
        value *= tl.sigmoid(other) * tl.load(scale + channel, mask=inside, other=0.0)
        value += tl.load(added + signal * half + at, mask=inside, other=0.0)
        out += (signal // rows) * out_batch + (signal % rows) * out_row
        at = (at - channel * length) + channel.to(tl.int64) * out_channel
    else:
        inside = at < size
        channel = _channel(at, channels, length, CHANNELS_LAST)
        value = (_biased(x, bias, at, channel, inside, BIASED) - first - mean) * factor
        value = value * tl.load(weight + channel, mask=inside, other=0.0)
        value += tl.load(offset + channel, mask=inside, other=0.0)
        if ACTIVATION == "gelu":
            value = _gelu(value)
        out += signal * size
    tl.store(out + at, value, mask=inside)
