"""Which keys a query attends to, and how far each lies from it: the windows of neighbourhood attention.

Along one axis with dilation d, positions fall into d residue classes (``position % d``); a query sees
``kernel_size`` neighbouring members of its own class. In class coordinates ``c = position // d`` the window is
centred, ``[c - kernel_size // 2, c + kernel_size // 2]``, and is shifted, not cut, where it would leave the class::

    first = min(max(c - kernel_size // 2, 0), class_length - kernel_size)

so every query has exactly ``kernel_size`` keys. The relative positional bias is indexed by the signed distance in
class coordinates plus ``kernel_size - 1``. This is the definition of NATTEN 0.17 (Hassani et al., arXiv 2209.15001).
"""

from __future__ import annotations

import numpy as np


def windows(length: int, kernel_size: int, dilation: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours of every position along one axis.

    Parameters
    ----------
    length : int
        Positions along the axis, at least ``kernel_size * dilation``.
    kernel_size : int
        Keys per query, odd.
    dilation : int
        Distance of neighbouring keys, in positions.

    Returns
    -------
    neighbours : int32 (length, kernel_size)
        Positions of the keys.
    bias_index : int32 (length, kernel_size)
        Index of each key into a relative positional bias of ``2 * kernel_size - 1`` entries.

    Raises
    ------
    ValueError
        If the axis is shorter than the window.
    """
    if length < kernel_size * dilation:
        raise ValueError(
            f"length: {length} positions; expected at least kernel_size * dilation = "
            f"{kernel_size} * {dilation} = {kernel_size * dilation}; pad the axis"
        )
    position = np.arange(length, dtype=np.int32)
    residue = position % dilation
    own = position // dilation
    class_length = (length - 1 - residue) // dilation + 1
    first = np.minimum(np.maximum(own - kernel_size // 2, 0), class_length - kernel_size)
    members = first[:, None] + np.arange(kernel_size, dtype=np.int32)
    neighbours = members * dilation + residue[:, None]
    bias_index = members - own[:, None] + (kernel_size - 1)
    return neighbours, bias_index


def padded_length(length: int, kernel_size: int, largest_dilation: int) -> int:
    """Length of an axis after zeros are appended where it is shorter than its window."""
    return max(length, kernel_size * largest_dilation)


def instrument_bias(bias: np.ndarray, num_rows: int, kernel_size: int, dilation: int = 1) -> np.ndarray:
    """Relative positional bias of the row axis as a dense table, minus infinity outside a query's window.

    The instrument layer's rows are so few that all queries of a frame are multiplied with all rows of keys; the
    table then does the windowing along the rows.

    Parameters
    ----------
    bias : float32 (heads, 2 * kernel_size - 1, n)
        Relative positional bias: rows, then frames.

    Returns
    -------
    float32 (heads, num_rows, num_rows, n)
        For each head, row of the query, and row of the key: the bias by distance in frames.
    """
    neighbours, bias_index = windows(num_rows, kernel_size, dilation)
    table = np.full((bias.shape[0], num_rows, num_rows, bias.shape[2]), -np.inf, dtype=np.float32)
    for row in range(num_rows):
        table[:, row, neighbours[row]] = bias[:, bias_index[row]]
    return table
