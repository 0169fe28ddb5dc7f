"""Weights: where the published checkpoints come from, and how a file becomes checked parameters.

The eight checkpoints are those of the All-In-One release (Hugging Face ``taejunkim/allinone``). A name is looked for
in this order, and the first place that applies is final: an explicit folder; the folder that the environment variable
``ALLIN1_WEIGHTS_DIR`` names; the local Hugging Face cache; the Hugging Face repository at a pinned revision.

Nothing is trusted: a ``.pth`` file must have the published SHA-256 before it is opened and is then read with
``weights_only=True``; the values of a converted file (``.npz``, ``.safetensors``) must be the published ones, bit for
bit; every parameter must have the name, shape and type that the configuration says. A checkpoint is returned whole
or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from allin1_core.errors import WeightsError
from allin1_core.files.reading import open_regular, read_content
from allin1_core.files.writing import expand_user
from allin1_core.network.configuration import Configuration, Thresholds
from allin1_core.network.formats import FORMATS, LARGEST_FILE, read_checkpoint_file

REPOSITORY = "taejunkim/allinone"
REVISION = "379e5fd010b3fdd0ee8381ff8cbcfa51d70b5c19"
FOLDER_VARIABLE = "ALLIN1_WEIGHTS_DIR"
ENSEMBLE = "harmonix-all"


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """One fold of the release.

    Attributes
    ----------
    file : str
        Name of the ``.pth`` file.
    sha256 : str
        Of that file.
    values_sha256 : str
        Of the parameters themselves, by `digest_of_values`; the same in every format.
    thresholds : Thresholds
        As in the checkpoint's configuration.
    """

    file: str
    sha256: str
    values_sha256: str
    thresholds: Thresholds


# fmt: off
PUBLISHED: Mapping[str, PublishedFile] = {
    file.rpartition("-")[0]: PublishedFile(file, sha256, values_sha256, Thresholds(beat, downbeat))
    for file, beat, downbeat, sha256, values_sha256 in (
        ("harmonix-fold0-0vra4ys2.pth", 0.19, 0.22,
         "0db596dfb0995f41d62f6267d76a9d54c046f1649bd35e1dbeca0c5f9a7b8acd",
         "6eaef56aa5b3cf60c3ff465e95acaa2c103244259cbd092baddff6ca70a4fc03"),
        ("harmonix-fold1-3ozjhtsj.pth", 0.17, 0.22,
         "607b4864eaabccd4f6951410d5ea6676666ad1cfa6ce2e18bc99f3824b77c3b7",
         "89aba3d4bc17b5567fdca6dce5f17bd52af1f3a34011be41efa555eabc3ac00e"),
        ("harmonix-fold2-gmgo0nsy.pth", 0.21, 0.24,
         "67c28ec7ca612d365e5fcb152f6530eb53e34c4303940afb30fd17a295c958a4",
         "258f6775b87604a42f7236b7689cd29f0ebc4c8261e4449de9120dbd042600f1"),
        ("harmonix-fold3-i92b7m8p.pth", 0.2, 0.28,
         "446d05672b2669cdb7d9b8bbbc228a4f3592484335a7995cca89a744e3950ddc",
         "f11051c1b46d811e13987061edea6c8583cc38f95347c4a0c872ab1d6edee266"),
        ("harmonix-fold4-1bql5qo0.pth", 0.24, 0.21,
         "96327222ab9b33c005388b788ba602f529aa03cc4dde1c859c011f1004490493",
         "cabd0bac6e57e3b2d1daa2c43283610111a915a90d629543dc5616b8ad9cf9d2"),
        ("harmonix-fold5-x4z5zeef.pth", 0.22, 0.24,
         "c87f162a1090290bcbb863688746784919cf912c56744fb3d81a1a7dba3b114e",
         "a335ec29c3006fcbfae6b45d991fb044bb170fde2ed0fc0d68576a8f832f79a1"),
        ("harmonix-fold6-x7t226rq.pth", 0.28, 0.32,
         "13e7e639bf30fcd3fa049ad863088773a4e57b06d7c68581385b3ef625c60688",
         "1724b6fdd70a3540752045f5ea598ec288e8735d9eeb425eb91e2e41d2601a28"),
        ("harmonix-fold7-qwwskhg6.pth", 0.23, 0.19,
         "b888b7fba95efa3d5a37ca013fe7efe2741621ea9ca335e6b2723e4fd0fade57",
         "2cd0a7ba01cf23fa4842146067e29c0b61545b599fa1198f19b73e12b610bdc6"),
    )
}
# fmt: on


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One fold's parameters, checked and complete.

    Attributes
    ----------
    name : str
        ``harmonix-fold0`` ... or the stem of a file of one's own.
    configuration : Configuration
    thresholds : Thresholds
    parameters : dict of str to float32 array
        By the names and in the axis order of the PyTorch ``state_dict``.
    file : str
        Where they were read from; empty if they were given in memory.
    sha256 : str
        Of that file.
    """

    name: str
    configuration: Configuration
    thresholds: Thresholds
    parameters: Mapping[str, np.ndarray]
    file: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        check_parameters(self.parameters, self.configuration, self.file or self.name)

    @property
    def provenance(self) -> dict[str, str]:
        """JSON-ready record of what was loaded."""
        return {"name": self.name, "file": self.file, "sha256": self.sha256}


