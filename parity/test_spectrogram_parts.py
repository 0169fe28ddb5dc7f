"""Window, filterbank and framing are madmom's own, to the bit; and what madmom makes of unusual input."""

from __future__ import annotations

import numpy as np
import pytest

from allin1_core.spectrogram import filterbank
from allin1_core.spectrogram.filterbank import window
from allin1_core.spectrogram.framing import frames, num_frames
from parity.agreement import compare
from parity.inputs.spectrogram import LENGTHS, SAMPLE_RATES
from parity.oracles import madmom_spectrogram as oracle
from parity.oracles.madmom_import import import_madmom


@pytest.mark.parametrize("sample_rate", [*SAMPLE_RATES, 12000, 24000, 44099, 64000, 192000])
def test_filterbank_is_identical(sample_rate: int) -> None:
    ours, theirs = filterbank(sample_rate), oracle.madmom_filterbank(sample_rate)
    assert theirs.dtype == np.float32
    compare(ours, theirs).require(sample_rate)


def test_filterbank_has_the_published_size() -> None:
    weights = filterbank(44100)
    assert weights.shape == (1024, 81)
    assert np.count_nonzero(weights) == 1428
    used = np.flatnonzero(weights.any(axis=1))
    assert (used[0], used[-1]) == (2, 777)


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_window_is_identical(dtype: str) -> None:
    import_madmom()
    from madmom.audio.signal import FramedSignal, Signal
    from madmom.audio.stft import ShortTimeFourierTransform

    signal = Signal(np.ones(4096, dtype), sample_rate=44100)
    theirs = ShortTimeFourierTransform(FramedSignal(signal, frame_size=2048, fps=100)).fft_window
    compare(window(dtype), theirs).require(dtype)


@pytest.mark.parametrize("sample_rate", [*SAMPLE_RATES, 12345, 44099])
@pytest.mark.parametrize("num_samples", [length for length in LENGTHS if length] + [100_003])
def test_frames_are_identical(num_samples: int, sample_rate: int) -> None:
    import_madmom()
    from madmom.audio.signal import FramedSignal, Signal

    samples = np.random.default_rng(0).integers(-32768, 32768, num_samples, dtype=np.int16)
    theirs = FramedSignal(Signal(samples, sample_rate=sample_rate), frame_size=2048, fps=100)
    assert num_frames(num_samples, sample_rate) == len(theirs)
    ours = frames(samples, 0, len(theirs), sample_rate)
    compare(ours, np.stack([np.asarray(frame) for frame in theirs])).require(sample_rate)


def test_the_oracle_keeps_no_window_from_call_to_call() -> None:
    samples = np.random.default_rng(0).integers(-9000, 9000, 4000, dtype=np.int16)
    before = oracle.madmom_spectrogram(samples, 44100)
    oracle.madmom_spectrogram((samples / 32768).astype(np.float32), 44100)
    compare(oracle.madmom_spectrogram(samples, 44100), before).require("again")
    assert before.max() > 0.5
