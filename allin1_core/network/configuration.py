"""Configuration of a checkpoint: the network's dimensions and the decoder's thresholds.

The names in a checkpoint's own configuration are those of the All-In-One release (arXiv 2307.16425); here they are
read once, checked, and given the field's names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from allin1_core.errors import UnfitBackendError, WeightsError

# (this package's name, the checkpoint's name, type); `data.` marks the nested mapping of the data set.
_FIELDS: tuple[tuple[str, str, type], ...] = (
    ("num_bands", "dim_input", int),
    ("num_channels", "dim_embed", int),
    ("num_blocks", "depth", int),
    ("num_heads", "num_heads", int),
    ("kernel_size", "kernel_size", int),
    ("dilation_factor", "dilation_factor", int),
    ("dilation_max", "dilation_max", int),
    ("mlp_ratio", "mlp_ratio", float),
    ("layer_norm_epsilon", "layer_norm_eps", float),
    ("num_instruments", "data.num_instruments", int),
    ("num_labels", "data.num_labels", int),
)
# The heads, by their names in the parameters', in the order of the logits' rows; `function` has a row for each label.
HEADS = ("beat", "downbeat", "section", "function")
# No network of this kind has more of anything; without a limit a damaged number would be taken for a size.
_LARGEST = 4096

# Choices of the published architecture that this package implements; a checkpoint that chose otherwise is refused.
_REQUIRED: Mapping[str, Any] = {
    "model": "allin1",
    "double_attention": True,
    "instrument_attention": True,
    "qkv_bias": True,
    "act_conv": "elu",
    "act_transformer": "gelu",
}


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Probabilities above which a frame may be a beat or a downbeat, tuned on each fold's validation set.

    Attributes
    ----------
    beat, downbeat : float
        Between 0 and 1. The decoder uses `downbeat`.
    """

    beat: float
    downbeat: float

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0.0 <= value <= 1.0:
                raise WeightsError(f"threshold {name}: {value}; expected a probability between 0 and 1")

    @staticmethod
    def mean(thresholds: list[Thresholds]) -> Thresholds:
        """The ensemble's thresholds: the mean over its folds."""
        count = len(thresholds)
        return Thresholds(
            beat=sum(item.beat for item in thresholds) / count,
            downbeat=sum(item.downbeat for item in thresholds) / count,
        )


