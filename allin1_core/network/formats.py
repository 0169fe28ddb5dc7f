"""The three forms of a checkpoint file, read from memory into arrays by one set of names and one axis order.

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
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core.errors import WeightsError
from allin1_core.network.configuration import Configuration, Thresholds, read_configuration

# In the order in which a folder is searched.
FORMATS = (".npz", ".safetensors", ".pth")

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
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}, None
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(
            f"{path}: cannot be read as .npz, {len(content)} bytes ({error}); expected arrays without pickled "
            f"objects; {_DOWNLOAD}"
        ) from error


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
        embedded = header.get("__metadata__", {}).get("config")
        return arrays, None if embedded is None else json.loads(embedded)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
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
    try:
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise WeightsError(
            f"{path}: cannot be read as .pth without executing code, {len(content)} bytes ({error}); {_DOWNLOAD}"
        ) from error
    if not isinstance(saved, Mapping) or not {"state_dict", "config"} <= saved.keys():
        raise WeightsError(
            f"{path}: expected a mapping with 'state_dict' and 'config'; found {type(saved).__name__}; {_DOWNLOAD}"
        )
    return {name: value.numpy() for name, value in saved["state_dict"].items()}, saved["config"]


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WeightsError(f"{path}: cannot be read as YAML ({error}); use the published file") from error
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path}: expected a mapping; found {type(content).__name__}; use the published file"
        )
    return content
