"""Inputs of the decoder's comparisons: one table of activations and parameters."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core.dbn.metrical import decoder_input
from parity.implementations import names
from parity.inputs import activations, edges
from parity.inputs.annotations import read_annotations, representative_songs
from parity.material import shared_folder, tracks

NUM_SONGS = 24
EXCERPT_SECONDS = 20
BEGINNING_FRAMES = 300


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One input with the parameters that it is decoded with.

    Attributes
    ----------
    name : str
    kind : str
        ``annotated``, ``network``, ``synthetic``, ``edge`` or ``parameters``: how the report groups them.
    make : callable
        Gives the activations, ``(num_frames, 2)``.
    parameters : dict
        Of `DBNDownBeatTrackingProcessor`.
    quick : bool
        Whether the numpy kernel, slower than the oracle, runs on it too.
    """

    name: str
    kind: str
    make: Callable[[], np.ndarray]
    parameters: dict[str, Any]
    quick: bool

    def __str__(self) -> str:
        return self.name

    def beginning(self) -> Case:
        """The first three seconds of it."""
        return dataclasses.replace(
            self, name=f"{self.name}, beginning", make=lambda: self.make()[:BEGINNING_FRAMES]
        )

    def activations(self) -> np.ndarray:
        """The input, read-only: an implementation that writes to it fails."""
        array = self.make().view()
        array.setflags(write=False)
        return array


def runs(cases: list[Case]) -> list[Any]:
    """Which implementation runs on which case, as parameters of a test.

    The numpy kernel takes longer than the oracle: by default it runs on the beginning of a quick case, which
    has every parameter and every kind of frame; on the whole of it in the full form.
    """
    found: list[Any] = [(name, case) for name in names("decoder") if name != "numpy" for case in cases]
    for case in cases if "numpy" in names("decoder") else []:
        if case.quick:
            found += [("numpy", case.beginning()), pytest.param("numpy", case, marks=pytest.mark.full)]
    return found


def _parameters(**changed: Any) -> dict[str, Any]:
    return {"beats_per_bar": [3, 4], "fps": 100, **changed}


def _random(seed: int, num_frames: int, dtype: type = np.float64) -> np.ndarray:
    return (np.random.default_rng(seed).random((num_frames, 2)) * 0.5).astype(dtype)


def _with_zeros() -> np.ndarray:
    """Exact zeros: log densities of -inf, at random, in both columns."""
    array = _random(3, 700)
    array[np.random.default_rng(4).random(array.shape) < 0.2] = 0
    return array


def _saturated() -> np.ndarray:
    """Exactly 1 on every beat: there the non-beat has a log density of -inf."""
    array = activations.regular(900, 48, 4)
    array[array == 0.9] = 1
    array[array == 0.01] = 0
    return array


def _above_one() -> np.ndarray:
    """Both columns high: 1 minus their sum is negative, its logarithm NaN, and NaN is never chosen."""
    array = activations.regular(900, 40, 3)
    array[::40] = 0.7
    return array


def _plateau() -> np.ndarray:
    """Equal values: every comparison is a tie, and the first of equals has to win."""
    array = np.full((1000, 2), 0.125)
    array[300:600] = 0.25
    return array


def _tempo_change() -> np.ndarray:
    return np.concatenate([activations.regular(700, 45, 4), activations.regular(700, 60, 3)])


