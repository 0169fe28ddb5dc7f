"""Layers by oneDNN: which ones, their values, and that the network stays as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from allin1_core.separation import onednn
from allin1_core.separation.onednn import with_onednn

_PRODUCT = "mkldnn::_linear_pointwise"


class _Network(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        options = {"batch_first": True, **options}
        self.attention = nn.MultiheadAttention(32, 4, **options)
        self.linear = nn.Sequential(nn.Linear(32, 48), nn.Linear(48, 16, bias=False))

    def forward(self, query: torch.Tensor, key: torch.Tensor, **options: Any) -> torch.Tensor:
        values: torch.Tensor = self.linear(self.attention(query, key, key, **options)[0])
        return values


def _network(**options: Any) -> _Network:
    torch.manual_seed(0)
    return _Network(**options).eval()


def _products(network: nn.Module, *inputs: torch.Tensor, **options: Any) -> tuple[torch.Tensor, int]:
    """What a network gives, and how many products oneDNN computed for it."""
    with torch.inference_mode(), torch.profiler.profile() as profile:
        output = network(*inputs, **options)
    return output, sum(event.name == _PRODUCT for event in profile.events() or ())


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    query, key = (torch.randn(2, length, 32, generator=generator) for length in (70, 50))
    return query, key


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch without MKL is left as it is")
@pytest.mark.parametrize(
    ("of_the_layer", "of_the_call", "expected"),
    [
        ({}, {"need_weights": False}, 6),  # queries, keys, values, output; two linear layers
        ({}, {"need_weights": False, "attn_mask": torch.eye(70, 50).bool()}, 2),
        ({}, {"need_weights": True}, 2),
        ({"bias": False}, {"need_weights": False}, 2),
        ({"add_zero_attn": True}, {"need_weights": False}, 2),
        ({"add_bias_kv": True}, {"need_weights": False}, 2),
    ],
)
def test_layers_have_their_values_whatever_they_are_asked(
    inputs: tuple[torch.Tensor, torch.Tensor],
    of_the_layer: dict[str, Any],
    of_the_call: dict[str, Any],
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onednn, "_has_avx512", lambda: False)
    network = _network(**of_the_layer)
    by_torch, none = _products(network, *inputs, **of_the_call)
    by_onednn, products = _products(with_onednn(network), *inputs, **of_the_call)
    assert (none, products) == (0, expected)
    torch.testing.assert_close(by_onednn, by_torch, rtol=0, atol=1e-6)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch without MKL is left as it is")
@pytest.mark.parametrize("rows", [1, 7, 64, 70, 1000])
def test_attention_in_blocks_has_the_values_of_the_layer(
    inputs: tuple[torch.Tensor, torch.Tensor], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "_has_avx512", lambda: True)
    monkeypatch.setattr(onednn, "_rows_of_a_block", lambda num_keys: rows)
    query, key = (4 * values for values in inputs)  # so that weights are far from even
    network = _network()
    by_torch, _ = _products(network, query, key, need_weights=False)
    by_onednn, products = _products(with_onednn(network), query, key, need_weights=False)
    assert products == 6 + 2 * 4 * 2 * -(-70 // rows)  # batches, heads, keys and values, blocks
    torch.testing.assert_close(by_onednn, by_torch, rtol=0, atol=2e-6)


def test_blocks_hold_so_many_weights_for_each_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert onednn._rows_of_a_block(2688) == 390
    assert onednn._rows_of_a_block(2**24) == 1


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch without MKL is left as it is")
@pytest.mark.parametrize("layout", ["channels first", "channels last"])
@pytest.mark.parametrize(
    ("layer", "kernel"),
    [
        (nn.Conv1d(12, 10, 3, padding=2, dilation=2), "_convolution_pointwise"),
        (nn.Conv1d(12, 10, 8, stride=4, padding=2, bias=False), "_convolution_pointwise"),
        (nn.Conv1d(12, 10, 1), "_convolution_pointwise"),
        (nn.Conv1d(12, 20, 3, groups=4), "_convolution_pointwise"),
        (nn.Conv2d(12, 10, (8, 1), stride=(4, 1), padding=(2, 0)), "_convolution_pointwise"),
        (nn.Conv2d(12, 10, 3, padding=1), "_convolution_pointwise"),
        (nn.ConvTranspose1d(12, 10, 8, stride=4, output_padding=1), "_convolution_transpose_pointwise"),
        (nn.ConvTranspose1d(12, 20, 4, groups=2, dilation=2), "_convolution_transpose_pointwise"),
        (nn.ConvTranspose2d(12, 10, (8, 1), stride=(4, 1)), "_convolution_transpose_pointwise"),
        (nn.Conv1d(12, 10, 3, padding=1, padding_mode="reflect"), None),
        (nn.Conv1d(12, 10, 3, padding="same"), None),
    ],
    ids=str,
)
def test_convolutions(layer: Any, kernel: str | None, layout: str) -> None:
    generator = torch.Generator().manual_seed(1)
    shape = (3, 40, 12) if "1d" in type(layer).__name__ else (3, 17, 40, 12)
    signals = torch.randn(shape, generator=generator).movedim(-1, 1)
    signals = signals.contiguous() if layout == "channels first" else signals
    with torch.inference_mode(), torch.profiler.profile() as profile:
        found = with_onednn(layer)(signals)
    called = {event.name for event in profile.events() or () if "pointwise" in event.name}
    assert called == ({f"mkldnn::{kernel}"} if kernel else set())
    torch.testing.assert_close(found, layer(signals.contiguous()), rtol=0, atol=2e-6)
    assert kernel is None or found.stride(1) == 1  # so that the next one need not copy it


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch without MKL is left as it is")
@pytest.mark.parametrize("shape", [(1, 500_000, 16), (40, 30, 6), (2, 9, 30, 6)])
def test_normalisation_of_channels_side_by_side(shape: tuple[int, ...]) -> None:
    """Of many values torch's own form for this layout is ten times as far off as is allowed here."""
    generator = torch.Generator().manual_seed(1)
    layer = nn.GroupNorm(1, shape[-1], eps=0.01)
    nn.init.normal_(layer.weight, generator=generator)
    nn.init.normal_(layer.bias, generator=generator)
    signals = 1 + torch.randn(shape, generator=generator).movedim(-1, 1)
    with torch.inference_mode():
        found = with_onednn(layer)(signals)
    torch.testing.assert_close(
        found, copy.deepcopy(layer).double()(signals.double()).float(), rtol=0, atol=1e-5
    )
    assert found.stride(1) == 1


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch without MKL is left as it is")
@pytest.mark.parametrize("layer", [nn.GroupNorm(2, 6), nn.GroupNorm(1, 6, affine=False)], ids=str)
def test_other_normalisations_stay(layer: nn.GroupNorm) -> None:
    assert "forward" not in vars(with_onednn(layer))


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch without MKL is left as it is")
def test_a_normalisation_that_transposes_gives_what_lies_in_order() -> None:
    class Transposing(nn.GroupNorm):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return super().forward(values.transpose(1, 2)).transpose(1, 2)

    layer, values = Transposing(1, 6), torch.randn(2, 30, 6, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, expected = with_onednn(layer)(values), layer(values)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert (found.is_contiguous(), expected.is_contiguous()) == (True, False)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch without MKL is left as it is")
def test_what_drives_an_lstm_is_given_signals_with_time_innermost() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(6, 6)

        def forward(self, signals: torch.Tensor) -> torch.Tensor:
            assert signals.stride(-1) == 1
            values: torch.Tensor = self.lstm(signals.permute(2, 0, 1))[0].permute(1, 2, 0)
            return values

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(4, 6, 3), Recurrent(), nn.Conv1d(6, 5, 1))
    signals = torch.randn(2, 4, 30)
    with torch.inference_mode():
        torch.testing.assert_close(with_onednn(network)(signals), network(signals), rtol=0, atol=1e-6)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch without MKL is left as it is")
def test_the_network_shares_its_weights_and_stays(inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    network = _network()
    converted = with_onednn(network)
    ours, theirs = (dict(one.named_parameters()) for one in (converted, network))
    assert list(ours) == list(theirs)
    assert all(ours[name] is theirs[name] for name in theirs)
    assert _products(network, *inputs, need_weights=False)[1] == 0


@pytest.mark.parametrize("library", ["mkl", "mkldnn"])
def test_without_either_library_it_is_the_network_itself(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getattr(torch.backends, library), "is_available", lambda: False)
    network = _network()
    assert with_onednn(network) is network
