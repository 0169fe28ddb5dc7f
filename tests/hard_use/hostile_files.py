"""Parts of hostile files of any kind."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def npy(array: np.ndarray) -> bytes:
    """A ``.npy`` file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    """A ``.npz`` file."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def flipped(content: bytes, reach: range, most: int, random: np.random.Generator) -> bytes:
    """A copy with one to so many flipped bits within a range of its bytes."""
    damaged = bytearray(content)
    for bit in random.integers(8 * reach.start, 8 * reach.stop, random.integers(1, most + 1)):
        damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def write(folder: Path, files: Iterable[tuple[str, bytes]]) -> list[Path]:
    """Write files into a folder; their paths."""
    paths = []
    for name, content in files:
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    return paths