def check_parameters(parameters: Mapping[str, np.ndarray], configuration: Configuration, source: str) -> None:
    """Refuse parameters that are not exactly those of the configuration.

    Raises
    ------
    WeightsError
        If one is missing, superfluous, of another shape or type, or not finite.
    """
    expected = configuration.parameter_shapes()
    missing = sorted(expected.keys() - parameters.keys())
    unknown = sorted(parameters.keys() - expected.keys())
    if missing or unknown:
        found = "; ".join(
            f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
            for what, names in (("without", missing), ("with unknown", unknown))
            if names
        )
        raise WeightsError(
            f"{source}: {found}; expected the {len(expected)} parameters of its configuration; "
            "use the published file"
        )
    for name, shape in expected.items():
        value = parameters[name]
        if value.shape != shape or value.dtype != np.float32:
            raise WeightsError(
                f"{source}: parameter {name!r} is {value.dtype} {value.shape}; expected float32 {shape}; "
                "the file does not match its configuration"
            )
        if not np.isfinite(value).all():
            raise WeightsError(
                f"{source}: parameter {name!r} holds values that are not finite; use the published file"
            )


def digest_of_values(parameters: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of all values as little-endian float32 in the order of their names, whatever file they came from."""
    digest = hashlib.sha256()
    for name in sorted(parameters):
        digest.update(np.ascontiguousarray(parameters[name], dtype="<f4").data)
    return digest.hexdigest()


def load_checkpoints(name: str, *, weights_dir: str | os.PathLike[str] | None = None) -> list[Checkpoint]:
    """Load one fold or all eight.

    Parameters
    ----------
    name : str
        ``harmonix-all``, ``harmonix-fold0`` ... ``harmonix-fold7``, or the path of a checkpoint file of one's own
        (``.npz``, ``.safetensors`` or ``.pth``).
    weights_dir : path, optional
        Folder to take the files from, and from nowhere else.

    Raises
    ------
    WeightsError
        If the name is unknown, or a file is missing, unreadable, altered or does not match its configuration.
    """
    check_name(name)
    if name not in (ENSEMBLE, *PUBLISHED):
        path = expand_user(name)
        return [_load_file(path, path.stem, None)]
    names = list(PUBLISHED) if name == ENSEMBLE else [name]
    folder, origin = explicit_folder(weights_dir)
    if folder is not None:
        paths = [_find_in_folder(folder, fold, origin) for fold in names]
    else:
        paths = [_find_in_repository(fold) for fold in names]
    return [_load_file(path, fold, PUBLISHED[fold]) for path, fold in zip(paths, names, strict=True)]


def check_name(name: str) -> None:
    """Raise `WeightsError` unless it is a published name, or the path of a file that is there."""
    if name in (ENSEMBLE, *PUBLISHED):
        return
    if expand_user(name).suffix not in FORMATS:
        raise WeightsError(
            f"weights {name!r}: unknown; expected {ENSEMBLE!r}, one of {', '.join(PUBLISHED)}, or the path of a "
            f"{', '.join(FORMATS)} file"
        )
    open_regular(expand_user(name), WeightsError).close()


def explicit_folder(weights_dir: str | os.PathLike[str] | None) -> tuple[Path | None, str]:
    """The folder that weights are taken from, if one is named, and what names it.

    Raises
    ------
    WeightsError
        If it is not there or cannot be read.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if weights_dir is not None:
        folder, origin = expand_user(weights_dir), "weights_dir"
    elif named:
        folder, origin = expand_user(named), FOLDER_VARIABLE
    else:
        return None, ""
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise WeightsError(
            f"{origin}: no folder at {str(folder)!r} ({error.strerror}); correct it or leave it out"
        ) from error
    return folder, origin


def file_names(fold: str) -> list[str]:
    """What the file of a published fold may be called in a folder, the first that is there counts."""
    return [*(f"{fold}{suffix}" for suffix in FORMATS), PUBLISHED[fold].file]


def _find_in_folder(folder: Path, fold: str, origin: str) -> Path:
    for name in file_names(fold):
        if os.path.isfile(folder / name):
            return folder / name
    raise WeightsError(
        f"{folder}: no weights of {fold}; expected one of {', '.join(file_names(fold))}; copy it there or leave "
        f"{origin} out to download it"
    )


def _find_in_repository(fold: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    published = PUBLISHED[fold]
    download = functools.partial(
        huggingface_hub.hf_hub_download, REPOSITORY, published.file, revision=REVISION
    )
    try:
        return Path(download(local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # not in the cache yet: download
    try:
        # Asked for once: a download tries for half a minute where nothing answers, or for minutes behind a firewall.
        with contextlib.suppress(HfHubHTTPError):  # an answer
            url = huggingface_hub.hf_hub_url(REPOSITORY, published.file, revision=REVISION)
            huggingface_hub.get_hf_file_metadata(url)
        return Path(download())
    except Exception as error:  # also of the HTTP library, which is another from version to version
        raise WeightsError(
            f"weights {fold!r}: {published.file} is not in the local cache and could not be downloaded from "
            f"https://huggingface.co/{REPOSITORY} ({type(error).__name__}: {error}); connect to the network once, "
            f"or put the file into a folder and name it with weights_dir or {FOLDER_VARIABLE}"
        ) from error


def _load_file(path: Path, name: str, published: PublishedFile | None) -> Checkpoint:
    content = read_content(path, WeightsError, most=LARGEST_FILE)
    sha256 = hashlib.sha256(content).hexdigest()
    if published is not None and path.suffix == ".pth" and sha256 != published.sha256:
        raise WeightsError(
            f"{path}: SHA-256 {sha256}, {len(content)} bytes; expected {published.sha256}; the file is truncated or "
            f"altered: delete it and download {published.file} of {REPOSITORY} at revision {REVISION} again"
        )
    configuration, thresholds, parameters = read_checkpoint_file(path, content)
    if thresholds is None:
        if published is None:
            raise WeightsError(
                f"{path}: no configuration; put {path.with_suffix('.yaml').name} beside the file"
            )
        thresholds = published.thresholds
    if published is not None and path.suffix != ".pth":
        values = digest_of_values(parameters)
        if values != published.values_sha256:
            raise WeightsError(
                f"{path}: the SHA-256 of its values is {values}; expected {published.values_sha256}, the published "
                f"{name}; the file is altered: convert it again, or load it by its path to use other weights"
            )
    return Checkpoint(name, configuration, thresholds, parameters, str(path), sha256)
