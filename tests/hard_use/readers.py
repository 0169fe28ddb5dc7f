"""What reads each kind of file, as one function of a path, for the process that reads hostile ones."""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import io
import json
from pathlib import Path

import numpy as np

from allin1_core.batch.resuming import differences
from allin1_core.byproducts import Byproducts
from allin1_core.cli import decode
from allin1_core.cli import timings as timings_command
from allin1_core.errors import AudioError
from allin1_core.results.result import AnalysisResult, load_result
from allin1_core.separation.track import Track
from allin1_core.session import Session
from allin1_core.settings import Settings
from hard_use.hostile_files import npy


def result(path: Path) -> AnalysisResult:
    """A result, used as its readers use it."""
    found = load_result(path)
    found.to_json()
    differences(found, _session(), {}, is_separated=True)
    return found


@functools.cache
def _session() -> Session:
    return Session(Settings(device="cpu", spec_backend="numpy"))


def result_with_arrays(path: Path) -> None:
    """The result whose arrays lie at the path, which is that of either."""
    name = path.name.removesuffix(".activ.npz").removesuffix(".embed.npy")
    load_result(path.with_name(f"{name}.json"))


def activations(path: Path) -> None:
    """Activations for ``allin1-core decode``."""
    decode.read_activations(path)


_FRAMES = 3
_KEY = {"stems_sha256": "0" * 64}


def kept_spectrogram(path: Path) -> None:
    """A spectrogram kept by an earlier run, whose record vouches for whatever lies there."""
    kept, track = Byproducts(path.parent, path.parent), Track(path, path.stem)
    is_small = path.is_file() and path.stat().st_size < 1 << 20
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if is_small else ""
    record = {"made_from": _KEY, "sha256": sha256, "provenance": {}}
    path.with_suffix(".made_from.json").write_text(json.dumps(record))
    _load_spectrogram(kept, track, path)


def kept_record(path: Path) -> None:
    """What the record at the path vouches for."""
    track = Track(path, path.name.removesuffix(".made_from.json"))
    (path.parent / f"{track.name}.npy").write_bytes(GOOD_SPECTROGRAM)
    _load_spectrogram(Byproducts(path.parent, path.parent), track, path)


def _load_spectrogram(kept: Byproducts, track: Track, path: Path) -> None:
    if kept.load_spectrogram(track, _KEY, _FRAMES) is None:
        raise AudioError(f"{path}: not used")


GOOD_SPECTROGRAM = npy(np.random.default_rng(0).random((4, _FRAMES, 81), np.float32))
GOOD_RECORD = json.dumps(
    {"made_from": _KEY, "sha256": hashlib.sha256(GOOD_SPECTROGRAM).hexdigest(), "provenance": {}}
).encode()


def timings(path: Path) -> None:
    """Timings, as ``allin1-core timings`` prints them."""
    arguments = argparse.Namespace(
        files=[str(path)], run_id=None, json=False, plot=None, no_plot=True, expect=None
    )
    with contextlib.redirect_stdout(io.StringIO()):
        timings_command.run(arguments)
