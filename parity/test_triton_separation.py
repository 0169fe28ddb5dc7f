"""The Triton kernels of the separation against float64, without CUDA in Triton's interpreter."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from parity.triton_interpreter import DEVICE, language_patched_once

torch = pytest.importorskip("torch")
pytest.importorskip("demucs_infer", reason="demucs-infer is not installed (extra 'demucs')")

from torch.nn.functional import gelu, glu, scaled_dot_product_attention  # noqa: E402

from allin1_core.backends.devices import products_in_tf32  # noqa: E402
from allin1_core.separation import triton_network  # noqa: E402
from allin1_core.separation.triton_network import with_triton  # noqa: E402

# Lanes behind the last value compute with what the memory holds.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True, scope="module")
def _language_patched_once() -> Iterator[None]:
    with language_patched_once():
        yield


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that signals which the interpreter takes in a second have several parts, and blocks of them."""
    if DEVICE == "cpu":
        monkeypatch.setattr(triton_network, "_LEAST_OF_A_PART", 512)
        monkeypatch.setattr(triton_network, "_OF_A_SUM", 128)


def values(*shape: int, seed: int = 0, scale: float = 1.0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator)).to(DEVICE)


def norm(channels: int) -> Any:
    layer = torch.nn.GroupNorm(1, channels).to(DEVICE).requires_grad_(False)
    layer.weight.copy_(1 + values(channels, seed=1, scale=0.3))
    layer.bias.copy_(values(channels, seed=2, scale=0.3))
    return layer


def normalised(x: Any, bias: Any, layer: Any) -> Any:
    """In float64; the bias is added in float32, in which signals of a large mean have few digits left."""
    return copy.deepcopy(layer).double()((x + bias[:, None]).double())


def close(found: Any, expected: Any, allowed: float = 2e-6) -> None:
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=allowed)


@pytest.mark.parametrize("shape", [(2, 4, 1), (1, 2, 1025), (2, 4, 3, 77), (1, 6, 1, 1)])
@pytest.mark.parametrize("in_rows", [False, True])
def test_activations(shape: tuple[int, ...], in_rows: bool) -> None:
    if in_rows and len(shape) == 3:
        shape = (*shape[:2], 1, shape[2])
    x, bias = values(*shape, scale=3), values(shape[1], seed=1)
    biased = (x.movedim(1, -1) + bias).movedim(-1, 1).double()
    for found, expected in (
        (triton_network._activated(x, bias, in_rows=in_rows), gelu(biased)),
        (triton_network._activated(x, bias, glu=True, in_rows=in_rows), glu(biased, 1)),
    ):
        assert found.is_contiguous()
        close(found, expected.transpose(1, 2) if in_rows else expected)


@pytest.mark.parametrize("cut", [(slice(2, -2), slice(None)), (slice(None), slice(1, 40))])
def test_activations_of_a_part_of_an_array(cut: tuple[slice, slice]) -> None:
    """A decoder's signals without their margins, along either dimension."""
    x, bias = values(2, 3, 9, 50)[:, :, *cut], values(3, seed=1)
    close(triton_network._activated(x, bias), gelu((x + bias[:, None, None]).double()))


@pytest.mark.parametrize(
    ("channels", "length"),
    [(1, 1), (3, 1), (2, 7), (6, 336), (5, 1021)],  # one value; parts of a block; several parts
)
def test_normalisation(channels: int, length: int) -> None:
    x, bias, layer = values(2, channels, length, scale=3), values(channels, seed=3), norm(channels)
    expected = normalised(x, bias, layer)
    close(triton_network._normalised(x, bias, layer), expected, 3e-6)
    close(triton_network._normalised(x, bias, layer, "gelu"), gelu(expected), 3e-6)
    in_order = x.transpose(1, 2).contiguous()
    without = triton_network._normalised_channels_last(layer, in_order).transpose(1, 2)
    close(without, normalised(x, torch.zeros_like(bias), layer), 3e-6)


@pytest.mark.parametrize("frequencies", [1, 3])
@pytest.mark.parametrize("length", [1, 37, 301])
def test_gates_scale_and_sum(length: int, frequencies: int) -> None:
    channels = 4
    x, bias, layer = values(6, 2 * channels, length), values(2 * channels, seed=3), norm(2 * channels)
    scale, added = values(channels, seed=4), values(6, channels, length, seed=5)
    expected = added.double() + scale.double()[:, None] * glu(normalised(x, bias, layer), 1)
    found = triton_network._gated(x, bias, layer, scale, added, frequencies)
    assert found.is_contiguous()
    if frequencies > 1:
        expected = expected.unflatten(0, (-1, frequencies)).transpose(1, 2)
    close(found, expected, 3e-6)


