"""`Audio` and `Stems`: which samples are refused, with which words, and how objects of them compare."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from allin1_core import Audio, Stems
from allin1_core.audio.types import STEM_NAMES
from allin1_core.errors import AudioError, BackendError, StemsError
from allin1_core.separation import read_stems, separate


@pytest.mark.parametrize(
    ("samples", "sample_rate", "message"),
    [
        (np.zeros(100, np.int16), 44100, "samples: ndarray of shape (100,); expected a numpy array of shape"),
        (np.zeros((2, 44100), np.int16), 44100, "samples: ndarray of shape (2, 44100); expected"),
        (np.zeros((100, 0), np.int16), 44100, "samples: ndarray of shape (100, 0); expected"),
        ([[0.5, 0.5]], 44100, "samples: list of shape (1, 2); expected"),
        (
            np.zeros((100, 2)),
            44100,
            "samples: dtype float64; expected int16, or float32 with full scale at 1",
        ),
        (
            np.zeros((100, 2), np.int16),
            44100.0,
            "sample_rate: 44100.0; expected a whole number from 1000 to 1000000",
        ),
        (np.zeros((100, 2), np.int16), 44, "sample_rate: 44; expected a whole number from 1000 to 1000000"),
    ],
)
def test_samples_of_another_form_are_refused(samples: Any, sample_rate: Any, message: str) -> None:
    with pytest.raises(AudioError, match=re.escape(message)):
        Audio(samples, sample_rate)


@pytest.mark.parametrize(
    ("samples", "sample_rate", "message"),
    [
        (np.zeros((3, 5), np.int16), 44100, "shape (3, 5); expected a numpy array of shape (4, num_samples)"),
        (np.zeros((4, 5)), 44100, "stems: dtype float64; expected int16, or float32"),
        (
            np.zeros((4, 5)).tolist(),
            44100,
            "stems: list of shape (4, 5); expected a numpy array of shape (4, num_",
        ),
        (np.zeros((4, 5), np.int16), 0, "sample_rate: 0; expected a whole number from 1000 to 1000000 Hz"),
    ],
)
def test_stems_of_another_form_are_refused(samples: np.ndarray, sample_rate: int, message: str) -> None:
    with pytest.raises(StemsError, match=re.escape(message)):
        Stems(samples, sample_rate)


@pytest.mark.parametrize("dtype", ["f8", "f2", ">f4", ">i2", "i4", ">i4", "i1", "u1", "u2"])
def test_the_conversion_that_is_told_keeps_the_scale(dtype: str) -> None:
    """``astype(np.int16)`` alone wraps integers of 32 bits: noise, without a word."""
    level = np.array([[-0.5, 0.0, 0.25, 0.5]] * 4)
    kind, bits = np.dtype(dtype).kind, 8 * np.dtype(dtype).itemsize
    full_scale = 1 if kind == "f" else 2 ** (bits - 1)
    stems = ((level + (kind == "u")) * full_scale).astype(dtype)
    with pytest.raises(StemsError) as told:
        Stems(stems)
    expression = re.search(r"Convert with (\S+astype\(\S+\)|\(.*\)\.astype\(np\.float32\))", str(told.value))
    assert expression
    converted = Stems(eval(expression[1], {"np": np, "stems": stems})).samples
    np.testing.assert_allclose(converted / (2**15 if converted.dtype == np.int16 else 1), level, atol=1e-3)


def test_samples_are_compared_as_objects() -> None:
    """Arrays have no single answer: a comparison by fields raised, as did one as a key of a dict."""
    samples = np.zeros((4, 5), np.int16)
    stems, audio = Stems(samples), Audio(samples, 44100)
    assert stems == stems
    assert stems != Stems(samples)
    assert {stems: 1, audio: 2}[audio] == 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_stems_that_a_separator_gives_without_numbers_are_refused(value: float) -> None:
    """Of any backend: quantised, NaN would be silence or a click."""

    class Separator:
        sample_rate, num_channels = 44100, 2

        def __call__(self, mix: np.ndarray, **_: Any) -> dict[str, np.ndarray]:
            damaged = mix.copy()
            damaged[1, 7] = value
            return dict.fromkeys(STEM_NAMES, mix) | {"drums": damaged}

    mix = Audio(np.zeros((100, 2), np.float32), 44100)
    with pytest.raises(
        BackendError, match="separation gave NaN or infinity in drums; expected finite samples"
    ):
        separate(Separator(), mix)  # type: ignore[arg-type]


def test_no_stems_are_refused() -> None:
    with pytest.raises(StemsError, match="song: no stem bass, drums, other, vocals; found none"):
        read_stems({}, "song")