def synthetic_cases() -> list[Case]:
    """Made to be hard: ties, infinities, lengths around nothing, precisions and memory orders."""
    make: dict[str, Callable[[], np.ndarray]] = {
        "metronome in four": lambda: activations.regular(1200, 50, 4),
        "metronome in three": lambda: activations.regular(1200, 39, 3, np.float32),
        "tempo and meter change": _tempo_change,
        "random": lambda: _random(1, 1000),
        "random, float32": lambda: _random(2, 1000, np.float32),
        "random, sparse": lambda: _random(5, 1000) ** 8,
        "random, Fortran order": lambda: np.asfortranarray(_random(6, 500)),
        "random, every third frame of another array": lambda: _random(7, 1500)[::3],
        "constant": lambda: np.full((1000, 2), 0.2),
        "plateau": _plateau,
        "constant tiny": lambda: np.full((400, 2), 1e-300),
        "exact zeros": _with_zeros,
        "saturated": _saturated,
        "sums above one": _above_one,
        "all one": lambda: np.ones((300, 2)),
        "silent": lambda: np.zeros((300, 2)),
        "silent, float32": lambda: np.zeros((300, 2), dtype=np.float32),
        "integers": lambda: np.eye(2, dtype=np.int64)[[0, 1] * 30],
        "below the threshold": lambda: np.full((300, 2), 0.01),
        "only the first frame reaches the threshold": lambda: np.eye(1, 600).reshape(300, 2) * 0.9,
        "only the second frame reaches the threshold": lambda: np.eye(1, 600, 2).reshape(300, 2) * 0.9 + 0.01,
        "no frame": lambda: np.zeros((0, 2)),
    }
    cases = [Case(name, "synthetic", function, _parameters(), True) for name, function in make.items()]
    for name in ("random", "constant", "exact zeros", "silent"):
        cases.append(
            Case(f"{name}, no threshold", "synthetic", make[name], _parameters(threshold=None), True)
        )
    for frames in (1, 2, 3, 7, 8, 9, 23, 24, 25, 27, 28, 29, 109, 110):
        function = functools.partial(_random, frames, frames)
        cases.append(Case(f"{frames} frames", "synthetic", function, _parameters(threshold=0), True))
    return cases


def edge_cases() -> list[Case]:
    """Activations on the edge of the decoder's decisions, in both types."""
    cases = []
    for dtype in (np.float32, np.float64):
        name = np.dtype(dtype).name
        for threshold in (0.05, 0.1, 0.24):
            make = functools.partial(edges.beats_at_threshold, threshold, dtype)
            parameters = _parameters(threshold=threshold)
            cases.append(Case(f"at the threshold {threshold}, {name}", "edge", make, parameters, True))
        for title, function in (
            ("densities that tie", edges.densities_that_tie),
            ("peaks that tie", edges.peaks_that_tie),
        ):
            make = functools.partial(function, dtype)
            cases.append(Case(f"{title}, {name}", "edge", make, _parameters(), True))
    return cases