@pytest.mark.parametrize("first", [0.0, 1e4])
def test_a_large_mean_costs_no_digits(first: float) -> None:
    """torch's own is 1e-2 off; one value apart from all others must not bring that back."""
    x, bias, layer = 1e4 + values(1, 2, 2000, scale=0.1), torch.zeros(2, device=DEVICE), norm(2)
    x[:, 0, 0] += first and 0.5
    close(triton_network._normalised(x, bias, layer), normalised(x, bias, layer), 3e-6)


def test_a_constant_becomes_the_offset() -> None:
    layer, bias = norm(3), torch.full((3,), 0.25, device=DEVICE)
    found = triton_network._normalised(torch.full((2, 3, 700), 7.1, device=DEVICE), bias, layer)
    assert torch.equal(found, layer.bias[:, None].expand(2, 3, 700))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_does_not_vanish(value: float) -> None:
    """All of that signal, and no other."""
    x, bias, layer = values(2, 2, 900), torch.zeros(2, device=DEVICE), norm(2)
    x[1, 0, 800] = value
    found = triton_network._normalised(x, bias, layer)
    assert found[1].isnan().all()
    assert found[0].isfinite().all()
    for glu_too in (False, True):
        activated = triton_network._activated(x, bias, glu=glu_too)
        assert not activated[1].isfinite().all()
        assert activated[0].isfinite().all()


@pytest.mark.parametrize(
    ("num_queries", "num_keys", "size"), [(1, 1, 16), (64, 32, 64), (70, 50, 32), (9, 33, 16), (5, 7, 24)]
)
def test_attention(num_queries: int, num_keys: int, size: int) -> None:
    """The last head's size is none that the kernel has."""
    lengths = (num_queries, num_keys, num_keys)
    factors = [values(2, length, 3, size, seed=seed, scale=2) for seed, length in enumerate(lengths)]
    factors = [one.transpose(1, 2) for one in factors]
    expected = scaled_dot_product_attention(*(one.double() for one in factors))
    close(triton_network._attended(*factors), expected, 1e-5)


def test_attention_does_not_drop_what_is_no_number() -> None:
    queries, keys, contents = (values(1, 1, 40, 16, seed=seed) for seed in range(3))
    for factor in (queries, keys, contents):
        damaged = factor.clone()
        damaged[0, 0, 35, 3] = float("nan")
        factors = [damaged if one is factor else one for one in (queries, keys, contents)]
        found, expected = triton_network._attended(*factors), scaled_dot_product_attention(*factors)
        assert torch.equal(found.isnan(), expected.isnan())
        assert found.isnan().any()


def test_layers_of_the_network_without_a_norm_or_of_other_structure_are_those_of_torch() -> None:
    from demucs_infer.demucs import DConv
    from demucs_infer.hdemucs import HEncLayer

    x = values(1, 8, 40).cpu()
    for option, value in (("gelu", False), ("norm", False), ("lstm", True), ("attn", True)):
        torch.manual_seed(0)
        layer = DConv(8, compress=2, **{option: value}).eval()
        converted = with_triton(layer)
        assert "forward" not in vars(converted)
    for options in ({"norm_groups": 4}, {"norm": False, "empty": True}):
        assert "forward" not in vars(with_triton(HEncLayer(2, 8, **options)))
    assert "forward" in vars(with_triton(DConv(8)))
    assert "forward" in vars(with_triton(HEncLayer(2, 8, norm=False)))
    with torch.inference_mode():
        torch.testing.assert_close(converted(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["HTDemucs", "HDemucs", "HDemucs, bands apart"])
def test_a_whole_network(kind: str) -> None:
    """Also one whose branches meet, with layers of torch's among them; it stays, and shares its weights."""
    from demucs_infer.hdemucs import HDemucs
    from demucs_infer.htdemucs import HTDemucs

    torch.manual_seed(0)
    sources = ["drums", "bass"]
    if kind == "HTDemucs":
        options = {"channels": 8, "bottom_channels": 32, "t_layers": 2, "t_heads": 2, "nfft": 1024}
        network = HTDemucs(sources, segment=0.05, dconv_mode=3, dconv_init=1.0, **options)
    else:
        bands = {"multi_freqs": [0.3, 0.6], "multi_freqs_depth": 1} if "," in kind else {}
        network = HDemucs(sources, channels=4, nfft=1024, depth=5, segment=0.05, dconv_init=1.0, **bands)
    network = network.to(DEVICE).eval().requires_grad_(False)
    converted = with_triton(network)
    ours, theirs = (dict(one.named_parameters()) for one in (converted, network))
    assert list(ours) == list(theirs)
    assert all(ours[name] is theirs[name] for name in theirs)
    assert not any("forward" in vars(layer) for layer in network.modules())
    signals = values(1, 2, int(0.05 * 44100))
    with torch.inference_mode(), products_in_tf32(False):
        found, expected = converted(signals), network(signals)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
