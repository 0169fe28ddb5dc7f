"""Inputs besides paths: samples of a mix or of its stems, and binary file objects."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from allin1_core.audio.reading import MOST_BYTES
from allin1_core.audio.types import Audio, Stems, check_finite, samples_digest
from allin1_core.errors import AudioError
from allin1_core.files.reading import FileContent

PathLike: TypeAlias = str | os.PathLike[str]
Input: TypeAlias = PathLike | Audio | Stems | BinaryIO

# Twice what the file may decode to: of samples in 64 bits half is dropped.
_MOST_CONTENT = 2 * MOST_BYTES
_BLOCK = 1 << 20
# Full scale is 1. Recordings in float pass it by some decibels; this is 40, and 16-bit integers cast to float are 90.
_LOUDEST = 100.0

_ACCEPTED = "expected a path, a binary file object, or Audio or Stems of allin1_core"


@dataclasses.dataclass(frozen=True)
class Given:
    """A track that was given itself, not by its path.

    Attributes
    ----------
    audio : Audio, Stems or FileContent
    sha256 : str
        Of the samples with their type, shape and rate (`samples_digest`), or of the file's bytes.
    """

    audio: Audio | Stems | FileContent
    sha256: str

    @property
    def path(self) -> Path:
        """What stands for its path: its name, relative, which leads to no file."""
        return Path(f"track-{self.sha256[:8]}")


def is_one_input(given: Any) -> bool:
    """Whether something is one input, or nothing that can be analysed; otherwise it holds inputs."""
    is_one = isinstance(given, str | os.PathLike | bytes | bytearray | memoryview | np.ndarray)
    return is_one or hasattr(given, "read") or not hasattr(given, "__iter__")


def take(given: Audio | Stems | BinaryIO) -> Given:
    """Take samples, or read a binary file object to its end.

    Parameters
    ----------
    given : Audio, Stems or binary file object
        A file object is read from where it stands, into memory, and is left open at its end.

    Raises
    ------
    AudioError
        If it is something else, is empty, cannot be read, or holds samples that are not finite or far above full
        scale.
    """
    if isinstance(given, Audio | Stems):
        check_samples(given)
        return Given(given, samples_digest(given))
    if hasattr(given, "read"):
        content = _read(given)
        return Given(content, hashlib.sha256(content.content).hexdigest())
    found, hint = f"{type(given).__module__}.{type(given).__name__}".removeprefix("builtins."), ""
    if hasattr(given, "shape") and hasattr(given, "dtype"):
        found += f" of shape {tuple(given.shape)}"
        hint = (
            ". Give samples with their rate: Audio(samples, sample_rate), samples (num_samples, num_channels)"
        )
    elif isinstance(given, bytes | bytearray | memoryview):
        hint = ". Give the bytes of a file as io.BytesIO(content)"
    raise AudioError(f"input: found {found}; {_ACCEPTED}{hint}")


def check_samples(audio: Audio | Stems) -> None:
    """Raise `AudioError` unless there are samples, all of them finite and not far above full scale."""
    samples = audio.samples if isinstance(audio, Audio) else audio.samples.T
    name = f"{type(audio).__name__}.samples"
    if samples.size == 0:
        raise AudioError(f"{name}: shape {audio.samples.shape}; expected at least one sample")
    check_finite(samples, name)
    if samples.dtype == np.float32:
        peak = max(abs(float(samples.min())), abs(float(samples.max())))
        if peak > _LOUDEST:
            raise AudioError(
                f"{name}: float32 with a peak of {peak:g}; expected full scale at 1, and at most {_LOUDEST:g}. "
                "Give 16-bit integers as int16, or divide them by 32768"
            )


def _read(file: Any) -> FileContent:
    own_name = getattr(file, "name", None)
    name = Path(own_name).name if isinstance(own_name, str | os.PathLike) else "file object"
    blocks, size = [], 0
    while True:
        try:
            block = file.read(_BLOCK)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise AudioError(
                f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})"
            ) from error
        if not isinstance(block, bytes):
            raise AudioError(
                f"{name}: read() gave {type(block).__name__}, not bytes; expected a binary file object. Open the file "
                "with mode 'rb'"
            )
        if not block:
            break
        size += len(block)
        if size > _MOST_CONTENT:
            raise AudioError(
                f"{name}: more than {_MOST_CONTENT} bytes; expected at most that. Cut it into parts"
            )
        blocks.append(block)
    if not size:
        raise AudioError(
            f"{name}: holds no bytes from where it stands; expected audio. If it was just written, call seek(0) first"
        )
    return FileContent(name, b"".join(blocks))
