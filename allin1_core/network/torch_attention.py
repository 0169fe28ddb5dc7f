"""Neighbourhood attention in plain PyTorch: neighbouring frames are gathered, then it is two small matrix products."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from allin1_core.network import neighbourhood


def neighbourhood_attention(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, kernel_size: int, dilation: int
) -> Tensor:
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
        (x.unsqueeze(2) if is_flat else x).permute(0, 3, 2, 1, 4).unsqueeze(0)
        for x in (queries, keys, values)
    )
    if is_flat:
        row_bias = bias[:, None, None]
    else:
        table = neighbourhood.instrument_bias(
            np.asarray(bias.detach().cpu()), queries.shape[3], kernel_size, dilation
        )
        row_bias = torch.from_numpy(table).to(bias.device)
    neighbours, bias_index = windows_on(queries.device, queries.shape[2], kernel_size, dilation)
    output = attend(queries, keys, values, neighbours, row_bias[..., bias_index].unsqueeze(0))
    output = output.squeeze(0).permute(0, 3, 2, 1, 4)
    return output.squeeze(2) if is_flat else output


def attend(queries: Tensor, keys: Tensor, values: Tensor, neighbours: Tensor, bias: Tensor) -> Tensor:
    """Neighbourhood attention: over neighbouring frames, and over all rows of a frame.

    Parameters
    ----------
    queries : (F, N, t, R, H, D)
        Of t frames, already divided by the root of D.
    keys, values : (F, N, T, S, H, D)
        Of all frames.
    neighbours : int (t, W)
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

    def gathered(x: Tensor) -> Tensor:
        x = x.index_select(2, index).view(folds, sequences, frames, width * num_rows, num_heads, head_size)
        return x.transpose(3, 4)

    scores = queries.transpose(3, 4) @ gathered(keys).transpose(4, 5)
    scores = scores + bias.permute(0, 4, 1, 2, 5, 3).flatten(4).unsqueeze(1)
    return (torch.softmax(scores, dim=-1) @ gathered(values)).transpose(3, 4)


@functools.lru_cache(maxsize=16)
def windows_on(device: torch.device, length: int, kernel_size: int, dilation: int) -> tuple[Tensor, Tensor]:
    """`neighbourhood.windows` on a device."""
    neighbours, bias_index = neighbourhood.windows(length, kernel_size, dilation)
    return torch.from_numpy(neighbours).to(device), torch.from_numpy(bias_index).to(device)
