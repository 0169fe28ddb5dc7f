"""The configuration that comes with a checkpoint, in the words of its file."""

from __future__ import annotations

from typing import Any

SETTINGS: dict[str, Any] = {
    "model": "allin1",
    "dim_input": 81,
    "dim_embed": 24,
    "depth": 11,
    "num_heads": 2,
    "kernel_size": 5,
    "dilation_factor": 2,
    "dilation_max": 3200,
    "mlp_ratio": 4,
    "layer_norm_eps": 1.0e-5,
    "qkv_bias": True,
    "act_conv": "elu",
    "act_transformer": "gelu",
    "double_attention": True,
    "instrument_attention": True,
    "best_threshold_beat": 0.19,
    "best_threshold_downbeat": 0.22,
    "data": {"num_instruments": 4, "num_labels": 10},
}
