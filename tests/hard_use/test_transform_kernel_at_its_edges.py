"""The compiled spectrogram on counts of frames around its registers, on every instruction set that runs here.

`make sanitize` runs this file on the kernels built with AddressSanitizer and UndefinedBehaviorSanitizer. What they
compute is held to madmom elsewhere (parity); here it is held to scipy's transform, and the instruction sets to one
another.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.fft

from allin1_core.simd.instruction_sets import instruction_sets
from allin1_core.spectrogram import framing, fused_backend
from allin1_core.spectrogram.filterbank import filterbank, num_bands, window
from hard_use.reporting import recorded_trials
from parity.reports.records import ParityRecorder

INSTRUCTION_SETS = instruction_sets()
# Registers hold 2 to 16 frames.
COUNTS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33)
BOUND = {"exact": 5e-7, "fast": 1e-5}


def noise(dtype: str, num_samples: int) -> np.ndarray:
    values = np.random.default_rng(7).uniform(-1, 1, num_samples)
    return (values * 32767).astype(np.int16) if dtype == "int16" else values.astype(np.float32)


def frames_of(signal: np.ndarray, count: int, sample_rate: int) -> np.ndarray:
    return framing.frames(signal, 0, count, sample_rate) * window(signal.dtype.name)


@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_bands(instructions: str, dtype: str, precision: str, record_parity: ParityRecorder) -> None:
    with recorded_trials(
        record_parity,
        "instruments",
        f"compiled spectrogram, {instructions}, {dtype}",
        f"<= {BOUND[precision]:g} of scipy's transform",
        backend="fused",
        precision=precision,
    ) as trials:
        for sample_rate, count in itertools.product((8000, 11025, 44100, 96000), COUNTS):
            signal = noise(dtype, sample_rate)
            spectrum = scipy.fft.rfft(frames_of(signal, count, sample_rate))[:, :1024]
            expected = np.log10(1 + np.abs(spectrum) @ filterbank(sample_rate).astype(np.float64))
            found = np.full((count, num_bands(sample_rate)), np.nan, np.float32)
            fused_backend.log_bands(
                found, signal, 0, count, sample_rate, precision, instruction_set=instructions
            )
            trials.tried += 1
            difference = trials.differ_by(np.abs(found - expected).max())
            assert difference <= BOUND[precision], f"{count} frames at {sample_rate} Hz"


@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
def test_a_frame_does_not_depend_on_where_the_work_is_cut(instructions: str) -> None:
    signal = noise("int16", 44100)
    whole = np.empty((100, 81), np.float32)
    fused_backend.log_bands(whole, signal, 0, 100, 44100, "exact", instruction_set=instructions)
    for first, last in ((0, 1), (1, 8), (37, 54), (99, 100)):
        part = np.empty((last - first, 81), np.float32)
        fused_backend.log_bands(part, signal, first, last, 44100, "exact", instruction_set=instructions)
        np.testing.assert_array_equal(part, whole[first:last])


def test_the_logarithm_over_the_whole_range_of_float32() -> None:
    """A click of one sample has a flat spectrum; its size takes the bands from 0 to the largest ``float32``."""
    for exponent in (-40, -10, -7, -1, 0, 1, 5, 20, 30, 37):
        click = np.zeros(2048, np.float32)
        click[1000] = np.float32(10.0**exponent)
        found = np.empty((1, 81), np.float32)
        fused_backend.log_bands(found, click, 2, 3, 44100, "exact")
        weight = window("float32")[1000 - 2 * 441 + 1024]
        band = weight * np.float64(click[1000]) * filterbank(44100).astype(float).sum(axis=0)
        expected = np.log10((np.float32(1) + band.astype(np.float32)).astype(float))
        np.testing.assert_allclose(found[0], expected, rtol=2.5e-7, atol=0)


def test_what_overflows_is_infinite() -> None:
    loud = (3e38 * np.cos(np.arange(4096) * (2 * np.pi * 100 / 2048))).astype(np.float32)
    found = np.empty((1, 81), np.float32)
    fused_backend.log_bands(found, loud, 4, 5, 44100, "exact")
    assert np.isposinf(found[0, filterbank(44100)[100] > 0]).all()


@pytest.mark.parametrize(
    "out", [np.empty((3, 81), np.float32), np.empty((2, 80), np.float32), np.empty((2, 81))]
)
def test_an_output_of_the_wrong_shape_or_type_is_refused(out: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"out: float.* expected float32 \(2, 81\)"):
        fused_backend.log_bands(out, np.zeros(4410, np.int16), 0, 2, 44100, "exact")


@pytest.mark.parametrize("instructions", ["SSE9", "", "avx2", "NEON, AVX2"])
def test_an_absent_instruction_set_is_refused_not_replaced(instructions: str) -> None:
    with pytest.raises(
        ValueError, match=rf"instruction_set: '{instructions}' has no kernels here; expected one of "
    ):
        fused_backend.log_bands(
            np.empty((2, 81), np.float32),
            np.zeros(4410, np.int16),
            0,
            2,
            44100,
            "exact",
            instruction_set=instructions,
        )