def parameter_cases() -> list[Case]:
    """Every parameter away from its default, on activations that are neither regular nor noise."""
    changed: dict[str, dict[str, Any]] = {
        "beats per bar 1": {"beats_per_bar": 1},
        "beats per bar [3]": {"beats_per_bar": [3]},
        "beats per bar [4]": {"beats_per_bar": [4]},
        "beats per bar [4, 3]": {"beats_per_bar": [4, 3]},
        "beats per bar [2 to 7]": {"beats_per_bar": [2, 3, 4, 5, 6, 7]},
        "beats per bar as array": {"beats_per_bar": np.array([3, 4])},
        "50 frames a second": {"fps": 50},
        "200 frames a second": {"fps": 200},
        "86.13 frames a second": {"fps": 86.1328125},
        "10 frames a second": {"fps": 10, "num_tempi": None},
        "30 to 240 BPM": {"min_bpm": 30, "max_bpm": 240},
        "100 to 120 BPM": {"min_bpm": 100, "max_bpm": 120},
        "up to 1000 BPM": {"min_bpm": 300, "max_bpm": 1000},
        "up to 6000 BPM": {"min_bpm": 500, "max_bpm": 6000},
        "one tempo": {"min_bpm": 120, "max_bpm": 120},
        "tempo range by meter": {"min_bpm": [60, 50], "max_bpm": [180, 200]},
        "5 tempi": {"num_tempi": 5},
        "1 tempo of many": {"num_tempi": 1},
        "all tempi": {"num_tempi": None},
        "all tempi, 200 frames a second": {"num_tempi": None, "fps": 200},
        "number of tempi by meter": {"num_tempi": [30, None]},
        "transition lambda 1": {"transition_lambda": 1},
        "transition lambda 0": {"transition_lambda": 0},
        "transition lambda 1000": {"transition_lambda": 1000},
        "transition lambda None": {"transition_lambda": None},
        "transition lambda by meter": {"transition_lambda": [100, 10]},
        "transition lambda by meter, one None": {"transition_lambda": [None, 50]},
        "observation lambda 1": {"observation_lambda": 1},
        "observation lambda 2": {"observation_lambda": 2},
        "observation lambda 6": {"observation_lambda": 6},
        "observation lambda 64": {"observation_lambda": 64},
        "threshold 0.24": {"threshold": 0.24},
        "threshold None": {"threshold": None},
        "not corrected": {"correct": False},
        "not corrected, no threshold": {"correct": False, "threshold": 0},
    }

    def make(fps: float) -> np.ndarray:
        random = np.random.default_rng(11)
        times = np.cumsum(random.normal(0.5, 0.02, 17))
        return activations.from_beats(times, np.arange(17) % 4 + 1, 9.0, seed=12, fps=round(fps))

    return [
        Case(
            name,
            "parameters",
            functools.partial(make, values.get("fps", 100)),
            _parameters(**values),
            name != "all tempi, 200 frames a second",
        )
        for name, values in changed.items()
    ]


def _golden(folder: Path, track: str) -> np.ndarray:
    with np.load(folder / "golden" / f"{track}.npz", allow_pickle=False) as golden:
        return decoder_input(golden["beat"], golden["downbeat"])


def golden_cases() -> list[Case]:
    """The goldens' probabilities, prepared as the pipeline does, with its threshold. Empty without the material."""
    folder = shared_folder()
    return [
        Case(
            f"golden {track}",
            "network",
            functools.partial(_golden, folder, track),
            _parameters(threshold=0.24),
            track == "falcon69",
        )
        for track in tracks()
        if folder is not None
    ]


def hint_cases() -> list[Case]:
    """A golden's probabilities, decoded with each hint for the beats that madmom's decoder has."""
    hints: dict[str, dict[str, Any]] = {
        "90 to 180 BPM": {"min_bpm": 90.0, "max_bpm": 180.0},
        "bars of 3": {"beats_per_bar": (3,)},
        "bars of 5 or 7, to 120 BPM": {"beats_per_bar": (5, 7), "max_bpm": 120.0},
    }
    return [
        dataclasses.replace(case, name=f"{case.name}, {name}", parameters={**case.parameters, **hint})
        for case in golden_cases()
        if case.quick
        for name, hint in hints.items()
    ]


def _excerpt(folder: Path, song: str, seconds: float) -> np.ndarray:
    return activations.from_song(read_annotations(folder)[song])[: int(seconds * activations.FPS)]


def song_cases() -> list[Case]:
    """A representative part of the annotated songs, their beginnings. Empty without the material."""
    folder = shared_folder()
    if folder is None:
        return []
    return [
        Case(
            f"{song}, {EXCERPT_SECONDS} s",
            "annotated",
            functools.partial(_excerpt, folder, song, EXCERPT_SECONDS),
            _parameters(),
            False,
        )
        for song in representative_songs(folder, NUM_SONGS)
    ]


@functools.cache
def songs() -> list[Any]:
    """Names of the annotated songs, as parameters of a test: `NUM_SONGS` of them, and in the full form all."""
    folder = shared_folder()
    if folder is None:
        return ["none"]
    few = representative_songs(folder, NUM_SONGS)
    return [
        song if song in few else pytest.param(song, marks=pytest.mark.full)
        for song in read_annotations(folder)
    ]
