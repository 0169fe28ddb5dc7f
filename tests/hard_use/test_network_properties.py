"""What must be true of the network whatever its weights, for every backend."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hard_use import networks
from hard_use.networks import BACKENDS, REACH, as_array, network, spectrogram, with_parameters
from hard_use.reporting import record_trials
from parity.records import ParityRecorder

# float32 through three blocks of random weights; what a batch or a shift changes is the order of sums at most.
ROUNDING = 2e-5
BACKEND = pytest.mark.parametrize("backend", BACKENDS)


@BACKEND
def test_probabilities(backend: str, record_parity: ParityRecorder) -> None:
    lengths = (1, 2, 9, 10, 11, 100, 333)
    model = network(backend)
    for num_frames in lengths:
        rows = as_array(model, spectrogram(num_frames, num_frames))
        assert rows.shape == (13, num_frames)
        assert rows.dtype == np.float32
        assert rows.min() >= 0
        assert rows.max() <= 1
        np.testing.assert_allclose(rows[3:].sum(axis=0), 1, rtol=0, atol=1e-6)
    record_trials(
        record_parity,
        "properties",
        "network: probabilities",
        "in [0, 1], labels sum to one",
        tried=len(lengths),
        backend=backend,
    )


@BACKEND
def test_a_batch_is_its_tracks(backend: str, record_parity: ParityRecorder) -> None:
    model = network(backend, seeds=(0, 1))
    batch = spectrogram(150, 1, batch=3)
    alone = np.stack([as_array(model, track) for track in batch])
    together = as_array(model, batch)
    largest = float(np.abs(together - alone).max())
    record_trials(
        record_parity,
        "properties",
        "network: a batch is its tracks",
        f"<= {ROUNDING:g}",
        tried=3,
        backend=backend,
        wrong=[f"{largest:g}"] * (largest > ROUNDING),
        max_difference=largest,
    )
    assert largest <= ROUNDING


@BACKEND
def test_an_ensemble_is_the_mean_of_its_logits(backend: str) -> None:
    track = spectrogram(100)
    found = network(backend, seeds=(0, 1, 2))(track, return_logits=True).to_numpy().logits
    folds = [
        network(backend, seeds=(seed,))(track, return_logits=True).to_numpy().logits for seed in (0, 1, 2)
    ]
    assert found is not None
    for name in ("beat", "downbeat", "segment", "label"):
        expected = np.mean([getattr(fold, name) for fold in folds], axis=0)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=0, atol=ROUNDING)


@BACKEND
def test_repetitions_and_what_ran_before(backend: str) -> None:
    model = network(backend)
    track = spectrogram(200)
    first = as_array(model, track)
    as_array(model, spectrogram(7, 1))
    as_array(model, spectrogram(300, 2))
    np.testing.assert_array_equal(as_array(model, track), first)
    np.testing.assert_array_equal(as_array(network(backend), track), first)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "mlx"])
def test_number_of_threads(backend: str) -> None:
    """The fused kernels promise the same bits; torch splits sums as it likes."""
    track = spectrogram(700)
    one, three = (as_array(network(backend, num_threads=number), track) for number in (1, 3))
    np.testing.assert_allclose(three, one, rtol=0, atol=0 if backend == "fused" else ROUNDING)


@BACKEND
def test_eight_threads_share_a_model(backend: str, record_parity: ParityRecorder) -> None:
    model = network(backend)
    tracks = [spectrogram(60 + 17 * seed, seed) for seed in range(12)]
    expected = [as_array(model, track) for track in tracks]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda track: as_array(model, track), tracks))
    wrong = [
        f"{len(one[0])} frames differ by {np.abs(one - other).max():g}"
        for one, other in zip(expected, found, strict=True)
        if not np.array_equal(one, other)
    ]
    record_trials(
        record_parity,
        "properties",
        "network: 8 threads at once",
        "bit-identical",
        tried=len(tracks),
        wrong=wrong,
        backend=backend,
    )
    assert not wrong, "\n".join(wrong)


@BACKEND
def test_far_from_the_ends_a_delay_is_a_delay(backend: str, record_parity: ParityRecorder) -> None:
    """Inside, every frame is treated alike: only frames within reach of an end know where they are."""
    model = network(backend)
    track = spectrogram(REACH * 2 + 200)
    whole = as_array(model, track)
    shifts = (1, 2, 7, 64)
    for shift in shifts:
        later = as_array(model, track[:, shift:])
        np.testing.assert_allclose(
            later[:, REACH:-REACH],
            whole[:, shift + REACH : -REACH],
            rtol=0,
            atol=ROUNDING,
            err_msg=f"{shift}",
        )
    assert np.abs(later[:, :4] - whole[:, shift : shift + 4]).max() > 1e-3, (
        "nothing depends on the ends: too tame a test"
    )
    record_trials(
        record_parity,
        "properties",
        "network: delay, away from the ends",
        f"<= {ROUNDING:g}",
        tried=len(shifts),
        backend=backend,
    )


@BACKEND
def test_stem_order_matters_only_through_the_bias_and_the_heads(
    backend: str, record_parity: ParityRecorder
) -> None:
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

    indifferent = as_array(with_parameters(model, backend, **flat), track)
    indifferent_moved = as_array(with_parameters(model, backend, **flat, **heads), moved)
    largest = float(np.abs(indifferent - indifferent_moved).max())
    minding = float(
        np.abs(as_array(model, track) - as_array(with_parameters(model, backend, **heads), moved)).max()
    )
    record_trials(
        record_parity,
        "properties",
        "network: stem order without and with the bias",
        f"<= {ROUNDING:g} without, > 1e-3 with",
        tried=2,
        backend=backend,
        wrong=[f"{largest:g}, {minding:g}"] * (largest > ROUNDING or minding < 1e-3),
        max_difference=largest,
    )
    assert largest <= ROUNDING
    assert minding > 1e-3


def test_the_bias_lies_as_the_test_above_thinks() -> None:
    shapes = networks.THREE_BLOCKS.parameter_shapes()
    assert shapes["encoder.layers.0.instlayer.attention.self.rpb"] == (2, 9, 9)
    assert shapes["beat_classifier.classifier.weight"] == (1, 96)
