"""Memory of the log spectrogram is bounded: an hour of four stems needs at most 1 GB beyond input and output."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from allin1_core import backends
from allin1_core.spectrogram import log_spectrogram, num_frames
from bench.measure.memory import peak_memory_bytes
from parity.implementations import label, own_operations

GIGABYTE = 10**9


def minutes_of_noise(minutes: int, dtype: str, backend: str, precision: str) -> int:
    """Log spectrogram of four stems made here, so that nothing is sent between processes."""
    noise = np.random.default_rng(0).integers(-20000, 20000, 60 * 44100, dtype=np.int16)
    if dtype == "float32":
        noise = (noise / 32768).astype(np.float32)
    stems = np.tile(noise, (4, minutes))
    return log_spectrogram(stems, backend=backend, precision=precision).size


def _beyond_input_and_output(minutes: int, backend: str, precision: str, dtype: str = "int16") -> int:
    arguments = (dtype, backend, precision)
    peak = peak_memory_bytes(minutes_of_noise, minutes, *arguments, warmup=(1, *arguments))
    num_samples = minutes * 60 * 44100
    return peak - 4 * num_samples * np.dtype(dtype).itemsize - 4 * num_frames(num_samples) * 81 * 4


def test_three_minutes_in_the_kernels_need_less_than_a_twentieth_of_a_gigabyte() -> None:
    """Less than the magnitudes of one stem, 0.074 GB in float32."""
    assert _beyond_input_and_output(3, "fused", "exact") < 0.05 * GIGABYTE


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize(
    ("backend", "precision"),
    [
        *itertools.product(backends.names("spectrogram"), backends.PRECISIONS),
        *((implementation.backend, implementation.precision) for implementation in own_operations()),
    ],
    ids=label,
)
@pytest.mark.full
def test_an_hour_needs_less_than_a_gigabyte(backend: str, precision: str, dtype: str) -> None:
    if not backends.get("spectrogram", backend).installed:
        pytest.skip(f"{backend} is not installed")
    assert _beyond_input_and_output(60, backend, precision, dtype) < GIGABYTE


def test_three_minutes_need_their_magnitudes_and_little_more() -> None:
    assert _beyond_input_and_output(3, "numpy", "exact") < 3 * 0.035 * GIGABYTE
