"""FLAC and MP3 files that libsndfile reads, since a checksum proves them whole, and those that are FFmpeg's."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from audio_files import cut_without_decoding, decoded, encoded, music

from allin1_core.audio.reading import read_audio
from allin1_core.audio.verified import UnverifiedError, _crc16, open_verified
from allin1_core.errors import AudioError

SECONDS = 8.0  # more than one block of each number of channels


def written(container: str, subtype: str, channels: int = 1, sample_rate: int = 44100) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, music(SECONDS, channels, sample_rate), sample_rate, subtype, format=container)
    return file.getvalue()


def is_verified(folder: Path, content: bytes) -> bool:
    path = folder / "song.audio"
    path.write_bytes(content)
    try:
        with path.open("rb") as file, open_verified(file) as source:
            return sum(len(block) for block in source.blocks) == source.promised
    except UnverifiedError:
        return False


def read(folder: Path, content: bytes) -> np.ndarray:
    path = folder / "song.audio"
    path.write_bytes(content)
    return read_audio(path).samples


def as_ffmpeg(content: bytes) -> np.ndarray:
    samples = decoded(content)
    return samples / np.float32(2**31) if samples.dtype == np.int32 else samples


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sample_rate", [44100, 16000])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_flac_is_verified_by_the_md5_of_its_samples(
    tmp_path: Path, subtype: str, channels: int, sample_rate: int
) -> None:
    content = written("FLAC", subtype, channels, sample_rate)
    assert is_verified(tmp_path, content)
    samples, expected = read(tmp_path, content), as_ffmpeg(content)
    assert samples.dtype == (np.int16 if subtype == "PCM_16" else np.float32)
    np.testing.assert_array_equal(samples, expected)
    scale = 1 if subtype == "PCM_16" else 32768
    np.testing.assert_array_equal(samples * scale, music(SECONDS, channels, sample_rate))


def test_all_24_bits_of_flac(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-(1 << 23), 1 << 23, (50_000, 2), np.int32)
    file = io.BytesIO()
    soundfile.write(file, values << 8, 48000, "PCM_24", format="FLAC")
    assert is_verified(tmp_path, file.getvalue())
    np.testing.assert_array_equal(read(tmp_path, file.getvalue()), values / np.float32(1 << 23))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sample_rate", [44100, 48000, 22050, 11025])
def test_mp3_is_verified_by_what_lame_wrote(
    tmp_path: Path, channels: int, sample_rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In many blocks: behind a seek libsndfile decodes a few frames wrongly, by up to 0.8 of full scale."""
    monkeypatch.setattr("allin1_core.audio.libsndfile._READ_VALUES", 10_000)
    content = written("MP3", "MPEG_LAYER_III", channels, sample_rate)
    id3v2, id3v1 = b"ID3\4\0\0\0\0\2\0" + bytes(256), b"TAG" + bytes(125)
    expected = as_ffmpeg(content)
    assert expected.shape == (SECONDS * sample_rate, channels)
    for whole in (content, id3v2 + content, content + id3v1):
        assert is_verified(tmp_path, whole)
        np.testing.assert_allclose(read(tmp_path, whole), expected, rtol=0, atol=1 / 32768)


def packets(content: bytes) -> list[tuple[int, int]]:
    """Where the packets of a file begin, and their sizes."""
    with av.open(io.BytesIO(content)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]


def with_info(flac: bytes, **changed: int) -> bytes:
    """With other values in STREAMINFO: ``rate``, ``length`` or ``md5``."""
    (packed,) = struct.unpack_from(">Q", flac, 18)
    rate, length = changed.get("rate", packed >> 44), changed.get("length", packed & (1 << 36) - 1)
    packed = rate << 44 | (packed >> 36 & 0xFF) << 36 | length
    md5 = changed["md5"].to_bytes(16, "big") if "md5" in changed else flac[26:42]
    return flac[:18] + struct.pack(">Q", packed) + md5 + flac[42:]


