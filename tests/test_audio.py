"""Audio files: what is read, in which dtype, and what is refused with which words."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from audio_files import encoded

from allin1_core.audio.conversion import quantise, remix_to_mono, resample
from allin1_core.audio.reading import read_audio
from allin1_core.audio.types import Stems
from allin1_core.errors import AudioError, StemsError


def _noise(num_samples: int = 44100, channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-20000, 20000, (num_samples, channels), dtype=np.int16)


def _write_container(path: Path, samples: np.ndarray, codec: str) -> None:
    sample_format = {"alac": "s16p", "flac": "s16"}.get(codec, "")
    container = {".mka": "matroska", ".m4a": "ipod", ".mp4": "mp4"}[path.suffix]
    path.write_bytes(encoded(samples, codec, container, sample_rate=44100, sample_format=sample_format))


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.wav", "PCM_16"), ("a.flac", "PCM_16"), ("a.aiff", "PCM_16"), ("a.caf", "PCM_16")],
)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_16_bit_files_come_back_as_the_integers_they_hold(
    tmp_path: Path, name: str, subtype: str, channels: int
) -> None:
    samples = _noise(1000, channels)
    soundfile.write(tmp_path / name, samples, 22050, subtype=subtype)
    audio = read_audio(tmp_path / name)
    assert audio.sample_rate == 22050
    assert audio.samples.dtype == np.int16
    np.testing.assert_array_equal(audio.samples, samples)


def test_8_bit_files_are_int16_scaled_by_256(tmp_path: Path) -> None:
    samples = (_noise(1000, 1) >> 8) << 8
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="PCM_U8")
    audio = read_audio(tmp_path / "a.wav")
    assert audio.samples.dtype == np.int16
    np.testing.assert_array_equal(audio.samples, samples)


@pytest.mark.parametrize(
    ("subtype", "step"), [("PCM_24", 2.0**-23), ("PCM_32", 2.0**-24), ("FLOAT", 0.0), ("DOUBLE", 0.0)]
)
def test_wider_files_are_float32_in_unit_range(tmp_path: Path, subtype: str, step: float) -> None:
    samples = np.random.default_rng(0).uniform(-0.99, 0.99, (1000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 96000, subtype=subtype)
    audio = read_audio(tmp_path / "a.wav")
    assert audio.samples.dtype == np.float32
    np.testing.assert_allclose(audio.samples, samples, rtol=0, atol=step)


def test_long_files_are_read_across_block_borders(tmp_path: Path) -> None:
    samples = _noise(1_500_000, 2)
    soundfile.write(tmp_path / "a.flac", samples, 44100)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.flac").samples, samples)


def test_alac_in_m4a_is_lossless_int16(tmp_path: Path) -> None:
    samples = _noise(30000)
    _write_container(tmp_path / "a.m4a", samples, "alac")
    audio = read_audio(tmp_path / "a.m4a")
    assert audio.samples.dtype == np.int16
    np.testing.assert_array_equal(audio.samples, samples)


def test_aac_in_mp4_is_float32_of_the_same_length_and_sound(tmp_path: Path) -> None:
    time = np.arange(44100) / 44100
    tone = (10000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    _write_container(tmp_path / "a.mp4", np.stack([tone, tone], axis=1), "aac")
    audio = read_audio(tmp_path / "a.mp4")
    assert audio.samples.dtype == np.float32
    assert audio.samples.shape[1] == 2
    assert 44100 <= len(audio.samples) <= 44100 + 2048
    middle = slice(4000, 40000)
    error = audio.samples[middle, 0] - tone[middle] / 32768
    assert np.abs(error).max() < 0.02


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    samples = _noise(1000)
    soundfile.write(tmp_path / "a.flac", samples, 44100)
    (tmp_path / "a.flac").rename(tmp_path / "a.raw")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.raw").samples, samples)


def test_one_sample_is_audio(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([5], np.int16), 44100)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav").samples, [[5]])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"nothing\.wav: cannot be opened \(No such file"):
        read_audio(tmp_path / "nothing.wav")


def test_folder_instead_of_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="is a folder; expected a file"):
        read_audio(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(AudioError, match=r"a\.wav: the file is empty \(0 bytes\)"):
        read_audio(tmp_path / "a.wav")


def test_text_renamed_to_wav(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("these are words, not samples\n" * 100)
    with pytest.raises(AudioError, match=r"a\.wav: not audio that FFmpeg can read \(.+\); expected WAV"):
        read_audio(tmp_path / "a.wav")


def test_zero_length(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.empty(0, np.int16), 44100)
    with pytest.raises(AudioError, match=r"a\.wav: the file holds no samples"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("codec", ["alac", "aac"])
def test_truncated_container(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.m4a"
    _write_container(path, _noise(88200), codec)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match=r"a\.m4a: truncated"):
        read_audio(path)


def test_a_container_whose_end_is_missing_but_whose_index_leads(tmp_path: Path) -> None:
    path = tmp_path / "a.mka"
    _write_container(path, _noise(441000), "flac")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match=r"a\.mka: truncated"):
        read_audio(path)


def test_a_stream_of_unknown_length_is_whole(tmp_path: Path) -> None:
    """ffmpeg and sox, writing WAV to a pipe, cannot go back to put the length in."""
    path = tmp_path / "a.wav"
    samples = _noise(1000)
    soundfile.write(path, samples, 44100)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 4, 0xFFFFFFFF)
    struct.pack_into("<I", content, content.index(b"data") + 4, 0xFFFFFFFF)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_audio(path).samples, samples)


def test_what_a_header_claims_is_not_allocated(tmp_path: Path) -> None:
    """A FLAC header that claims 2^36 - 1 samples (256 GB) in a file of some kilobytes."""
    path = tmp_path / "a.flac"
    soundfile.write(path, _noise(10000), 44100)
    content = bytearray(path.read_bytes())
    # STREAMINFO: the number of samples is the low 36 bits of bytes 18 to 25.
    content[21] |= 0x0F
    content[22:26] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(AudioError, match=r"a\.flac: truncated"):
        read_audio(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6, peak


@pytest.mark.parametrize("rate", [1, 999, 1_000_001])
def test_absurd_sample_rate(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", _noise(10), rate)
    with pytest.raises(AudioError, match=f"sample rate {rate} Hz; expected 1000 to 1000000 Hz"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(tmp_path: Path, value: float) -> None:
    samples = np.zeros(100, np.float32)
    samples[[7, 9]] = value
    soundfile.write(tmp_path / "a.wav", samples, 44100, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"a\.wav: 2 samples are NaN or infinite, the first at sample 7"):
        read_audio(tmp_path / "a.wav")


def test_video_without_sound(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match="the container holds no audio stream"):
        read_audio(tmp_path / "a.mp4")


def test_remix_truncates_integers_toward_zero() -> None:
    samples = np.array([[1, 2], [-1, -2], [3, 3], [-32768, -32767]], np.int16)
    np.testing.assert_array_equal(remix_to_mono(samples), [1, -1, 3, -32767])


def test_resampling_keeps_dtype_length_and_pitch() -> None:
    time = np.arange(48000) / 48000
    tone = np.rint(20000 * np.sin(2 * np.pi * 1000 * time)).astype(np.int16)
    resampled = resample(tone, 48000, 44100)
    assert resampled.dtype == np.int16
    assert len(resampled) == 44100
    expected = 20000 * np.sin(2 * np.pi * 1000 * np.arange(44100) / 44100)
    assert np.abs(resampled[1000:-1000] - expected[1000:-1000]).max() <= 2
    np.testing.assert_array_equal(resampled, resample(tone, 48000, 44100))


def test_resampling_clips_instead_of_wrapping() -> None:
    square = np.where(np.arange(4800) // 50 % 2, 32767, -32768).astype(np.int16)
    resampled = resample(square, 48000, 44100).astype(int)
    assert resampled.max() == 32767
    assert resampled.min() == -32768
    assert np.abs(np.diff(resampled)).max() < 65536


@pytest.mark.parametrize("peak", [0.5, 0.9999, 1.0, 3.0])
def test_quantising_is_a_round_trip_through_a_16_bit_file(tmp_path: Path, peak: float) -> None:
    samples = np.random.default_rng(1).normal(size=(5000, 2)).astype(np.float32)
    samples *= np.float32(peak) / np.abs(samples).max()
    quantised = quantise(samples)
    soundfile.write(tmp_path / "a.wav", quantised, 44100, subtype="PCM_16")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav").samples, quantised)
    scale = max(1.01 * peak, 1)
    np.testing.assert_allclose(quantised, np.clip(samples * 32768 / scale, -32768, 32767), atol=0.51)


def test_stems_of_the_wrong_shape_or_dtype_are_refused() -> None:
    with pytest.raises(StemsError, match=r"shape \(3, 5\); expected \(4, num_samples\)"):
        Stems(np.zeros((3, 5), np.int16))
    with pytest.raises(StemsError, match="dtype float64; expected int16 or float32"):
        Stems(np.zeros((4, 5)))
