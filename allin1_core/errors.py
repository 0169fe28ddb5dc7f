"""The errors that allin1-core raises on purpose, one class per kind of bad input.

Every message names the file or argument, says what was found and what was expected, and tells what to do.
All of them are :class:`Allin1Error`, so a caller who analyses a library of songs can catch one class. Decoders and
networks, called by themselves on arrays, also raise `ValueError` for an argument that cannot be, as madmom's do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Allin1Error(Exception):
    """Base of every error that allin1-core raises on purpose.

    Messages quote the names of files, and a name may hold newlines, terminal codes or bytes that are no text. The
    message shows them escaped, so that it stays on its line and can be printed and logged anywhere.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """The text with every character that is not printable escaped as in a Python literal."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class AudioError(Allin1Error, ValueError):
    """An audio file or array that cannot be used: unreadable, empty, truncated or not finite."""


class OptionError(Allin1Error, ValueError):
    """An option of the wrong form, which no file makes right: an empty path, an unknown name, one without another."""


class StemsError(Allin1Error, ValueError):
    """A set of stems that cannot be used: one is missing, named twice, or does not match the others."""


class BackendError(Allin1Error, ValueError):
    """A backend, device or precision that does not exist, is not installed, or cannot do what is asked."""


class UnfitBackendError(BackendError):
    """Weights or a machine that a backend's kernels are not made for; `auto` then takes the next backend."""


class DeviceMemoryError(Allin1Error, MemoryError):
    """A track for which a GPU's memory has no room."""


class WeightsError(Allin1Error, ValueError):
    """Network weights that are missing, truncated, altered or of another shape than the configuration says."""


class ActivationsError(Allin1Error, ValueError):
    """Activations that cannot be decoded."""


class HintError(Allin1Error, ValueError):
    """A hint for the beats that is out of its range, contradicts another, or lies outside the song."""


class TimingsError(Allin1Error, ValueError):
    """A file that should hold timings, and does not."""


class ResultError(Allin1Error, ValueError):
    """A file that should hold a result, and does not; or a result that cannot be given the form asked for."""


class OutputError(Allin1Error, OSError):
    """A result that could not be written; nothing half-written is left behind."""


class LibraryError(Allin1Error, ValueError):
    """A library of songs, or a place for its results, that cannot be used: missing, unreachable, of other settings."""


def failure_line(path: Path, error: Exception) -> str:
    """One line that names a track, what it raised, and the message, whatever those hold; the track's path once."""
    name = printable(str(path))
    return f"{name}: {type(error).__name__}: {printable(str(error)).removeprefix(f'{name}: ')}"


class BatchError(Allin1Error):
    """Tracks of a list failed; the others were analysed.

    Attributes
    ----------
    failures : list of (Path, Exception)
        In input order.
    results : list of AnalysisResult or None
        In input order; None where the track failed.
    """

    def __init__(self, failures: list[tuple[Path, Exception]], results: list[Any]) -> None:
        self.failures = failures
        self.results = results
        lines = "".join(f"\n  {failure_line(path, error)}" for path, error in failures)
        others = ", the others are done" if len(failures) < len(results) else ""
        super().__init__(f"{len(failures)} of {len(results)} tracks failed{others}:{lines}")

    def __reduce__(self) -> tuple[type[BatchError], tuple[Any, ...]]:
        # By its message alone another process could not make it.
        return type(self), (self.failures, self.results)

    def __str__(self) -> str:
        return Exception.__str__(self)  # one line for each track
