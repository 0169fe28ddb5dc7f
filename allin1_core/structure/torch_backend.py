"""Local maxima of a torch tensor, on its device."""

from __future__ import annotations

import torch


def local_maxima(probability: torch.Tensor, window: int) -> torch.Tensor:
    """See `allin1_core.structure.protocol.LocalMaximaBackend`."""
    if probability.numel() == 0:
        return probability.clone()
    # Max pooling pads with -inf, as wanted.
    pooled = torch.nn.functional.max_pool1d(probability[None], window, stride=1, padding=window // 2)
    return torch.where(probability < pooled[0], torch.zeros_like(probability), probability)
