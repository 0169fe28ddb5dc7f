"""Neighbourhood attention by its definition, one query and one key at a time, in float64."""

from __future__ import annotations

import itertools

import numpy as np


def window(position: int, length: int, kernel_size: int, dilation: int) -> list[tuple[int, int]]:
    """Keys of one query along one axis: position, and signed distance in steps of the dilation."""
    members = range(position % dilation, length, dilation)  # its residue class
    own = members.index(position)
    first = own - kernel_size // 2
    while first < 0:
        first += 1
    while first + kernel_size > len(members):
        first -= 1
    return [(members[index], index - own) for index in range(first, first + kernel_size)]


def naive_attention(
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    bias: np.ndarray,
    kernel_size: int,
    dilation: int,
) -> np.ndarray:
    """Attention of arrays (B, heads, *axes, D) over every one of `axes`, scores not scaled; rounded to float32."""
    axes = queries.shape[2:-1]
    output = np.zeros(queries.shape)
    for sequence, head in itertools.product(*map(range, queries.shape[:2])):
        for query in itertools.product(*map(range, axes)):
            windows = [
                window(at, length, kernel_size, dilation) for at, length in zip(query, axes, strict=True)
            ]
            scores, seen = [], []
            for neighbours in itertools.product(*windows):
                key = tuple(at for at, _ in neighbours)
                distance = tuple(steps + kernel_size - 1 for _, steps in neighbours)
                products = queries[sequence, head][query].astype(np.float64) * keys[sequence, head][key]
                scores.append(float(products.sum()) + float(bias[head][distance]))
                seen.append(values[sequence, head][key].astype(np.float64))
            weights = np.exp(np.array(scores) - max(scores))
            output[sequence, head][query] = (weights[:, None] * np.array(seen)).sum(axis=0) / weights.sum()
    return output.astype(np.float32)
