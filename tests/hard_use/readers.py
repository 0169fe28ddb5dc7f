"""What reads each kind of file, as one function of a path, for the process that reads hostile ones."""

from __future__ import annotations

import argparse
import contextlib
import io
from pathlib import Path

from allin1_core.byproducts import Byproducts
from allin1_core.cli import decode
from allin1_core.cli import timings as timings_command
from allin1_core.result import AnalysisResult, load_result
from allin1_core.tracks import Track


def result(path: Path) -> AnalysisResult:
    """A result, used as its readers use it."""
    found = load_result(path)
    found.to_json()
    return found


def result_with_arrays(path: Path) -> None:
    """The result whose arrays lie at the path, which is that of either."""
    name = path.name.removesuffix(".activ.npz").removesuffix(".embed.npy")
    load_result(path.with_name(f"{name}.json"))


def activations(path: Path) -> None:
    """Activations for ``allin1-core decode``."""
    decode.read_activations(path)


def kept_spectrogram(path: Path) -> None:
    """A spectrogram kept by an earlier run."""
    track = Track(path, path.stem)
    Byproducts(path.parent, path.parent).load_spectrogram(track)


def timings(path: Path) -> None:
    """Timings, as ``allin1-core timings`` prints them."""
    arguments = argparse.Namespace(files=[str(path)], run_id=None, json=False, no_plot=True)
    with contextlib.redirect_stdout(io.StringIO()):
        timings_command.run(arguments)
