"""The All-In-One network as the paper and the checkpoint describe it, in float64 numpy: slow, plain, independent.

Written from the definition, not from the backends: every attention asks `naive_attention.window` for the keys of
every position, every convolution is a sum over its taps, and what parameters do not say stands here. Memory and time
grow with the window, so it is meant for short inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import erf

from parity.oracles.naive_attention import window

ORACLE = "naive float64"

# Of the published configuration: keys of an attention along time, and frames between them in block i, 2^i at first.
_KERNEL_SIZE = 5
_DILATION_FACTOR, _DILATION_MAX = 2, 3200


def run(parameters: Mapping[str, np.ndarray], spectrogram: np.ndarray) -> dict[str, np.ndarray]:
    """One fold on a spectrogram (4, T, 81), rounded to float32: probabilities by name, ``embeddings`` (4, T, 24).

    The fold has as many blocks as `parameters` have.
    """
    weights = {name: value.astype(np.float64) for name, value in parameters.items()}
    hidden = _stem(weights, spectrogram.astype(np.float64))
    num_blocks = len({name.split(".")[2] for name in weights if name.startswith("encoder.layers.")})
    for block in range(num_blocks):
        prefix = f"encoder.layers.{block}"
        dilation = min(_DILATION_FACTOR**block, _DILATION_MAX)
        hidden = _time_layer(weights, f"{prefix}.timelayer", hidden, dilation, _KERNEL_SIZE)
        hidden = _instrument_layer(weights, f"{prefix}.instlayer", hidden)
    hidden = _layer_norm(weights, "norm", hidden)
    joined = hidden.transpose(1, 0, 2).reshape(hidden.shape[1], -1)
    scalars = {
        name: 1 / (1 + np.exp(-_linear(weights, f"{head}_classifier.classifier", joined)[:, 0]))
        for name, head in (("beat", "beat"), ("downbeat", "downbeat"), ("segment", "section"))
    }
    labels = np.exp(_linear(weights, "function_classifier.classifier", joined)).T
    found = {**scalars, "label": labels / labels.sum(axis=0), "embeddings": hidden}
    return {name: value.astype(np.float32) for name, value in found.items()}


def _linear(weights: Mapping[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _layer_norm(weights: Mapping[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    normalised = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return normalised * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _stem(weights: Mapping[str, np.ndarray], spectrogram: np.ndarray) -> np.ndarray:
    x = spectrogram[:, None]
    for index, time_padding in enumerate((1, 0, 1)):
        x = np.pad(x, ((0, 0), (0, 0), (time_padding, time_padding), (0, 0)))
        kernel = weights[f"embeddings.conv{index}.weight"]
        _, _, taps, width = kernel.shape
        frames, bands = x.shape[2] - taps + 1, x.shape[3] - width + 1
        total = np.zeros((x.shape[0], kernel.shape[0], frames, bands))
        for tap in range(taps):
            for band in range(width):
                part = x[:, :, tap : tap + frames, band : band + bands]
                total += np.einsum("nctf,oc->notf", part, kernel[:, :, tap, band])
        total += weights[f"embeddings.conv{index}.bias"][:, None, None]
        pooled = total[..., : bands // 3 * 3].reshape(*total.shape[:3], bands // 3, 3).max(axis=-1)
        x = np.where(pooled > 0, pooled, np.expm1(np.minimum(pooled, 0)))
    return _layer_norm(weights, "embeddings.norm", x[..., 0].transpose(0, 2, 1))


def _feed_forward(weights: Mapping[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    x = _linear(weights, f"{name}.intermediate.dense", _layer_norm(weights, f"{name}.layernorm_after", x))
    return _linear(weights, f"{name}.output.dense", x * 0.5 * (1 + erf(x / np.sqrt(2))))


def _keys_of(length: int, count: int, kernel_size: int, dilation: int) -> tuple[np.ndarray, np.ndarray]:
    """For the first `count` positions: positions of the keys, and their index into the bias."""
    found = [window(position, length, kernel_size, dilation) for position in range(count)]
    table = np.array(found)
    return table[..., 0], table[..., 1] + kernel_size - 1


def _heads(weights: Mapping[str, np.ndarray], name: str, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Queries, keys and values (..., heads, channels of a head)."""
    num_heads = weights[f"{name}.self.rpb"].shape[0]
    projected = (_linear(weights, f"{name}.self.{what}", x) for what in ("query", "key", "value"))
    queries, keys, values = (part.reshape(*part.shape[:-1], num_heads, -1) for part in projected)
    return queries / np.sqrt(queries.shape[-1]), keys, values


def _softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def _time_layer(
    weights: Mapping[str, np.ndarray], name: str, hidden: np.ndarray, dilation: int, kernel_size: int
) -> np.ndarray:
    frames = hidden.shape[1]
    length = max(frames, 2 * dilation * kernel_size)
    normalised = np.pad(
        _layer_norm(weights, f"{name}.layernorm_before", hidden), ((0, 0), (0, length - frames), (0, 0))
    )
    results = []
    for attention, step in (("attention", dilation), ("attention2", 2 * dilation)):
        queries, keys, values = _heads(weights, f"{name}.{attention}", normalised)
        positions, bias_index = _keys_of(length, frames, kernel_size, step)
        scores = np.einsum("nthc,ntkhc->nthk", queries[:, :frames], keys[:, positions])
        scores += weights[f"{name}.{attention}.self.rpb"][:, bias_index].transpose(1, 0, 2)
        attended = np.einsum("nthk,ntkhc->nthc", _softmax(scores), values[:, positions])
        attended = attended.reshape(hidden.shape)
        results.append(hidden + _linear(weights, f"{name}.{attention}.output.dense", attended))
    return sum(results) / 2 + _feed_forward(weights, name, np.concatenate(results, axis=-1))


def _instrument_layer(weights: Mapping[str, np.ndarray], name: str, hidden: np.ndarray) -> np.ndarray:
    instruments, frames, _ = hidden.shape
    rows, length = max(instruments, 5), max(frames, 5)
    normalised = np.pad(
        _layer_norm(weights, f"{name}.layernorm_before", hidden),
        ((0, rows - instruments), (0, length - frames), (0, 0)),
    )
    queries, keys, values = _heads(weights, f"{name}.attention", normalised)
    row_positions, row_bias = _keys_of(rows, instruments, 5, 1)
    positions, bias_index = _keys_of(length, frames, 5, 1)
    at = (row_positions[:, None, :, None], positions[None, :, None, :])
    scores = np.einsum("nthc,ntijhc->nthij", queries[:instruments, :frames], keys[at])
    bias = weights[f"{name}.attention.self.rpb"][:, row_bias[:, None, :, None], bias_index[None, :, None, :]]
    scores += bias.transpose(1, 2, 0, 3, 4)
    shares = _softmax(scores.reshape(*scores.shape[:3], 25)).reshape(scores.shape)
    attended = np.einsum("nthij,ntijhc->nthc", shares, values[at]).reshape(hidden.shape)
    result = hidden + _linear(weights, f"{name}.attention.output.dense", attended)
    return result + _feed_forward(weights, name, result)
