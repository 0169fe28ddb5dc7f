"""All-In-One music structure analysis without madmom: tempo, beats, downbeats and sections of a song.

``analyze`` is the whole pipeline; ``log_spectrogram``, ``load_model`` and ``DBNDownBeatTrackingProcessor`` are
its stages, usable on their own. Names are imported on first use, so that ``import allin1_core`` stays cheap and
imports neither torch nor MLX.
"""

from __future__ import annotations

# Libraries that are imported on first use import this in their turn, which fails once the main thread has ended.
import concurrent.futures.thread  # noqa: F401
import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from allin1_core.analysis import Analyzer as Analyzer
    from allin1_core.audio.types import Audio as Audio
    from allin1_core.audio.types import Stems as Stems
    from allin1_core.batch import analyze as analyze
    from allin1_core.dbn import (
        DBNBeatTrackingProcessor as DBNBeatTrackingProcessor,
    )
    from allin1_core.dbn import (
        DBNDownBeatTrackingProcessor as DBNDownBeatTrackingProcessor,
    )
    from allin1_core.network import load_model as load_model
    from allin1_core.results.clicks import sonify as sonify
    from allin1_core.results.figures import visualize as visualize
    from allin1_core.results.result import AnalysisResult as AnalysisResult
    from allin1_core.results.result import load_result as load_result
    from allin1_core.spectrogram import log_spectrogram as log_spectrogram

_EXPORTS = {
    "AnalysisResult": "allin1_core.results.result",
    "Analyzer": "allin1_core.analysis",
    "Audio": "allin1_core.audio.types",
    "DBNBeatTrackingProcessor": "allin1_core.dbn",
    "DBNDownBeatTrackingProcessor": "allin1_core.dbn",
    "Stems": "allin1_core.audio.types",
    "analyze": "allin1_core.batch",
    "load_model": "allin1_core.network",
    "load_result": "allin1_core.results.result",
    "log_spectrogram": "allin1_core.spectrogram",
    "sonify": "allin1_core.results.clicks",
    "visualize": "allin1_core.results.figures",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
