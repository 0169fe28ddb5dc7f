"""Audio as madmom reads and mixes it: the same samples, bit for bit. And the doctor's stored values beside madmom's."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import soundfile

from allin1_core import self_test
from allin1_core.audio.conversion import remix_to_mono
from allin1_core.audio.reading import read_audio
from parity.agreement import compare, ulp_measures
from parity.oracles.madmom_dbn import make_decoder
from parity.oracles.madmom_import import import_madmom, madmom_version
from parity.oracles.madmom_spectrogram import madmom_spectrogram
from parity.oracles.pipeline import decoder_input
from parity.reports.records import ParityRecord, ParityRecorder

# The stored spectrogram was computed on one machine. numpy's absolute value and the BLAS round as their kernels for the
# processor do, so madmom's values on another differ by a step of float32 or two, as implementations do that differ
# after the transform (docs/method.md).
STORED_BOUND = 5e-7


def check(
    record_parity: ParityRecorder,
    case: str,
    found: np.ndarray,
    expected: np.ndarray,
    stage: str = "audio",
    allowed: float = 0.0,
) -> None:
    """Record how close an array came to madmom's, then hold it to what is allowed."""
    agreement = compare(found, expected, allowed=allowed)
    record_parity(
        ParityRecord(
            stage=stage,
            case=case,
            oracle=f"madmom {madmom_version()}",
            backend="numpy",
            device="cpu",
            precision="exact",
            bound="bit-identical" if allowed == 0 else f"<= {allowed:.0e}",
            passed=agreement.passed,
            measures={
                "values": agreement.values,
                "differences": agreement.different,
                **ulp_measures([agreement]),
            },
        )
    )
    agreement.require(case)


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_mixing_to_mono(channels: int, dtype: type, record_parity: ParityRecorder) -> None:
    import_madmom()
    from madmom.audio.signal import remix

    random = np.random.default_rng(channels)
    if dtype is np.int16:
        samples = random.integers(-32768, 32768, (20_000, channels)).astype(np.int16)
    else:
        samples = random.uniform(-1, 1, (20_000, channels)).astype(np.float32)
    expected = np.asarray(remix(samples, 1))
    found = remix_to_mono(samples)
    check(record_parity, f"{channels} channels, {np.dtype(dtype)}", found, expected)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sample_rate", [8000, 44100, 96000])
def test_reading_a_16_bit_file(
    channels: int, sample_rate: int, tmp_path: Path, record_parity: ParityRecorder
) -> None:
    import_madmom()
    from madmom.audio.signal import Signal

    samples = np.random.default_rng(0).integers(-32768, 32768, (30_000, channels)).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, sample_rate)
    signal = Signal(str(tmp_path / "a.wav"), num_channels=1)
    audio = read_audio(tmp_path / "a.wav")
    found, expected = remix_to_mono(audio.samples), np.asarray(signal)
    check(record_parity, f"16-bit WAV, {channels} channels, {sample_rate} Hz", found, expected)
    assert audio.sample_rate == signal.sample_rate


@functools.cache
def _madmoms() -> tuple[np.ndarray, np.ndarray]:
    """madmom's spectrogram of the self-test's stems, every 25th frame, and its beats."""
    spectrogram = np.stack([madmom_spectrogram(stem, 44100) for stem in self_test.stems()])[:, ::25]
    decode = make_decoder(beats_per_bar=[3, 4], fps=100)
    return spectrogram, np.asarray(decode(decoder_input(*self_test.probabilities())))


def test_the_doctors_stored_values_are_madmoms(record_parity: ParityRecorder) -> None:
    """Stored values within their bound, whatever the machine; what numpy computes on this one bit for bit."""
    stored = self_test.stored_values()
    spectrogram, beats = _madmoms()
    check(
        record_parity,
        "self-test, spectrogram",
        stored["spectrogram"],
        spectrogram,
        "self-test",
        STORED_BOUND,
    )
    check(record_parity, "self-test, beats", stored["decoder"], beats, "self-test")
    compare(self_test.spectrogram("numpy"), spectrogram).require("numpy's spectrogram, computed now")
