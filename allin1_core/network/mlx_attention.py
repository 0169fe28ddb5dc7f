"""Neighbourhood attention in MLX: neighbouring frames are gathered, then it is two small matrix products."""

from __future__ import annotations

import functools

import mlx.core as mx
import numpy as np

from allin1_core.network import neighbourhood

Array = mx.array


def neighbourhood_attention(
    queries: Array, keys: Array, values: Array, bias: Array, kernel_size: int, dilation: int
) -> Array:
    """Neighbourhood attention over one axis, or over two with the same kernel size and dilation.

    Parameters
    ----------
    queries, keys, values : (B, H, T, D) or (B, H, R, T, D)
        B sequences, H heads, R rows, T frames, D channels of a head. Scores are not scaled.
    bias : (H, 2 * kernel_size - 1) or (H, 2 * kernel_size - 1, 2 * kernel_size - 1)
        Relative positional bias.
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
        (x[:, :, None] if is_flat else x).transpose(0, 3, 2, 1, 4)[None] for x in (queries, keys, values)
    )
    if is_flat:
        row_bias = bias[:, None, None]
    else:
        row_bias = mx.array(
            neighbourhood.instrument_bias(np.array(bias), queries.shape[3], kernel_size, dilation)
        )
    neighbours, bias_index = windows_on(queries.shape[2], kernel_size, dilation)
    output = attend(queries, keys, values, neighbours, mx.take(row_bias, bias_index, axis=-1)[None])
    output = output[0].transpose(0, 3, 2, 1, 4)
    return output[:, :, 0] if is_flat else output


def attend(queries: Array, keys: Array, values: Array, neighbours: Array, bias: Array) -> Array:
    """Neighbourhood attention over neighbouring frames and over all rows of a frame.

    Parameters
    ----------
    queries : (F, N, t, R, H, D)
        Of t frames, already divided by the root of D.
    keys, values : (F, N, T, S, H, D)
        Of all frames.
    neighbours : int32 (t, W)
        Frames that each frame's queries attend to.
    bias : (F, H, R, S, t, W)
        Added to the scores; minus infinity hides a key.

    Returns
    -------
    (F, N, t, R, H, D)
    """
    folds, sequences, _, num_rows, num_heads, head_size = keys.shape
    frames, width = neighbours.shape
    index = neighbours.reshape(-1)

    def gathered(x: Array) -> Array:
        x = mx.take(x, index, axis=2).reshape(
            folds, sequences, frames, width * num_rows, num_heads, head_size
        )
        return x.swapaxes(3, 4)

    scores = queries.swapaxes(3, 4) @ gathered(keys).swapaxes(4, 5)
    bias = bias.transpose(0, 4, 1, 2, 5, 3)
    scores = scores + bias.reshape(*bias.shape[:4], width * num_rows)[:, None]
    return (mx.softmax(scores, axis=-1) @ gathered(values)).swapaxes(3, 4)


@functools.lru_cache(maxsize=16)
def windows_on(length: int, kernel_size: int, dilation: int) -> tuple[Array, Array]:
    """`neighbourhood.windows` as MLX arrays."""
    neighbours, bias_index = neighbourhood.windows(length, kernel_size, dilation)
    return mx.array(neighbours), mx.array(bias_index)
