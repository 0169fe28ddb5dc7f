"""The compiled network on lengths around its tiles and windows, on every instruction set that runs here.

`make sanitize` runs this file on the kernels built with AddressSanitizer and UndefinedBehaviorSanitizer. What they
compute is held to the definition elsewhere (parity); here every instruction set is held to the others.
"""

from __future__ import annotations

import numpy as np
import pytest

from allin1_core.network import Configuration, _fused
from allin1_core.network.fused import FusedNetwork, neighbourhood_attention
from hard_use.networks import checkpoint, spectrogram
from hard_use.reporting import recorded_trials
from parity.reports.records import ParityRecorder

INSTRUCTION_SETS = _fused.instruction_sets()
TILE = _fused.SIZES["tile"]
CHUNK = _fused.SIZES["chunk"]
EDGES = sorted(
    {1, 2, 4, 5, 9, 10, 11, 15, 16, 17, 20, 21, 39, 40, 41}
    | {edge + step for edge in (TILE, CHUNK, 2 * CHUNK) for step in (-4, -1, 0, 1, 4)}
)
# float32 through three blocks; fused multiply-add rounds once where the baseline rounds twice.
BOUND = 2e-5


def logits(
    instruction_set: str, num_frames: int, configuration: Configuration, num_threads: int
) -> np.ndarray:
    model = FusedNetwork(
        [checkpoint(configuration, seed) for seed in (0, 1)],
        device="cpu",
        precision="exact",
        num_threads=num_threads,
        instruction_set=instruction_set,
    )
    found, embeddings = model.logits(spectrogram(num_frames)[None], True)
    assert np.isfinite(found).all()
    assert np.isfinite(embeddings).all()
    return found


def test_lengths_around_tiles_and_windows(record_parity: ParityRecorder) -> None:
    with recorded_trials(
        record_parity,
        "instruments",
        f"compiled network, {', '.join(INSTRUCTION_SETS)}",
        f"<= {BOUND:g} of one another",
        backend="fused",
    ) as trials:
        for num_frames in EDGES:
            trials.tried += len(INSTRUCTION_SETS)
            found = [logits(name, num_frames, Configuration(num_blocks=3), 2) for name in INSTRUCTION_SETS]
            for other in found[1:]:
                assert trials.differ_by(np.abs(other - found[0]).max()) <= BOUND, f"{num_frames} frames"


@pytest.mark.parametrize("num_frames", [1, 10, CHUNK + 3])
def test_all_eleven_blocks_on_a_track_shorter_than_their_windows(num_frames: int) -> None:
    for name in INSTRUCTION_SETS:
        logits(name, num_frames, Configuration(), 2)


@pytest.mark.parametrize("num_threads", [1, 3, 8])
def test_any_number_of_threads_gives_the_same_bits(num_threads: int) -> None:
    configuration, name = Configuration(num_blocks=2), _fused.instruction_set()
    np.testing.assert_array_equal(
        logits(name, 3 * CHUNK + 1, configuration, num_threads), logits(name, 3 * CHUNK + 1, configuration, 2)
    )


def test_attention_of_odd_shapes(record_parity: ParityRecorder) -> None:
    random = np.random.default_rng(0)
    with recorded_trials(
        record_parity,
        "instruments",
        "compiled attention of odd shapes",
        f"<= {BOUND:g} of one another",
        backend="fused",
    ) as trials:
        for _ in range(60):
            kernel_size = int(random.choice([1, 3, 5, 7]))
            dilation = int(random.integers(1, 5))
            frames = kernel_size * dilation + int(random.integers(0, 40))
            two_axes = bool(random.integers(2))
            rows = (kernel_size * dilation + int(random.integers(0, 3)),) if two_axes else ()
            shape = (
                int(random.integers(1, 3)),
                int(random.integers(1, 3)),
                *rows,
                frames,
                int(random.integers(1, 17)),
            )
            queries, keys, values = (random.standard_normal(shape).astype(np.float32) for _ in range(3))
            bias = random.standard_normal((shape[1], *(2 * kernel_size - 1,) * (2 if two_axes else 1)))
            found = [
                neighbourhood_attention(
                    queries,
                    keys,
                    values,
                    bias.astype(np.float32),
                    kernel_size,
                    dilation,
                    instruction_set=name,
                )
                for name in INSTRUCTION_SETS
            ]
            for output in found:
                assert output.shape == shape
                # A weighted mean of values lies between the least and the greatest of them.
                assert output.min() >= values.min() - 1e-5
                assert output.max() <= values.max() + 1e-5
                assert trials.differ_by(np.abs(output - found[0]).max()) <= BOUND
            trials.tried += len(found)


@pytest.mark.parametrize("shift", [-1024, 1024])
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_attention_depends_on_differences_of_scores_alone(instruction_set: str, shift: float) -> None:
    """However large they are: exponentials of these would be infinite, or all 0."""
    random = np.random.default_rng(3)
    queries, keys, values = random.standard_normal((3, 1, 2, 40, 8)).astype(np.float32)
    bias = np.round(random.standard_normal((2, 9)), 1).astype(np.float32)
    found, expected = (
        neighbourhood_attention(queries, keys, values, one, 5, 2, instruction_set=instruction_set)
        for one in (bias + np.float32(shift), bias)
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)  # the scores are rounded to 1e-4


def test_an_absent_instruction_set_is_refused_not_replaced() -> None:
    refused = r"instruction_set: 'SSE9' has no kernels here; expected one of "
    with pytest.raises(ValueError, match=refused):
        logits("SSE9", 10, Configuration(num_blocks=1), 1)
    zeros = np.zeros((1, 1, 5, 4), np.float32)
    with pytest.raises(ValueError, match=refused):
        neighbourhood_attention(
            zeros, zeros, zeros, np.zeros((1, 5), np.float32), 3, 1, instruction_set="SSE9"
        )


@pytest.mark.parametrize(
    ("shape", "kernel_size", "told"),
    [
        (
            (1, 1, 5, 4),
            3,
            r"length: 5 positions; expected at least kernel_size \* dilation = 3 \* 2 = 6; pad",
        ),
        ((1, 1, 22, 22, 4), 11, "kernel_size: 121 keys in a window; expected at most "),
    ],
)
def test_windows_that_do_not_fit_are_refused(shape: tuple[int, ...], kernel_size: int, told: str) -> None:
    zeros = np.zeros(shape, np.float32)
    bias = np.zeros((1, *(2 * kernel_size - 1,) * (len(shape) - 3)), np.float32)
    with pytest.raises(ValueError, match=told):
        neighbourhood_attention(zeros, zeros, zeros, bias, kernel_size, 2)


def test_the_kernels_own_entry_refuses_an_absent_instruction_set() -> None:
    """Whoever passes by the check above would otherwise call a null pointer."""
    one, windows = np.zeros((1, 1, 80), np.float32), np.zeros((1, 1), np.int32)
    with pytest.raises(ValueError, match="instruction_set: 'SSE9' has no kernels here"):
        _fused.run_attention(
            "SSE9", 1, 1, 1, one, one, one, np.zeros((1, 1), np.float32), windows, windows, one
        )
