"""Neighbourhood attention by array operations: neighbouring frames are gathered, then it is two small products."""

from __future__ import annotations

import functools

import numpy as np

from allin1_core.network import neighbourhood
from allin1_core.network.operations import Array, Operations


def neighbourhood_attention(
    operations: Operations,
    queries: Array,
    keys: Array,
    values: Array,
    bias: Array,
    kernel_size: int,
    dilation: int,
) -> Array:
    """Neighbourhood attention over one axis, or over two with the same kernel size and dilation.

    Parameters
    ----------
    operations : Operations
        Of the library whose arrays follow.
    queries, keys, values : (B, H, T, D) or (B, H, R, T, D)
        B sequences, H heads, R rows, T frames, D channels of a head. Scores are not scaled.
    bias : (H, 2 * kernel_size - 1) or (H, 2 * kernel_size - 1, 2 * kernel_size - 1)
        Relative positional bias, in the host's memory.
    kernel_size, dilation : int

    Returns
    -------
    Of the shape of `queries`: ``softmax(queries . keys + bias) . values`` over each query's window.

    Raises
    ------
    ValueError
        If an axis is shorter than the window.
    """
    is_flat = queries.ndim == 4
    queries, keys, values = (
        (x[:, :, None] if is_flat else x).swapaxes(1, 3)[None] for x in (queries, keys, values)
    )
    table = np.asarray(bias)
    if is_flat:
        table = table[:, None, None]
    else:
        table = neighbourhood.instrument_bias(table, queries.shape[3], kernel_size, dilation)
    neighbours, bias_index = windows_on(operations, queries.shape[2], kernel_size, dilation)
    bias = operations.take(operations.array(np.moveaxis(table[None], -1, 0)), bias_index, 0)
    output = attend(operations, queries, keys, values, neighbours, bias)[0].swapaxes(1, 3)
    return output[:, :, 0] if is_flat else output


def attend(
    operations: Operations, queries: Array, keys: Array, values: Array, neighbours: Array, bias: Array
) -> Array:
    """Neighbourhood attention: over neighbouring frames, and over all rows of a frame.

    Parameters
    ----------
    queries : (F, N, t, R, H, D)
        Of t frames, already divided by the root of D.
    keys, values : (F, N, T, S, H, D)
        Of all frames.
    neighbours : int32 (t, W)
        Frames that each frame's queries attend to.
    bias : (t, W, F, H, R, S)
        Added to the scores; minus infinity hides a key.

    Returns
    -------
    (F, N, t, R, H, D)
    """

    def gathered(x: Array) -> Array:
        return operations.take(x, neighbours, 2).flatten(3, 4).swapaxes(3, 4)  # (F, N, t, H, W * S, D)

    scores = queries.swapaxes(3, 4) @ gathered(keys).swapaxes(4, 5)
    scores = scores + bias.moveaxis(2, 0).moveaxis(2, 4).flatten(4)[:, None]  # (F, 1, t, H, R, W * S)
    return (operations.softmax(scores, -1) @ gathered(values)).swapaxes(3, 4)


@functools.lru_cache(maxsize=16)
def windows_on(operations: Operations, length: int, kernel_size: int, dilation: int) -> tuple[Array, Array]:
    """`neighbourhood.windows` as the library's arrays."""
    neighbours, bias_index = neighbourhood.windows(length, kernel_size, dilation)
    return operations.array(neighbours), operations.array(bias_index)
