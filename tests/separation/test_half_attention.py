"""Attention in float16: its values, which layers have it, and what it does beyond its range."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from allin1_core.separation.half_attention import with_half_attention


def _layer(**options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    return nn.MultiheadAttention(32, 4, **{"batch_first": True, **options}).eval()


def _inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    query, key = (2 * torch.randn(2, length, 32, generator=generator) for length in (70, 50))
    return query, key


def test_queries_keys_and_values_are_rounded_to_float16() -> None:
    (query, key), layer = _inputs(), _layer()
    with torch.inference_mode():
        expected, _ = layer(query, key, key, need_weights=False)
        found, weights = with_half_attention(layer)(query, key, key, need_weights=False)
    assert (found.dtype, weights) == (torch.float32, None)
    error = (found - expected).abs().max() / expected.std()
    assert 1e-5 < error < 1e-2


@pytest.mark.parametrize(
    ("of_the_layer", "of_the_call"),
    [
        ({}, {"need_weights": False, "attn_mask": torch.eye(70, 50).bool()}),
        ({}, {"need_weights": True}),
        ({"bias": False}, {"need_weights": False}),
        ({"add_zero_attn": True}, {"need_weights": False}),
        ({"add_bias_kv": True}, {"need_weights": False}),
    ],
)
def test_other_attention_stays_as_it_is(of_the_layer: dict[str, Any], of_the_call: dict[str, Any]) -> None:
    (query, key), layer = _inputs(), _layer(**of_the_layer)
    with torch.inference_mode():
        expected, _ = layer(query, key, key, **of_the_call)
        found, _ = with_half_attention(layer)(query, key, key, **of_the_call)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_values_beyond_float16_do_not_pass_for_results() -> None:
    (query, key), layer = _inputs(), _layer()
    with torch.inference_mode():
        found, _ = with_half_attention(layer)(query, 1e6 * key, 1e6 * key, need_weights=False)
    assert found.isnan().any()
