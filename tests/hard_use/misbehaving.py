"""Readers that do what the harness must notice."""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path

from allin1_core.errors import AudioError

_HELD = []


def well(path: Path) -> None:
    """Refuse bad files and read the others."""
    if "bad" in path.name:
        raise AudioError(f"{path}: bad")


def crash(path: Path) -> None:
    """Die as a segmentation fault would."""
    if "bad" in path.name:
        os.abort()


def hang(path: Path) -> None:
    """Not come back."""
    if "bad" in path.name:
        time.sleep(600)


def hoard(path: Path) -> None:
    """Take 100 MB, which is less than the limit of the address space, and more than the bound."""
    if "bad" in path.name:
        bytearray(100 << 20)


def hoard_everything(path: Path) -> None:
    """Take more than there is."""
    if "bad" in path.name:
        _HELD.append(bytearray(10 << 30))


def blame_nobody(path: Path) -> None:
    """Refuse without saying what."""
    if "bad" in path.name:
        raise AudioError("something is bad")


def stumble(path: Path) -> None:
    """Fail by accident."""
    if "bad" in path.name:
        raise IndexError("list index out of range")


def unpack(path: Path) -> None:
    """Hold whatever an archive says it holds."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            archive.read(name)
