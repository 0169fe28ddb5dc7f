"""Conversion of torch tensors where they are: bit for bit what `allin1_core.audio.conversion` gives of arrays."""

from __future__ import annotations

import torch
from torch import Tensor


def as_float32(samples: Tensor) -> Tensor:
    """`allin1_core.audio.conversion.as_float32` of an int16 or float32 tensor, in order."""
    if samples.dtype != torch.int16:
        return samples.contiguous()
    return samples.to(torch.float32, memory_format=torch.contiguous_format).div_(32768)


def quantise(samples: Tensor) -> Tensor:
    """`allin1_core.audio.conversion.quantise` of a float32 tensor."""
    if samples.numel() == 0:
        return samples.to(torch.int16)
    # Waits for nothing: a stem that does not clip is divided by 1.
    peak = torch.clamp(samples.abs().max() * torch.tensor(1.01, dtype=torch.float32), min=1)
    # Times a power of two, so that float32 rounds where float64 would.
    return (samples / peak).mul_(32768).round_().clamp_(-32768, 32767).to(torch.int16)


def remix_to_mono(samples: Tensor) -> Tensor:
    """`allin1_core.audio.conversion.remix_to_mono` of an int16 or float32 tensor ``(num_samples, num_channels)``."""
    channels = samples.shape[1]
    if channels == 1:
        return samples[:, 0]
    if samples.dtype != torch.int16:
        total = samples[:, 0]
        for channel in range(1, channels):
            total = total + samples[:, channel]
        return total / channels
    return torch.div(samples.sum(1, dtype=torch.int32), channels, rounding_mode="trunc").to(torch.int16)
