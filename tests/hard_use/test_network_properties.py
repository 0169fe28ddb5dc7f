"""What must be true of the network whatever its weights, for every backend."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np
import pytest

from hard_use import networks
from hard_use.networks import BACKENDS, REACH, as_array, network, spectrogram, with_parameters
from hard_use.reporting import Trials, recorded_trials
from parity.reports.records import ParityRecorder

# float32 through three blocks of random weights; what a batch or a shift changes is the order of sums at most.
ROUNDING = 2e-5


Law = Callable[[str, str], AbstractContextManager[Trials]]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def law(backend: str, record_parity: ParityRecorder) -> Law:
    """Record the trials of a law, by its name and what it is held to, whether it holds or not."""

    def record(name: str, bound: str) -> AbstractContextManager[Trials]:
        return recorded_trials(record_parity, "properties", f"network: {name}", bound, backend=backend)

    return record


def test_probabilities(backend: str, law: Law) -> None:
    model = network(backend)
    with law("probabilities", "in [0, 1], labels sum to one") as trials:
        for num_frames in (1, 2, 9, 10, 11, 100, 333):
            trials.tried += 1
            rows = as_array(model, spectrogram(num_frames, num_frames))
            assert rows.shape == (13, num_frames)
            assert rows.dtype == np.float32
            assert rows.min() >= 0
            assert rows.max() <= 1
            np.testing.assert_allclose(rows[3:].sum(axis=0), 1, rtol=0, atol=1e-6)


def test_repetitions_and_what_ran_before(backend: str, law: Law) -> None:
    model = network(backend)
    with law("repetition, whatever ran between", "bit-identical") as trials:
        for num_frames in (1, 137):
            trials.tried += 1
            track = spectrogram(num_frames)
            first = as_array(model, track)
            as_array(model, spectrogram(7, 1))
            as_array(model, spectrogram(200, 2))
            np.testing.assert_array_equal(as_array(model, track), first)
            np.testing.assert_array_equal(as_array(network(backend), track), first)


def test_number_of_threads(backend: str, law: Law) -> None:
    """The fused kernels promise the same bits; torch splits sums as it likes; MLX has no such setting."""
    bound = ROUNDING if backend == "torch" else 0.0
    with law("1, 2, 3 and 8 threads", f"<= {bound:g}") as trials:
        track = spectrogram(700)
        one = as_array(network(backend, num_threads=1), track)
        for number in (2, 3, 8):
            trials.tried += 1
            other = as_array(network(backend, num_threads=number), track)
            assert trials.differ_by(np.abs(other - one).max()) <= bound, f"{number} threads"


def test_eight_threads_share_a_model(backend: str, law: Law) -> None:
    model = network(backend)
    tracks = [spectrogram(60 + 17 * seed, seed) for seed in range(8)]
    with law("8 threads at once", "bit-identical") as trials:
        trials.tried = len(tracks)
        expected = [as_array(model, track) for track in tracks]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda track: as_array(model, track), tracks))
        trials.wrong += [
            f"{len(one[0])} frames differ by {np.abs(one - other).max():g}"
            for one, other in zip(expected, found, strict=True)
            if not np.array_equal(one, other)
        ]
        assert not trials.wrong, "\n".join(trials.wrong)


def test_far_from_the_ends_a_delay_is_a_delay(backend: str, law: Law) -> None:
    """Inside, every frame is treated alike: only frames within reach of an end know where they are."""
    model = network(backend)
    track = spectrogram(REACH * 2 + 80)
    whole = as_array(model, track)
    with law("delay, away from the ends", f"<= {ROUNDING:g}") as trials:
        for shift in (1, 7, 64):
            trials.tried += 1
            later = as_array(model, track[:, shift:])
            inside = np.abs(later[:, REACH:-REACH] - whole[:, shift + REACH : -REACH])
            assert trials.differ_by(inside.max()) <= ROUNDING, f"{shift} frames"
        at_the_end = np.abs(later[:, :4] - whole[:, shift : shift + 4]).max()
        assert at_the_end > 1e-3, "nothing depends on the ends: too tame a test"


def test_stem_order_matters_only_through_the_bias_and_the_heads(backend: str, law: Law) -> None:
    """Instruments meet in an attention whose bias knows which is which, and in heads that see them side by side.

    All four attend to all four (the axis is padded to the window of five), so where the bias is the same for every
    pair of instruments and the heads' blocks of weights move along, the order of the stems cannot matter. With the
    bias as it is, it does.
    """
    order = [2, 0, 3, 1]
    model = network(backend)
    (fold,) = model.checkpoints
    heads = {
        name.replace(".", "__"): value.reshape(-1, 4, 24)[:, order].reshape(value.shape)
        for name, value in fold.parameters.items()
        if name.endswith("_classifier.classifier.weight")
    }
    assert len(heads) == 4
    flat = {}
    for name, bias in fold.parameters.items():
        if name.endswith("instlayer.attention.self.rpb"):
            # (heads, relative instrument, relative time): the same for every relative instrument.
            flat[name.replace(".", "__")] = np.repeat(bias[:, :1], bias.shape[1], axis=1)
    track = spectrogram(120)
    moved = track[order]

    with law("stem order without and with the bias", f"<= {ROUNDING:g} without, > 1e-3 with") as trials:
        trials.tried = 2
        indifferent = as_array(with_parameters(model, backend, **flat), track)
        indifferent_moved = as_array(with_parameters(model, backend, **flat, **heads), moved)
        assert trials.differ_by(np.abs(indifferent - indifferent_moved).max()) <= ROUNDING
        minding = as_array(with_parameters(model, backend, **heads), moved)
        assert np.abs(as_array(model, track) - minding).max() > 1e-3


def test_the_bias_lies_as_the_test_above_thinks() -> None:
    shapes = networks.THREE_BLOCKS.parameter_shapes()
    assert shapes["encoder.layers.0.instlayer.attention.self.rpb"] == (2, 9, 9)
    assert shapes["beat_classifier.classifier.weight"] == (1, 96)
