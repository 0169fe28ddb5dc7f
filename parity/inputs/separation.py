"""Separation models with seeded random weights, and the mixes that they are run on.

Random weights at their usual scale leave most of such a network idle: residual branches start at a thousandth or less,
and what is deep fades. So each layer's weights are divided by the deviation of its output on music, in the order in
which the layers run (layer-sequential unit variance, Mishkin and Matas 2016), and residual branches count fully: every
layer then has activations of order one, and an error anywhere shows in the stems. The last ones are half as strong, so
that stems are about as loud beside their mix as stems are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SOURCES = ("drums", "bass", "other", "vocals")
# The network of Demucs' default model, ``htdemucs``: 42 million parameters, segments of 7.8 s.
PUBLISHED: dict[str, Any] = {"bottom_channels": 512, "segment": 7.8}
# The same structure with fewer channels, and segments of half a second.
SMALL: dict[str, Any] = {
    "channels": 8,
    "bottom_channels": 16,
    "t_layers": 3,
    "t_heads": 2,
    "nfft": 1024,
    "segment": 0.5,
}


def htdemucs(mix: np.ndarray, seed: int = 0, **options: Any) -> Any:
    """A Hybrid Transformer Demucs whose layers have activations of order one on a mix.

    Parameters
    ----------
    mix : float32 (2, num_samples)
        At least a segment of music.
    seed : int
        Of the weights.
    options
        Of ``demucs_infer.htdemucs.HTDemucs``.
    """
    from demucs_infer.htdemucs import HTDemucs

    return scaled(HTDemucs, mix, seed, sources=list(SOURCES), samplerate=44100, **options)


def save(network: Any, path: Path, **options: Any) -> None:
    """Write an `htdemucs` of these options as ``NAME.th``, for `demix_repository`."""
    import torch

    options = {"sources": list(SOURCES), "samplerate": 44100, **options}
    torch.save({"klass": type(network), "args": [], "kwargs": options, "state": network.state_dict()}, path)


def scaled(architecture: type[Any], mix: np.ndarray, seed: int, **options: Any) -> Any:
    """A network of Demucs with random weights, scaled as above."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = architecture(**options).eval()
    for name, parameter in network.named_parameters():
        if name.endswith(".scale"):  # of the residual branches
            parameter.data.fill_(1.0)
    handles = [layer.register_forward_hook(_to_unit_variance) for layer in layers(network).values()]
    with torch.no_grad():
        network(_one_segment(network, mix))
    for handle in handles:
        handle.remove()
    for decoder in filter(None, (network.decoder, getattr(network, "tdecoder", None))):
        last = getattr(decoder[-1], "conv_tr", None) or decoder[-1][-1]
        last.weight.data /= 2
        last.bias.data /= 2
    return network


def layers(network: Any) -> dict[str, Any]:
    """The layers with weights, by name."""
    from torch import nn

    kinds = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention)
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, kinds)}


def activations(network: Any, mix: np.ndarray) -> dict[str, float]:
    """Standard deviation of each layer's output on the first segment of a mix, by name."""
    import torch

    found: dict[str, float] = {}
    handles = [
        layer.register_forward_hook(
            lambda _layer, _inputs, output, name=name: found.update({name: float(_first(output).std())})
        )
        for name, layer in layers(network).items()
    ]
    with torch.no_grad():
        network(_one_segment(network, mix))
    for handle in handles:
        handle.remove()
    return found


def _one_segment(network: Any, mix: np.ndarray) -> Any:
    import torch

    segment = torch.from_numpy(mix[:, : int(network.segment * network.samplerate)])
    return (segment / segment.std())[None]


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _to_unit_variance(layer: Any, _inputs: Any, output: Any) -> Any:
    deviation = _first(output).std()
    last = getattr(layer, "out_proj", layer)
    last.weight.data /= deviation
    if last.bias is not None:
        last.bias.data /= deviation
    return (output[0] / deviation, *output[1:]) if isinstance(output, tuple) else output / deviation


def stereo_mix(stems: np.ndarray) -> np.ndarray:
    """Stems of a track, each at a place of its own between left and right.

    Parameters
    ----------
    stems : int16 (4, num_samples)

    Returns
    -------
    float32 (2, num_samples)
    """
    places = np.array([[0.5, 0.6, 0.3, 0.5], [0.5, 0.4, 0.7, 0.5]], np.float32)
    return places @ (stems.astype(np.float32) / np.float32(32768))


def mixes(music: np.ndarray, shift: int) -> dict[str, np.ndarray]:
    """Mixes that a separation by a network of `SMALL`'s segments is compared on, by name.

    Parameters
    ----------
    music : float32 (2, num_samples)
        At least two seconds.
    shift : int
        The time shift that will be drawn, in samples: what the network is given is longer by 22050 - `shift`.
    """
    segment, stride, added = 22050, 16537, 22050 - shift
    # The first ones below in samples of the mix, the others in samples of the shifted mix, where segments are cut.
    lengths = {
        "1 sample": 1,
        "2 samples": 2,
        "a sample under a segment": segment - 1,
        "a segment": segment,
        "a sample over a segment": segment + 1,
        "shifted, a segment": segment - added,
        "shifted, two segments, the second of 1 sample": stride + 1 - added,
        "shifted, three segments": 2 * stride + segment - added,
        "shifted, four segments, the last of 1 sample": 3 * stride + 1 - added,
    }
    found = {name: music[:, :length] for name, length in lengths.items()}
    second = music[:, :44100]
    return {
        **found,
        "mono": np.repeat(second.mean(0, keepdims=True), 2, axis=0),
        "silence": np.zeros_like(second),
        "silence, then music": np.concatenate([np.zeros_like(second), second], axis=1),
        "clipping": np.clip(8 * second, -1, 1),
        "a constant": np.full_like(second, 0.25),
        "one channel silent": second * np.array([[1], [0]], np.float32),
    }


def signal_to_noise(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Signal-to-noise ratio of each stem, ``(num_sources,)``, in decibels; minus infinity where there are NaNs."""
    noise = np.square(found.astype(np.float64) - expected).sum((1, 2))
    with np.errstate(divide="ignore"):
        ratio = 10 * np.log10(np.square(expected.astype(np.float64)).sum((1, 2)) / noise)
    return np.where(np.isnan(ratio), -np.inf, ratio)
