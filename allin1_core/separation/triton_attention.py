"""Triton kernel of float32 attention on tensor cores, which torch's own for float32 does not use."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _product(x, y):
    """``x @ y`` of factors that are each a sum of two in TF32, without the product of the smaller ones: 2^-22 of it."""
    return tl.dot(x, y, input_precision="tf32x3")


@triton.jit
def attend(
    queries, keys, values, out, num_queries, num_keys, num_heads, query_batch, key_batch, scale, SIZE: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Softmax of ``queries @ keys.T * scale``, to base 2, times values: (batch, length, num_heads, SIZE) in order.

    A program takes QUERIES of one head, and KEYS at a time. Tensor cores cut their sums, and do not round them: so
    those of a block are added here.
    """
    batch = (tl.program_id(1) // num_heads).to(tl.int64)
    head = tl.program_id(1) % num_heads * SIZE
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    inside_rows = (rows < num_queries)[:, None]
    channels = tl.arange(0, SIZE)
    width = num_heads * SIZE
    keys += batch * key_batch + head
    values += batch * key_batch + head
    places = batch * query_batch + head + rows[:, None] * width + channels[None, :]
    query = tl.load(queries + places, mask=inside_rows, other=0.0) * scale
    largest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    result = tl.zeros((QUERIES, SIZE), tl.float32)
    for first in range(0, num_keys, KEYS):
        at = first + tl.arange(0, KEYS)
        inside = at < num_keys
        key = tl.load(keys + at[None, :] * width + channels[:, None], mask=inside[None, :], other=0.0)
        scores = tl.where(inside[None, :], _product(query, key), float("-inf"))
        highest = tl.maximum(largest, tl.max(scores, axis=1))
        shares = tl.exp2(scores - highest[:, None])
        factor = tl.exp2(largest - highest)
        total = total * factor + tl.sum(shares, axis=1)
        value = tl.load(values + at[:, None] * width + channels[None, :], mask=inside[:, None], other=0.0)
        result = result * factor[:, None] + _product(shares, value)
        largest = highest
    tl.store(out + places, result / total[:, None], mask=inside_rows)
