"""The errors that allin1-core raises on purpose, one class per kind of bad input.

Every message names the file or argument, says what was found and what was expected, and tells what to do.
All of them are :class:`Allin1Error`, so a caller who analyses a library of songs can catch one class.
"""

from __future__ import annotations


class Allin1Error(Exception):
    """Base of every error that allin1-core raises on purpose."""


class AudioError(Allin1Error, ValueError):
    """An audio file or array that cannot be used: unreadable, empty, truncated or not finite."""


class StemsError(Allin1Error, ValueError):
    """A set of stems that cannot be used: one is missing, named twice, or does not match the others."""


class BackendError(Allin1Error, ValueError):
    """A backend, device or precision that does not exist, is not installed, or cannot do what is asked."""


class WeightsError(Allin1Error, ValueError):
    """Network weights that are missing, truncated, altered or of another shape than the configuration says."""


class TimingsError(Allin1Error, ValueError):
    """A file that should hold timings, and does not."""


class ResultError(Allin1Error, ValueError):
    """A file that should hold a result, and does not; or a result that cannot be given the form asked for."""


class OutputError(Allin1Error, OSError):
    """A result that could not be written; nothing half-written is left behind."""