FLAC = written("FLAC", "PCM_16")
FLAC_FRAMES = packets(FLAC)
NUM_SAMPLES = int(SECONDS * 44100)
START, SIZE = FLAC_FRAMES[len(FLAC_FRAMES) // 2]


@pytest.mark.parametrize(
    ("content", "num_samples"),
    [
        (with_info(FLAC, md5=0), NUM_SAMPLES),
        (with_info(FLAC, md5=1), NUM_SAMPLES),
        (with_info(FLAC, length=0), NUM_SAMPLES),
        (with_info(FLAC, length=NUM_SAMPLES // 2), NUM_SAMPLES),
        (with_info(FLAC, rate=48000), NUM_SAMPLES),
        (cut_without_decoding(FLAC, 100_000, "flac")[0], None),
        (written("FLAC", "PCM_16", sample_rate=45678), int(SECONDS * 45678)),
        (b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + FLAC, NUM_SAMPLES),
    ],
    ids=["no MD5", "wrong MD5", "no length", "half", "other rate", "cut", "odd rate", "ID3"],
)
def test_flac_without_proof_has_the_samples_of_ffmpeg(
    tmp_path: Path, content: bytes, num_samples: int | None
) -> None:
    assert not is_verified(tmp_path, content)
    samples = read(tmp_path, content)
    assert num_samples is None or len(samples) == num_samples
    np.testing.assert_array_equal(samples, as_ffmpeg(content))


@pytest.mark.parametrize(
    "content",
    [
        FLAC[:START] + FLAC[START + SIZE :],
        FLAC[: START + 100] + bytes(50) + FLAC[START + 150 :],
        FLAC[:-1000],
        FLAC[: FLAC_FRAMES[-1][0]],
        with_info(FLAC, length=NUM_SAMPLES + 1),
    ],
    ids=["a frame is missing", "damaged", "cut off", "cut off between frames", "length"],
)
def test_flac_with_missing_or_damaged_frames_is_refused(tmp_path: Path, content: bytes) -> None:
    assert not is_verified(tmp_path, content)
    with pytest.raises(AudioError, match=r"song\.audio: .*(truncated|damaged)"):
        read(tmp_path, content)


@pytest.mark.parametrize("behind", [FLAC, FLAC[:42], bytes(100_000)])
@pytest.mark.parametrize(
    "block", [44_100, 50_000]
)  # whole ones, and where the last one asks for more than there is
def test_flac_with_more_behind_it_is_not_verified(
    tmp_path: Path, behind: bytes, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allin1_core.audio.libsndfile._READ_VALUES", block)
    assert is_verified(tmp_path, FLAC)
    assert not is_verified(tmp_path, FLAC + behind)


def test_flac_that_was_joined_without_decoding_is_refused(tmp_path: Path) -> None:
    """FFmpeg gives the last frame of the first part twice."""
    with pytest.raises(AudioError, match=r"damaged after sample \d+, where frames are not numbered on"):
        read(tmp_path, FLAC + FLAC)


def crc16(content: bytes) -> int:
    """Bit by bit, as its definition says."""
    remainder = 0
    for byte in content:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ 0xA001 * (remainder & 1)
    return remainder


@pytest.mark.parametrize("num_bytes", [0, 1, 2, 3, 9, 1000, 1001, 70_000])
def test_crc16(tmp_path: Path, num_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert crc16(b"123456789") == 0xBB3D  # CRC-16/ARC
    content = np.random.default_rng(num_bytes).bytes(num_bytes + 5)
    (tmp_path / "a").write_bytes(content)
    expected = crc16(content[3 : 3 + num_bytes])
    with (tmp_path / "a").open("rb") as file:
        assert _crc16(file, 3, num_bytes) == expected
        monkeypatch.setattr("allin1_core.audio.verified._CRC_BLOCK_BYTES", 32)
        assert _crc16(file, 3, num_bytes) == expected


MP3 = written("MP3", "MPEG_LAYER_III")
PLACE = 21  # of the Info header, in a frame of one channel
MP3_FRAMES = packets(MP3)


def as_lame(frames: bytes, num_frames: int, method: int = MP3[PLACE + 129]) -> bytes:
    """Frames behind LAME's header, which states their number, size and checksum."""
    head = bytearray(MP3[: MP3_FRAMES[0][0]])
    head[PLACE + 129] = method
    size = len(head) + len(frames)
    struct.pack_into(">2I", head, PLACE + 8, num_frames, size)
    struct.pack_into(">IH", head, PLACE + 148, size, crc16(frames))
    struct.pack_into(">H", head, PLACE + 154, crc16(head[: PLACE + 154]))
    return bytes(head) + frames


def test_the_header_that_the_tests_write_is_lames() -> None:
    assert as_lame(MP3[MP3_FRAMES[0][0] :], len(MP3_FRAMES)) == MP3


def changed(position: int, value: int) -> bytes:
    return MP3[:position] + bytes([MP3[position] ^ value]) + MP3[position + 1 :]


MIDDLE = MP3_FRAMES[len(MP3_FRAMES) // 2][0]
NOISE = np.random.default_rng(5).bytes(3000)
OTHER = written("MP3", "MPEG_LAYER_III", channels=2)


@pytest.mark.parametrize(
    "content",
    [
        MP3 + MP3,
        MP3 + b"TAG" + bytes(125) + MP3,
        MP3 + b"APETAGEX" + bytes(120),
        changed(PLACE + 141, 0x10),
        changed(MIDDLE + 100, 0x01),
        encoded(music(SECONDS, 1, 44100), "libmp3lame", "mp3", sample_rate=44100),
        cut_without_decoding(MP3, 0, "mp3")[0],
        as_lame(MP3[MP3_FRAMES[0][0] :], len(MP3_FRAMES), method=0),
        as_lame(MP3[MIDDLE:], len(MP3_FRAMES) - len(MP3_FRAMES) // 2),
    ],
    ids=["two", "tag between", "APE", "delay", "bit", "Lavc", "copied", "as copied with the name", "cut"],
)
def test_mp3_without_proof_has_the_samples_of_ffmpeg(tmp_path: Path, content: bytes) -> None:
    assert not is_verified(tmp_path, content)
    np.testing.assert_array_equal(read(tmp_path, content), as_ffmpeg(content))


@pytest.mark.parametrize(("byte", "verified"), [(4, False), (5, False), (6, True), (7, True)])
def test_the_first_frame_of_mp3_needs_none_before_it(tmp_path: Path, byte: int, verified: bool) -> None:
    """Behind its header of 4 bytes, 9 bits say where its data begins."""
    frames = bytearray(MP3[MP3_FRAMES[0][0] :])
    frames[byte] ^= 0x80
    assert is_verified(tmp_path, as_lame(bytes(frames), len(MP3_FRAMES))) is verified


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (MP3[:-1], "truncated"),
        (MP3[:MIDDLE] + MP3[MIDDLE + MP3_FRAMES[0][1] :], "truncated"),
        (MP3[:MIDDLE] + NOISE + MP3[MIDDLE + len(NOISE) :], "damaged after sample"),
        (as_lame(MP3[MP3_FRAMES[0][0] :] + OTHER, 2 * len(MP3_FRAMES)), "changes after sample .* 2 channels"),
    ],
    ids=["cut off", "a frame is missing", "damaged", "other channels"],
)
def test_mp3_with_missing_or_damaged_frames_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert not is_verified(tmp_path, content)
    with pytest.raises(AudioError, match=rf"song\.audio: .*{message}"):
        read(tmp_path, content)
