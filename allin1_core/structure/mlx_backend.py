"""Local maxima of an MLX array, on its device."""

from __future__ import annotations

import mlx.core as mx


def local_maxima(probability: mx.array, window: int) -> mx.array:
    """See `allin1_core.structure.protocol.LocalMaximaBackend`; lazily evaluated.

    The maximum over a window of length w is the maximum of two overlapping windows of the largest power of two
    below it, and those come from doubling: log2(w) + 1 passes instead of w.
    """
    half = window // 2
    highest = mx.pad(probability, half, constant_values=-float("inf"))
    length = 1
    while 2 * length <= window:
        highest = mx.maximum(highest[:-length], highest[length:])
        length *= 2
    rest = window - length
    if rest:
        highest = mx.maximum(highest[:-rest], highest[rest:])
    return mx.where(probability < highest, mx.zeros_like(probability), probability)
