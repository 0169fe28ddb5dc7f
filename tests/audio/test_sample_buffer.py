"""Memory that reading takes: what the samples need and a quarter more, and never beyond the bound."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from allin1_core.audio import conversion
from allin1_core.audio import reading as audio_module
from allin1_core.audio.conversion import remix_to_mono, resample
from allin1_core.audio.reading import read_audio, read_mono
from allin1_core.audio.sample_buffer import SampleBuffer
from allin1_core.audio.types import STEM_NAMES
from allin1_core.errors import AudioError
from allin1_core.separation import folder as folder_module
from allin1_core.separation import read_stems_folder
from allin1_core.threads import limited_cores

MEGABYTE = 1 << 20


@pytest.mark.parametrize("promised", [0, 50, 1000, 1 << 40])
@pytest.mark.parametrize("likely", [0, 100, 1 << 20])
def test_blocks_come_back_as_one_array(promised: int, likely: int) -> None:
    blocks = [np.full((number, 2), number, np.int16) for number in (1, 7, 100, 3, 64)]
    buffer = SampleBuffer(1 << 20, promised, likely)
    assert all(buffer.add(block) for block in blocks)
    np.testing.assert_array_equal(buffer.samples("int16", 2), np.concatenate(blocks))


@pytest.mark.parametrize("size", [100, 174, 175, 176, 300])
def test_blocks_go_into_an_array_that_is_given_as_long_as_it_holds_them(size: int) -> None:
    blocks = [np.full((number, 1), number, np.int16) for number in (1, 7, 100, 3, 64)]
    larger, asked = np.full((3, size), 77, np.int16), []

    def allocate(number: int, dtype: np.dtype) -> np.ndarray:
        asked.append((number, dtype))
        return larger[1]

    buffer = SampleBuffer(1 << 20, size, 1 << 20, allocate)
    assert all(buffer.add(block) for block in blocks)
    samples = buffer.samples("int16", 1)
    np.testing.assert_array_equal(samples, np.concatenate(blocks))
    assert asked == [(size, np.int16)]
    assert np.may_share_memory(samples, larger) == (size >= 175)
    assert (larger[[0, 2]] == 77).all()


def peak_of(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, int]:
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def write_silence(path: Path, seconds: float, channels: int = 2, sample_rate: int = 44100) -> Path:
    soundfile.write(path, np.zeros((int(seconds * sample_rate), channels), np.int16), sample_rate)
    return path


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_reading_takes_the_samples_and_a_quarter(tmp_path: Path, suffix: str) -> None:
    """FLAC packs silence to a hundredth, so that nothing can be concluded from the size of the file."""
    path = write_silence(tmp_path / f"a{suffix}", 300)
    samples, peak = peak_of(lambda: read_audio(path).samples)
    assert samples.nbytes == 300 * 44100 * 4
    extra = 1.0 if suffix == ".wav" else 1.25
    # Two blocks of a million values, as they come from the file.
    assert peak < extra * samples.nbytes + 2 * 2 * MEGABYTE + MEGABYTE, peak / samples.nbytes


def test_sound_that_is_packed_as_music_is_takes_no_more_than_its_samples(tmp_path: Path) -> None:
    """An array that grows takes more, 0.8 MB here, and is filled with zeros before the samples come."""
    time = np.arange(60 * 44100) / 44100
    tone = (3000 * np.sin(2 * np.pi * 440 * time) + np.random.default_rng(0).normal(0, 20, len(time))).astype(
        np.int16
    )
    path = tmp_path / "a.flac"
    soundfile.write(path, tone, 44100)
    assert 2 < tone.nbytes / path.stat().st_size < 16
    with limited_cores(1):
        samples, peak = peak_of(lambda: read_audio(path).samples)
    np.testing.assert_array_equal(samples[:, 0], tone)
    assert peak < tone.nbytes + 0.7 * MEGABYTE  # a block as it comes from the file is 0.5 MB
    with limited_cores(2):
        samples, peak = peak_of(lambda: read_audio(path).samples)
    np.testing.assert_array_equal(samples[:, 0], tone)
    assert peak < tone.nbytes + 2.2 * MEGABYTE  # two blocks for each of two cores


def test_channels_that_are_mixed_take_no_memory(tmp_path: Path) -> None:
    path = write_silence(tmp_path / "a.flac", 60, channels=8)
    samples, peak = peak_of(lambda: read_mono(path, 1 << 30).samples)
    assert samples.shape == (60 * 44100, 1)
    # A block of a million values; its mean in float64, an eighth of that.
    assert peak < 1.25 * samples.nbytes + 6 * MEGABYTE, peak


def test_resampling_takes_what_goes_in_and_comes_out() -> None:
    samples = np.zeros(300 * 48000, np.int16)
    resampled, peak = peak_of(lambda: resample(samples, 48000, 44100))
    # Some blocks of a million values in float64.
    assert peak < 1.01 * resampled.nbytes + 6 * 8 * MEGABYTE, peak / MEGABYTE


@pytest.mark.parametrize(("suffix", "sizes"), [("wav", 1.0), ("flac", 2.25)])
def test_stems_together_stay_near_their_size(suffix: str, sizes: float, tmp_path: Path) -> None:
    """Those of FLAC files that are too small to be trusted, as above, are all there beside the joined ones."""
    for stem in STEM_NAMES:
        write_silence(tmp_path / f"{stem}.{suffix}", 300)
    stems, peak = peak_of(lambda: read_stems_folder(tmp_path).samples)
    assert stems.nbytes == 4 * 300 * 44100 * 2
    # And the blocks of each thread.
    assert peak < sizes * stems.nbytes + 4 * 2 * MEGABYTE, peak / stems.nbytes


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("dtype", ["PCM_16", "FLOAT"])
def test_mono_by_blocks_is_mono_at_once(tmp_path: Path, channels: int, dtype: str) -> None:
    samples = np.random.default_rng(0).integers(-20000, 20000, (700_000, channels), np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 44100, subtype=dtype)
    expected = remix_to_mono(read_audio(tmp_path / "a.wav").samples)
    mono = read_mono(tmp_path / "a.wav", 1 << 30).samples
    assert mono.dtype == expected.dtype
    np.testing.assert_array_equal(mono[:, 0], expected)


@pytest.mark.parametrize("rates", [(48000, 44100), (22050, 44100), (8000, 44100), (96000, 44100)])
@pytest.mark.parametrize("channels", [1, 2])
def test_resampling_by_blocks_is_resampling_at_once(
    rates: tuple[int, int], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = np.random.default_rng(1).integers(-20000, 20000, (100_003, channels), np.int16)
    at_once = resample(samples, *rates)
    assert len(at_once) == pytest.approx(len(samples) * rates[1] / rates[0], abs=1)
    monkeypatch.setattr(conversion, "BLOCK_VALUES", 1000)
    np.testing.assert_array_equal(resample(samples, *rates), at_once)
    np.testing.assert_array_equal(resample(samples[:, 0].copy(), *rates), at_once[:, 0])


@pytest.fixture
def small_bound(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(audio_module, "MOST_BYTES", 400_000)
    monkeypatch.setattr(folder_module, "MOST_BYTES_OF_STEMS", 800_000)
    return 400_000


@pytest.mark.parametrize(
    ("seconds", "channels", "sample_rate"),
    [(2.26, 2, 44100), (4.53, 1, 44100), (2.26, 2, 22050), (2.08, 2, 48000)],
)
def test_the_bound_is_in_bytes_at_the_rate_of_the_pipeline(
    tmp_path: Path, small_bound: int, seconds: float, channels: int, sample_rate: int
) -> None:
    read_audio(write_silence(tmp_path / "a.flac", seconds, channels, sample_rate))
    write_silence(tmp_path / "b.flac", 1.01 * seconds, channels, sample_rate)
    with pytest.raises(
        AudioError, match=r"b\.flac: decodes to more than 400000 bytes; expected at most that"
    ):
        read_audio(tmp_path / "b.flac")
    soundfile.write(
        tmp_path / "c.wav", np.zeros((int(0.51 * seconds * sample_rate), channels)), sample_rate, "FLOAT"
    )
    with pytest.raises(AudioError, match=r"c\.wav: decodes to more than 400000 bytes"):
        read_audio(tmp_path / "c.wav")


def test_stems_share_their_bound(tmp_path: Path, small_bound: int) -> None:
    for stem in STEM_NAMES:
        write_silence(tmp_path / f"{stem}.flac", 2.2)
    read_stems_folder(tmp_path)
    write_silence(tmp_path / "guitar.flac", 2.2)
    with pytest.raises(AudioError, match=r"bass\.flac: decodes to more than 160000 bytes"):
        read_stems_folder(tmp_path)
