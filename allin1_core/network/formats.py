"""Checkpoint formats: three kinds of file, read into arrays with one set of names and one axis order.

``.npz``
    As published for MLX; convolution weights lie as (out, time, band, in).
``.safetensors``
    The same names, in either order of the axes.
``.pth``
    The release's own: a mapping with ``state_dict`` and ``config``.

The two orders of a convolution weight differ in shape for every convolution of this network, so the shape says which
one a file has. A configuration comes from the file itself (``.pth``, or the metadata of ``.safetensors``) or from
the ``.yaml`` file beside it.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core.errors import WeightsError
from allin1_core.files.reading import read_content, read_npz
from allin1_core.network.configuration import Configuration, Thresholds, read_configuration

# In the order in which a folder is searched.
FORMATS = (".npz", ".safetensors", ".pth")

# Bytes, packed or not: fifty times the published files, and no bomb.
LARGEST_FILE = 64 << 20

_LARGEST_YAML = 1 << 20

# What torch's restricted unpickler raises for damaged files.
_UNPICKLING_ERRORS = (
    *(RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError),
    *(OverflowError, AssertionError, MemoryError, struct.error, pickle.UnpicklingError),
)
_TENSOR = "torch.float32, torch.strided, cpu"
_DOWNLOAD = "the file is truncated or not a checkpoint: delete it and get it again"


def read_checkpoint_file(
    path: Path, content: bytes
) -> tuple[Configuration, Thresholds | None, dict[str, np.ndarray]]:
    """Read the content of a checkpoint file.

    Parameters
    ----------
    path : Path
        Its name decides the format, and a ``.yaml`` file beside it holds its configuration.
    content : bytes

    Returns
    -------
    configuration : Configuration
        The published dimensions if the file has none.
    thresholds : Thresholds or None
        None if the file has no configuration.
    parameters : dict of str to float32 array
        In PyTorch's axis order; not yet compared with the configuration.

    Raises
    ------
    WeightsError
        If the file or its configuration cannot be read.
    """
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors, ".pth": _read_pth}
    arrays, embedded = readers[path.suffix](path, content)
    yaml_file = path.with_suffix(".yaml")
    configuration, thresholds = Configuration(), None
    if embedded is not None:
        configuration, thresholds = read_configuration(embedded, str(path))
    elif yaml_file.is_file():
        configuration, thresholds = read_configuration(_read_yaml(yaml_file), str(yaml_file))
    shapes = configuration.parameter_shapes()
    parameters = {name: _in_torch_order(value, shapes.get(name)) for name, value in arrays.items()}
    return configuration, thresholds, parameters


def _in_torch_order(value: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    """A convolution weight (out, time, band, in) becomes (out, in, time, band); all else stays as it is."""
    if shape is not None and len(shape) == 4 and value.ndim == 4 and value.shape != shape:
        value = value.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(value)


_Content = tuple[dict[str, np.ndarray], Mapping[str, Any] | None]


def _read_npz(path: Path, content: bytes) -> _Content:
    return read_npz(content, str(path), WeightsError, most=LARGEST_FILE), None


def _read_safetensors(path: Path, content: bytes) -> _Content:
    try:
        import safetensors
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"{path}: reading .safetensors needs safetensors; pip install safetensors"
        ) from error
    try:
        arrays = safetensors.numpy.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        embedded = (header.get("__metadata__") or {}).get("config")
        return arrays, None if embedded is None else json.loads(embedded)
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(
            f"{path}: cannot be read as .safetensors, {len(content)} bytes ({error}); {_DOWNLOAD}"
        ) from error


def _read_pth(path: Path, content: bytes) -> _Content:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"{path}: reading .pth needs torch; pip install 'allin1-core[torch]', or convert the file to .npz"
        ) from error
    _check_unpacked_size(path, content)
    try:
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _UNPICKLING_ERRORS as error:
        raise WeightsError(
            f"{path}: cannot be read as .pth without executing code, {len(content)} bytes ({error}); {_DOWNLOAD}"
        ) from error
    if not isinstance(saved, Mapping) or not {"state_dict", "config"} <= saved.keys():
        raise WeightsError(
            f"{path}: expected a mapping with 'state_dict' and 'config'; found {type(saved).__name__}; {_DOWNLOAD}"
        )
    state, config = saved["state_dict"], saved["config"]
    if not isinstance(state, Mapping) or not isinstance(config, Mapping):
        raise WeightsError(
            f"{path}: 'state_dict' is {type(state).__name__} and 'config' {type(config).__name__}; expected mappings; "
            + _DOWNLOAD
        )
    for name, value in state.items():
        is_tensor = isinstance(value, torch.Tensor)
        kind = f"{value.dtype}, {value.layout}, {value.device}" if is_tensor else type(value).__name__
        # A tensor may claim to be larger than what it stores, by a stride of 0.
        if kind != _TENSOR or value.numel() * value.element_size() > LARGEST_FILE:
            raise WeightsError(
                f"{path}: {str(name)[:80]!r} is {kind} {tuple(getattr(value, 'shape', ()))}; expected a tensor "
                f"({_TENSOR}) of at most {LARGEST_FILE} bytes; {_DOWNLOAD}"
            )
    return {str(name): value.numpy(force=True) for name, value in state.items()}, config


def _check_unpacked_size(path: Path, content: bytes) -> None:
    try:
        if not zipfile.is_zipfile(io.BytesIO(content)):
            return  # the older form of .pth is not packed
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise WeightsError(f"{path}: cannot be read as .pth ({error}); {_DOWNLOAD}") from error
    if unpacked > LARGEST_FILE:
        raise WeightsError(
            f"{path}: {len(content)} bytes that unpack to {unpacked}; expected at most {LARGEST_FILE}; {_DOWNLOAD}"
        )


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    text = read_content(path, WeightsError, most=_LARGEST_YAML)
    try:
        # libyaml's parser where PyYAML was built with it: ten times faster.
        content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: no such date, too many digits
        raise WeightsError(f"{path}: cannot be read as YAML ({error}); use the published file") from error
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path}: expected a mapping; found {type(content).__name__}; use the published file"
        )
    return content
