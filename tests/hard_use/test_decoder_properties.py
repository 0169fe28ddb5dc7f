"""What must be true of decoded beats whatever the activations, for both kernels."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import strategies as st

from allin1_core.dbn import DBNDownBeatTrackingProcessor
from hard_use.reporting import recorded_trials
from parity.reports.records import ParityRecorder

FPS = 100
SEED = st.integers(0, 2**32 - 1)


def activations(seed: int, num_frames: int = 500) -> np.ndarray:
    """Beats that wander, with noise, missing ones and extra ones, ``float32 (num_frames, 2)``."""
    random = np.random.default_rng(seed)
    values = random.random((num_frames, 2), np.float32) * np.float32(0.04)
    frame, position, period = 5.0, 0, random.uniform(30, 100)
    meter = int(random.integers(3, 5))
    while frame < num_frames - 1:
        if random.random() < 0.85:
            values[int(frame), int(position == 0)] = random.uniform(0.3, 0.95)
        position = (position + 1) % meter
        frame += period * random.normal(1, 0.02)
    return values


def decode(values: np.ndarray, backend: str, **options: object) -> tuple[np.ndarray, np.ndarray]:
    """Frames and positions of the beats."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        processor = DBNDownBeatTrackingProcessor([3, 4], fps=FPS, backend=backend, **options)  # type: ignore[arg-type]
        beats = processor(values)
    return np.rint(beats[:, 0] * FPS).astype(int), beats[:, 1].astype(int)


@pytest.fixture(params=["cython", "numpy"])
def trial(
    request: pytest.FixtureRequest, pytestconfig: pytest.Config, record_parity: ParityRecorder
) -> Callable[..., None]:
    """Run a check on drawn inputs with one kernel, and record how many were tried."""

    def run(law: str, check: Callable[..., None], **drawn: st.SearchStrategy) -> None:
        number = {"cython": (20, 200), "numpy": (2, 20)}[request.param][pytestconfig.getoption("--full")]
        with recorded_trials(
            record_parity, "properties", f"decoder: {law}", "exactly", backend=request.param
        ) as trials:
            trials.draw(number, functools.partial(check, request.param), **drawn)

    return run


def test_silence_before_delays_and_silence_after_changes_nothing(trial: Callable) -> None:
    """Only the span between the first and the last activation that reaches the threshold is decoded."""

    def check(backend: str, seed: int, before: int, after: int) -> None:
        values = activations(seed)
        frames, positions = decode(values, backend)
        padded = np.pad(values, ((before, after), (0, 0)))
        later, positions_later = decode(padded, backend)
        assert len(frames) > 0
        np.testing.assert_array_equal(later, frames + before)
        np.testing.assert_array_equal(positions_later, positions)

    trial("silence around", check, seed=SEED, before=st.integers(0, 500), after=st.integers(0, 500))


def test_positions_count_and_tempo_stays_in_its_range(trial: Callable) -> None:
    def check(backend: str, seed: int, slowest: float, span: float) -> None:
        fastest = slowest * span
        frames, positions = decode(
            activations(seed), backend, min_bpm=slowest, max_bpm=fastest, correct=False, threshold=0.0
        )
        meter = positions.max(initial=0)
        assert meter in (3, 4) or len(positions) < 4
        following = positions[:-1] % max(meter, 1) + 1
        np.testing.assert_array_equal(
            positions[1:][positions[:-1] < meter], following[positions[:-1] < meter]
        )
        assert (positions[1:][positions[:-1] == meter] == 1).all()
        intervals = np.diff(frames)
        assert (intervals >= np.floor(60 * FPS / fastest)).all()
        assert (intervals <= np.ceil(60 * FPS / slowest)).all()

    trial("positions and tempo range", check, seed=SEED, slowest=st.floats(40, 80), span=st.floats(1.5, 4))


def test_order_of_bar_lengths_threads_and_repetitions(trial: Callable) -> None:
    def check(backend: str, seed: int) -> None:
        values = activations(seed)
        processors = [
            DBNDownBeatTrackingProcessor(meters, fps=FPS, backend=backend, num_threads=threads)
            for meters, threads in (([3, 4], 1), ([3, 4], 2), ([4, 3], 1))
        ]
        one, *others = [processor(values) for processor in [*processors, processors[0]]]
        for other in others:
            np.testing.assert_array_equal(other, one)

    trial("bar lengths in any order, threads, repetition", check, seed=SEED)
