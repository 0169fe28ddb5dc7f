"""Audio files: what is read, in which dtype, and what is refused with which words."""

from __future__ import annotations

import contextlib
import io
import struct
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from audio_files import STEREO, encoded, music, read, written

from allin1_core.audio import decoding
from allin1_core.audio.conversion import resample
from allin1_core.audio.reading import read_audio
from allin1_core.audio.types import LARGEST_SAMPLE
from allin1_core.errors import AudioError
from allin1_core.spectrogram import log_spectrogram


def _noise(num_samples: int = 44100, channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-20000, 20000, (num_samples, channels), dtype=np.int16)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.caf"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_16_bit_files_come_back_as_the_integers_they_hold(tmp_path: Path, name: str, channels: int) -> None:
    samples = _noise(1000, channels)
    soundfile.write(tmp_path / name, samples, 22050, subtype="PCM_16")
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


@pytest.mark.parametrize(
    "others",
    [("VORBIS", 2, 48000), ("VORBIS", 1, 44100), ("OPUS", 2, 48000)],
    ids=["rate", "channels", "codec"],
)
def test_a_chain_of_different_parts_is_refused(tmp_path: Path, others: tuple[str, int, int]) -> None:
    subtype, channels, rate = others
    content = written("OGG", "VORBIS", STEREO) + written("OGG", subtype, music(1.0, channels, rate), rate)
    with pytest.raises(
        AudioError, match=r"song\.audio: its parts differ in codec, sample rate or number of channels"
    ):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("other", "described"),
    [(music(1.0, 2, 24000), "24000 Hz, 2 channels"), (music(1.0, 1, 44100), "44100 Hz, 1 channels")],
)
@pytest.mark.parametrize(("codec", "container"), [("libmp3lame", "mp3"), ("aac", "adts")])
def test_a_change_of_rate_or_channels_is_refused(
    tmp_path: Path, codec: str, container: str, other: np.ndarray, described: str
) -> None:
    rate = int(described.split()[0])
    options = {"write_xing": "0", "id3v2_version": "0"} if container == "mp3" else {}
    content = encoded(STEREO, codec, container, sample_rate=44100, options=options)
    content += encoded(other, codec, container, sample_rate=rate, options=options)
    with pytest.raises(
        AudioError, match=r"song\.audio: changes after sample \d+ from .* to .*; expected one"
    ) as caught:
        read(tmp_path, content)
    assert described in str(caught.value)
    assert "44100 Hz, 2 channels" in str(caught.value)


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile '{}'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{}\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    ],
    ids=["concat", "hls", "sdp"],
)
def test_no_file_leads_to_another(tmp_path: Path, playlist: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("other.wav", STEREO, 44100)
    for name in ("other.wav", str(tmp_path / "other.wav")):
        with pytest.raises(AudioError, match=r"song\.audio: not audio that FFmpeg can read"):
            read(tmp_path, playlist.format(name).encode())


@pytest.mark.parametrize(
    ("codec", "container", "message"),
    [
        ("flac", "flac", r"damaged after sample \d+, where frames"),
        ("flac", "ogg", r"damaged; \d+ samples are missing after sample \d+"),
        ("libopus", "ogg", r"damaged; \d+ samples are missing after sample \d+"),
        ("flac", "matroska", "truncated or damaged"),
        ("wavpack", "wv", "truncated or damaged"),
        ("tta", "tta", "truncated or damaged"),
        ("alac", "ipod", "truncated or damaged"),
        ("aac", "mp4", "truncated or damaged"),
        ("libmp3lame", "mp3", r"damaged after sample \d+"),
    ],
)
def test_damage_in_the_middle_is_an_error(tmp_path: Path, codec: str, container: str, message: str) -> None:
    sample_format = {"flac": "s16", "alac": "s16p", "wavpack": "s16p", "tta": "s16"}.get(codec, "")
    content = bytearray(encoded(music(4.0, 2), codec, container, sample_format=sample_format))
    middle = len(content) // 2
    damage = np.random.default_rng(5).integers(0, 256, 3000, np.uint8)
    content[middle : middle + len(damage)] = damage.tobytes()
    with pytest.raises(AudioError, match=rf"song\.audio: ({message})"):
        read(tmp_path, bytes(content))


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, 1e12])
@pytest.mark.parametrize("suffix", ["wav", "wv"])
def test_float_samples_beyond_all_sound(tmp_path: Path, value: float, suffix: str) -> None:
    samples = np.zeros((5000, 1), np.float32)
    samples[[700, 900]] = value
    soundfile.write(tmp_path / "song.wav", samples, 44100, subtype="FLOAT")
    if suffix == "wv":
        content = encoded_float(samples)
        (tmp_path / "song.wv").write_bytes(content)
    with pytest.raises(
        AudioError, match=rf"song\.{suffix}: 2 samples are beyond 2147483648, .* the first at sample 700"
    ):
        read_audio(tmp_path / f"song.{suffix}")
    with pytest.raises(
        AudioError, match=r"^stems: 2 samples are beyond 2147483648, .* the first at sample 700;"
    ):
        log_spectrogram(samples[:, 0])


def encoded_float(samples: np.ndarray) -> bytes:

    file = io.BytesIO()
    with av.open(file, "w", format="wv") as output:
        stream = output.add_stream("wavpack", rate=44100, layout="mono")
        stream.format = "fltp"
        frame = av.AudioFrame.from_ndarray(samples.T.copy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        output.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def test_loud_float_samples_are_read_and_analysed(tmp_path: Path) -> None:
    """Integers of 32 bits that were stored as float as they are."""
    samples = np.random.default_rng(0).uniform(-1, 1, (44100, 1)).astype(np.float32) * LARGEST_SAMPLE
    soundfile.write(tmp_path / "song.wav", samples, 44100, subtype="FLOAT")
    audio = read_audio(tmp_path / "song.wav")
    np.testing.assert_array_equal(audio.samples, samples)
    assert np.isfinite(log_spectrogram(audio.samples[:, 0])).all()


def test_an_empty_wav_with_tags_behind_stays_empty(tmp_path: Path) -> None:
    tags = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf59.27.100\0"
    content = bytearray(written("WAV", "PCM_16", STEREO[:0]) + tags)
    struct.pack_into("<I", content, 4, len(content) - 8)
    with pytest.raises(AudioError, match="the file holds no samples"):
        read(tmp_path, bytes(content))


@pytest.mark.parametrize(
    ("container", "behind", "is_end"),
    [
        ("ogg", b"OggS" + bytes(9), True),
        ("ogg", b"OggS" + bytes(9) + b"OggS", False),
        ("mp3", bytes(9), False),
    ],
)
def test_data_that_is_not_valid_is_the_end_only_behind_the_last_page_of_ogg(
    container: str, behind: bytes, is_end: bool
) -> None:
    packet = types.SimpleNamespace(pos=5)

    def demux(_: object) -> Iterator[Any]:
        yield packet
        raise av.InvalidDataError(1, "invalid")

    file = types.SimpleNamespace(format=types.SimpleNamespace(name=container), demux=demux)
    with contextlib.nullcontext() if is_end else pytest.raises(av.InvalidDataError):
        found = list(decoding._packets(av, Path("a"), file, None, io.BytesIO(bytes(5) + behind)))
        assert found == [packet]
