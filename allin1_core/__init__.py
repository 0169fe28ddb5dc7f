"""All-In-One music structure analysis without madmom: tempo, beats, downbeats and sections of a song.

``analyze`` is the whole pipeline; ``log_spectrogram``, ``load_model`` and ``DBNDownBeatTrackingProcessor`` are
its stages, usable on their own. Names are imported on first use, so that ``import allin1_core`` stays cheap and
imports neither torch nor MLX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from allin1_core.dbn import DBNBeatTrackingProcessor, DBNDownBeatTrackingProcessor
    from allin1_core.network import load_model
    from allin1_core.spectrogram import log_spectrogram

_EXPORTS = {
    "DBNBeatTrackingProcessor": "allin1_core.dbn",
    "DBNDownBeatTrackingProcessor": "allin1_core.dbn",
    "load_model": "allin1_core.network",
    "log_spectrogram": "allin1_core.spectrogram",
}

__all__ = [
    "DBNBeatTrackingProcessor",
    "DBNDownBeatTrackingProcessor",
    "__version__",
    "load_model",
    "log_spectrogram",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
