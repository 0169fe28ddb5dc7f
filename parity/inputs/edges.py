"""Inputs on the edge of a decision: values that a rounding or a threshold takes the other way with the next float.

Roundings are told by how far a value, computed more precisely, lies from the middle between two neighbours of float32,
in ULP of float32: 0 on a tie, at most 0.5.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from allin1_core.spectrogram import SPECIFICATION
from allin1_core.spectrogram.filterbank import filterbank, window

# Where the exact log spectrogram rounds to float32, in its order.
ROUNDING_STEPS = ("parts of the spectrum", "magnitude", "band sum", "sum with the offset", "logarithm")
# How close to a tie of each step a value counts as one on the edge, in ULP. A frame has 81 of the last three.
NEAR = dict(zip(ROUNDING_STEPS, (1e-3, 1e-3, 1e-2, 1e-2, 1e-2), strict=True))

_SAMPLE_RATE = 44100
# From one block, which is one frame, to the next: a whole number of hops, so that frame 5 n is a block alone.
BLOCK_SAMPLES = 5 * _SAMPLE_RATE // SPECIFICATION.frames_per_second
_CANDIDATES, _CHOSEN = 2000, 100


def ulp_from_a_tie(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """How far positive or negative numbers are from where float32 rounds the other way, in ULP."""
    magnitudes = np.abs(values)
    # Rounded towards zero, so that the spacing is that of the neighbours on both sides.
    below = magnitudes.astype(np.float32)
    below = np.where(below > magnitudes, np.nextafter(below, np.float32(0)), below)
    return np.abs((magnitudes - below) / np.spacing(below).astype(magnitudes.dtype) - 0.5)


def roundings(
    frames: npt.NDArray, real: type[np.floating] = np.float64
) -> dict[str, npt.NDArray[np.floating]]:
    """What each of `ROUNDING_STEPS` rounds, given that those before it were rounded.

    Parameters
    ----------
    frames : int16 or float32 (num_frames, 2048)
    real : type
        What is computed in.

    Returns
    -------
    dict of (num_frames, values of a frame)
    """
    windowed = frames.astype(real) * window(frames.dtype.name, "exact").astype(real)
    spectrum = scipy.fft.rfft(windowed)[:, : SPECIFICATION.num_bins]
    parts = np.concatenate([spectrum.real, spectrum.imag], axis=-1)
    rounded = parts.astype(np.float32).astype(real)
    magnitude = np.hypot(*np.split(rounded, 2, axis=-1))
    band_sum = magnitude.astype(np.float32).astype(real) @ filterbank(_SAMPLE_RATE).astype(real)
    with_offset = band_sum.astype(np.float32).astype(real) + 1
    logarithm = np.log10(with_offset.astype(np.float32).astype(real))
    return dict(zip(ROUNDING_STEPS, (parts, magnitude, band_sum, with_offset, logarithm), strict=True))


def blocks(dtype: str) -> dict[str, npt.NDArray]:
    """For each step the frames of noise with the most values near a tie, of 2,000 frames of any loudness.

    Returns
    -------
    dict of int16 or float32 (100, 2048)
    """
    rng = np.random.default_rng(14)
    noise = rng.standard_normal((_CANDIDATES, SPECIFICATION.frame_size)) / 4
    noise *= 10 ** rng.uniform(-3, 0, (_CANDIDATES, 1))
    frames = np.clip(np.rint(32768 * noise), -32768, 32767).astype(np.int16)
    frames = frames if dtype == "int16" else np.clip(noise, -1, 1).astype(np.float32)
    found = {}
    for step, values in roundings(frames).items():
        near = np.count_nonzero(ulp_from_a_tie(values) < NEAR[step], axis=-1)
        found[step] = frames[np.sort(np.argsort(near, kind="stable")[-_CHOSEN:])]
    return found


@functools.cache
def signals(dtype: str) -> npt.NDArray:
    """The frames of `blocks` as signals, ``(5, num_samples)``: at 44.1 kHz each of them is a frame."""
    rows = []
    for frames in blocks(dtype).values():
        padded = np.zeros((len(frames), BLOCK_SAMPLES), frames.dtype)
        padded[:, : SPECIFICATION.frame_size] = frames
        # The first frame begins half a frame before the signal: the first block stands a distance on.
        start = np.zeros(BLOCK_SAMPLES - SPECIFICATION.frame_size // 2, frames.dtype)
        rows.append(np.concatenate([start, padded.ravel()]))
    return np.stack(rows)


@functools.cache
def logarithm_arguments() -> npt.NDArray[np.float32]:
    """Band sums x, ``float32 (4000,)``, for which log10(1 + x) is within 1e-3 ULP of a tie; 1 + x is exact."""
    exponents = np.random.default_rng(15).uniform(-3, 5, 2_400_000)
    arguments = (1 + 10**exponents).astype(np.float32)
    near = arguments[ulp_from_a_tie(np.log10(arguments.astype(np.float64))) < 1.1e-3]
    near = near[ulp_from_a_tie(np.log10(near.astype(np.longdouble))) < 1e-3]
    found = near[:4000] - np.float32(1)
    found.setflags(write=False)
    return found


def around(value: float, dtype: Any) -> npt.NDArray[np.floating]:
    """The value in this type, between the one before and the one after it."""
    middle = np.dtype(dtype).type(value)
    return np.array([np.nextafter(middle, middle - 1), middle, np.nextafter(middle, middle + 1)])


def at_threshold(threshold: float, dtype: Any, seed: int, num_frames: int = 12) -> npt.NDArray[np.floating]:
    """Activations ``(num_frames, 2)``, each of which is the threshold, or the float before or after it."""
    return np.random.default_rng(seed).choice(around(threshold, dtype), (num_frames, 2))


def beats_at_threshold(threshold: float, dtype: Any) -> npt.NDArray[np.floating]:
    """Beats in 1,200 frames among activations at the threshold; frames 10 and 1189 are the outermost to reach it.

    By their period a beat lies at frame 15, too: it is found where frame 10 counts, not where frame 20 is the first.
    """
    activations = at_threshold(threshold, dtype, seed=1, num_frames=1200)
    below, equal, _ = around(threshold, dtype)
    activations[:20] = activations[-20:] = below
    activations[[10, -11]] = equal
    activations[65:1150:50, 0] = 0.9
    activations[65:1150:200] = [0.02, 0.9]
    return activations


def densities_that_tie(dtype: Any) -> npt.NDArray[np.floating]:
    """1,200 frames in which non-beat, beat and downbeat have equal densities but for an ULP.

    With 16 parts of a beat the density of a non-beat is (1 - b - d) / 15, which is b and d where both are 1 / 17.
    """
    return at_threshold(1 / 17, dtype, seed=2, num_frames=1200)


def peaks_that_tie(dtype: Any) -> npt.NDArray[np.floating]:
    """Beats of five frames, of which the highest is so by one ULP, or the first of equals."""
    rng = np.random.default_rng(3)
    activations = np.full((1200, 2), 0.01, dtype)
    for number, frame in enumerate(range(30, 1190, 48)):
        activations[frame : frame + 5, int(number % 4 == 0)] = rng.choice(around(0.9, dtype), 5)
    return activations


def sections_that_tie(spacings: tuple[int, ...], num_frames: int) -> dict[str, npt.NDArray[np.float32]]:
    """Probabilities of boundaries and labels whose comparisons are of equals, or of neighbours in float32.

    Parameters
    ----------
    spacings : tuple of int
        Frames from one peak to the next, drawn at random: around a window's length, the next peak is in it or not.
    num_frames : int
    """
    rng = np.random.default_rng([num_frames, *spacings])
    segment = rng.choice(around(0.1, np.float32), num_frames)
    peaks = np.cumsum(rng.choice(spacings, num_frames // min(spacings)))
    peaks = peaks[peaks < num_frames]
    segment[peaks] = rng.choice(around(0.5, np.float32), peaks.size)
    label = np.full((10, num_frames), 0.05, np.float32)
    label[3:6] = rng.choice(around(0.2, np.float32), (3, num_frames))
    return {"segment": segment, "label": label}