@dataclasses.dataclass(frozen=True)
class Configuration:
    """Dimensions of the All-In-One network. The defaults are those of the published checkpoints.

    Attributes
    ----------
    num_bands : int
        Frequency bands of the input spectrogram.
    num_channels : int
        Channels of an instrument's hidden state at a frame.
    num_blocks : int
        Blocks of a time layer and an instrument layer each.
    num_heads : int
        Attention heads; `num_channels` is a multiple of it.
    kernel_size : int
        Keys that a query attends to along time.
    dilation_factor, dilation_max : int
        Block i dilates its first attention by ``min(dilation_factor ** i, dilation_max)`` frames, its second by
        twice that.
    mlp_ratio : float
        Inner width of the feed-forward layers over their input width.
    layer_norm_epsilon : float
    num_instruments : int
        Stems, in the order bass, drums, other, vocals.
    num_labels : int
        Function labels.
    """

    num_bands: int = 81
    num_channels: int = 24
    num_blocks: int = 11
    num_heads: int = 2
    kernel_size: int = 5
    dilation_factor: int = 2
    dilation_max: int = 3200
    mlp_ratio: float = 4.0
    layer_norm_epsilon: float = 1e-5
    num_instruments: int = 4
    num_labels: int = 10

    # The instrument layer's window is five by five in every published model, whatever `kernel_size` says.
    instrument_kernel_size: int = dataclasses.field(default=5, init=False)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 < value <= _LARGEST:
                raise WeightsError(
                    f"configuration {field.name}: {value}; expected a positive value, at most {_LARGEST}"
                )
        if self.num_channels % (2 * self.num_heads):
            raise WeightsError(
                f"configuration num_channels: {self.num_channels}; expected a multiple of twice the "
                f"{self.num_heads} heads"
            )
        if self.kernel_size % 2 == 0:
            raise WeightsError(f"configuration kernel_size: {self.kernel_size}; expected an odd number")

    @property
    def dilations(self) -> tuple[int, ...]:
        """First dilation of each block, in frames."""
        return tuple(min(self.dilation_factor**i, self.dilation_max) for i in range(self.num_blocks))

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, as in the PyTorch ``state_dict`` (convolutions: out, in, time, band)."""
        channels = self.num_channels
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.conv0.weight": (channels // 2, 1, 3, 3),
            "embeddings.conv0.bias": (channels // 2,),
            "embeddings.conv1.weight": (channels, channels // 2, 1, 12),
            "embeddings.conv1.bias": (channels,),
            "embeddings.conv2.weight": (channels, channels, 3, 3),
            "embeddings.conv2.bias": (channels,),
            **_affine("embeddings.norm", channels),
        }
        for block in range(self.num_blocks):
            prefix = f"encoder.layers.{block}"
            time, instrument = f"{prefix}.timelayer", f"{prefix}.instlayer"
            time_bias = (self.num_heads, 2 * self.kernel_size - 1)
            instrument_bias = (self.num_heads, *2 * (2 * self.instrument_kernel_size - 1,))
            shapes |= self._attention(f"{time}.attention", time_bias)
            shapes |= self._attention(f"{time}.attention2", time_bias)
            shapes |= self._feed_forward(time, 2 * channels)
            shapes |= self._attention(f"{instrument}.attention", instrument_bias)
            shapes |= self._feed_forward(instrument, channels)
        shapes |= _affine("norm", channels)
        for head, num_outputs in zip(HEADS, (1, 1, 1, self.num_labels), strict=True):
            shapes |= _linear(f"{head}_classifier.classifier", self.num_instruments * channels, num_outputs)
        return shapes

    def _attention(self, prefix: str, bias_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        shapes = {f"{prefix}.self.rpb": bias_shape}
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= _linear(f"{prefix}.{name}", self.num_channels, self.num_channels)
        return shapes

    def _feed_forward(self, prefix: str, width: int) -> dict[str, tuple[int, ...]]:
        inner = int(width * self.mlp_ratio)
        return {
            **_affine(f"{prefix}.layernorm_before", self.num_channels),
            **_affine(f"{prefix}.layernorm_after", width),
            **_linear(f"{prefix}.intermediate.dense", width, inner),
            **_linear(f"{prefix}.output.dense", inner, self.num_channels),
        }


def _affine(prefix: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.weight": (size,), f"{prefix}.bias": (size,)}


def _linear(prefix: str, num_inputs: int, num_outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.weight": (num_outputs, num_inputs), f"{prefix}.bias": (num_outputs,)}


def _shown(value: Any) -> str:
    """A value for a message: a list or mapping from YAML can repeat itself into gigabytes of text."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    return repr(value)[:80] if isinstance(value, (str, int, float)) else type(value).__name__


def read_configuration(mapping: Mapping[str, Any], source: str) -> tuple[Configuration, Thresholds]:
    """Read a checkpoint's own configuration.

    Parameters
    ----------
    mapping : mapping
        As in the release's ``.yaml`` files and the ``config`` entry of its ``.pth`` files.
    source : str
        Where it was found, for the error messages.

    Raises
    ------
    WeightsError
        If an entry is missing or of the wrong type, or names an architecture that is not implemented.
    """

    def get(key: str) -> Any:
        value: Any = mapping
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise WeightsError(
                    f"{source}: the configuration has no entry {key!r}; use the published file"
                )
            value = value[part]
        return value

    def number(key: str, kind: type) -> Any:
        value = get(key)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # Compared before it is converted: infinity is no int, and int digits may be too many for a float.
        if not is_number or not abs(value) <= _LARGEST or kind(value) != value:
            raise WeightsError(
                f"{source}: configuration entry {key!r} is {_shown(value)}; expected {kind.__name__}, "
                f"at most {_LARGEST}"
            )
        return kind(value)

    for key, expected in _REQUIRED.items():
        if get(key) != expected:
            raise WeightsError(
                f"{source}: configuration entry {key!r} is {_shown(get(key))}; only {expected!r} is implemented"
            )
    dimensions = {name: number(key, kind) for name, key, kind in _FIELDS}
    beat, downbeat = number("best_threshold_beat", float), number("best_threshold_downbeat", float)
    try:
        return Configuration(**dimensions), Thresholds(beat, downbeat)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from error


# What kernels take as arguments; for all other dimensions they are compiled.
_FREE = ("num_blocks", "dilation_factor", "dilation_max", "layer_norm_epsilon")


def check_published_dimensions(configuration: Configuration, backend: str) -> None:
    """Refuse, for the network backend of this name, dimensions other than those of the published checkpoints.

    Raises
    ------
    UnfitBackendError
    """
    for name, expected in dataclasses.asdict(Configuration()).items():
        found = getattr(configuration, name)
        if name not in _FREE and found != expected:
            raise UnfitBackendError(
                f"network backend {backend!r}: {name} is {found}; it is compiled for {expected}; use backend='torch'"
            )
