"""Files that were cut off: refused in every format that tells its length, read where they are whole."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import encoded, written

from allin1_core.audio.containers import find_xing
from allin1_core.audio.reading import read_audio
from allin1_core.errors import AudioError

SAMPLES = np.random.default_rng(0).integers(-20000, 20000, (88200, 1), dtype=np.int16)
# FFmpeg does not know these, or libsndfile cannot write them.
NOT_READ = {("AIFF", "DWVW_12"), ("AIFF", "DWVW_16"), ("AIFF", "DWVW_24"), ("WAV", "MPEG_LAYER_III")}
NOT_READ |= {("MP3", "MPEG_LAYER_I"), ("MP3", "MPEG_LAYER_II")}
NOT_READ |= {("WAV", f"NMS_ADPCM_{bits}") for bits in (16, 24, 32)}
KINDS = [
    (container, subtype)
    for container in ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "SVX", "NIST", "FLAC", "OGG", "MP3")
    for subtype in soundfile.available_subtypes(container)
    if (container, subtype) not in NOT_READ
]


def encode(container: str, subtype: str, samples: np.ndarray = SAMPLES) -> bytes:
    return written(container, subtype, samples, 48000 if subtype == "OPUS" else 44100)


@pytest.mark.parametrize(("container", "subtype"), KINDS)
def test_a_whole_file_is_read_and_one_that_was_cut_off_is_not(
    tmp_path: Path, container: str, subtype: str
) -> None:
    path, content = tmp_path / "song.audio", encode(container, subtype)
    path.write_bytes(content)
    # Some codecs fill their last block.
    assert 0 <= len(read_audio(path).samples) - len(SAMPLES) < 2048
    assert_cuts_are_refused(path, content)


def assert_cuts_are_refused(path: Path, content: bytes) -> None:
    for part in (0.3, 0.9, 0.99):
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(AudioError, match=r"song\.audio: truncated"):
            read_audio(path)


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("aac", "mp4", {}),
        ("aac", "mov", {}),
        ("aac", "mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("alac", "ipod", {}),
        ("flac", "matroska", {}),
        ("libopus", "webm", {}),
        ("flac", "ogg", {}),
        ("aac", "flv", {}),
        ("libmp3lame", "avi", {}),
        ("libmp3lame", "wav", {}),
        ("libmp3lame", "mp3", {}),
        ("wmav2", "asf", {}),
        ("wavpack", "wv", {}),
        ("tta", "tta", {}),
    ],
)
def test_cuts_are_seen_in_what_ffmpeg_reads(
    tmp_path: Path, codec: str, container: str, options: dict[str, str]
) -> None:
    sample_format = {"flac": "s16", "alac": "s16p", "wavpack": "s16p", "tta": "s16"}.get(codec, "")
    stereo = np.repeat(SAMPLES, 2, axis=1)
    path = tmp_path / "song.audio"
    content = encoded(
        stereo, codec, container, options=options, sample_format=sample_format, bit_rate=128_000
    )
    path.write_bytes(content)
    assert abs(len(read_audio(path).samples) - len(SAMPLES)) < 5000
    assert_cuts_are_refused(path, content)


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("libmp3lame", "mp3", {"write_xing": "0"}),
        ("mp2", "mp2", {}),
        ("aac", "adts", {}),
        ("ac3", "ac3", {}),
        ("aac", "mpegts", {}),
    ],
)
def test_what_states_no_length_is_read_as_far_as_it_goes(
    tmp_path: Path, codec: str, container: str, options: dict[str, str]
) -> None:
    content = encoded(SAMPLES, codec, container, options=options, bit_rate=128_000)
    path = tmp_path / "song.audio"
    for part in (0.3, 0.9, 0.99):
        path.write_bytes(content[: int(part * len(content))])
        assert len(read_audio(path).samples) == pytest.approx(part * len(SAMPLES), rel=0.1)


def chunk(name: bytes, content: bytes, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(content)) + content + bytes(len(content) % 2)


def wav(*before: bytes) -> bytes:
    form = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 44100, 88200, 2, 16))
    return chunk(b"RIFF", b"WAVE" + form + b"".join(before) + chunk(b"data", SAMPLES.tobytes()))


TAGS = chunk(b"LIST", b"INFO" + b"".join(chunk(b"ICMT", b"x" * 199 + b"\0") for _ in range(32)))


@pytest.mark.parametrize("before", [TAGS, chunk(b"junk", b"abc") * 300], ids=["tags", "chunks"])
def test_a_cut_is_seen_behind_more_tags_than_libsndfile_logs(tmp_path: Path, before: bytes) -> None:
    path, content = tmp_path / "a.wav", wav(before)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_audio(path).samples, SAMPLES)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"a\.wav: truncated; the header promises 176400 bytes of audio"):
        read_audio(path)


def test_tags_that_are_cut_off_after_the_sound(tmp_path: Path) -> None:
    path, content = tmp_path / "a.wav", wav()
    whole = struct.pack("<I", len(content) - 8 + len(TAGS))
    path.write_bytes(content[:4] + whole + content[8:] + TAGS)
    np.testing.assert_array_equal(read_audio(path).samples, SAMPLES)
    path.write_bytes(content[:4] + whole + content[8:] + TAGS[:1000])
    with pytest.raises(AudioError, match=r"a\.wav: truncated"):
        read_audio(path)


@pytest.mark.parametrize("promised", [0x80000100, 0x90000000, 0xFFFFEFFF])
def test_a_wav_file_of_which_gigabytes_are_missing(tmp_path: Path, promised: int) -> None:
    """Half of the sizes that 32 bits hold are no sign of a pipe."""
    path, content = tmp_path / "a.wav", bytearray(wav())
    struct.pack_into("<I", content, content.index(b"data") + 4, promised)
    path.write_bytes(content)
    with pytest.raises(AudioError, match=rf"a\.wav: truncated; the header promises {promised} bytes"):
        read_audio(path)


def test_a_wave64_file_of_which_gigabytes_are_missing(tmp_path: Path) -> None:
    path, content = tmp_path / "a.w64", bytearray(encode("W64", "PCM_16"))
    struct.pack_into("<Q", content, 16, 5 << 30)
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"a\.w64: truncated; the header promises 5368709120 bytes"):
        read_audio(path)


def test_an_endless_row_of_chunks_is_not_walked(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(chunk(b"junk", b"") * 20_000))
    with pytest.raises(AudioError, match=r"a\.wav: more than 10000 chunks"):
        read_audio(path)


def pages(content: bytes) -> list[int]:
    """Where each page of an Ogg file begins."""
    starts, position = [], 0
    while position < len(content):
        starts.append(position)
        count = content[position + 26]
        position += 27 + count + sum(content[position + 27 : position + 27 + count])
    assert position == len(content)
    return starts


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_file_cut_between_or_within_pages(tmp_path: Path, subtype: str) -> None:
    path, content = tmp_path / "a.ogg", encode("OGG", subtype)
    starts = pages(content)
    assert len(starts) > 3
    for start in starts[1:]:
        for cut, message in (
            (start, "its last page lacks the end-of-stream flag"),
            (start + 3, "its last page lacks the end-of-stream flag"),
            (start + 20, "the header of its last page is cut off"),
            (start + 27, "the header of its last page is cut off"),
            (start + 100, "its last page ends [0-9]+ bytes after the file"),
        ):
            path.write_bytes(content[:cut])
            with pytest.raises(AudioError, match=rf"a\.ogg: truncated; {message}"):
                read_audio(path)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_whole_ogg_files_with_something_beside_their_pages(tmp_path: Path, subtype: str) -> None:
    path, content = tmp_path / "a.ogg", encode("OGG", subtype)
    expected_length = len(SAMPLES)
    for extra in (b"TAG" + bytes(125), b"O", b"Ogg", bytes(100_000)):
        path.write_bytes(content + extra)
        assert len(read_audio(path).samples) == expected_length


def test_a_second_link_of_a_chain_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "chain.ogg"
    first, second = encode("OGG", "VORBIS", SAMPLES[:30_000]), encode("OGG", "VORBIS", SAMPLES[30_000:])
    path.write_bytes(first + second)
    assert len(SAMPLES) <= len(read_audio(path).samples) <= len(SAMPLES) + 128
    for cut in (second[:-1], second[: pages(second)[-1]], second[:20]):
        path.write_bytes(first + cut)
        with pytest.raises(AudioError, match=r"chain\.ogg: truncated; "):
            read_audio(path)


def test_tags_behind_a_whole_mp3_file_or_before_it_do_not_count(tmp_path: Path) -> None:
    """The Xing header states the bytes of the frames."""
    path, content = tmp_path / "song.audio", encode("MP3", "MPEG_LAYER_III")
    id3 = b"ID3\4\0\0\0\0\2\0" + bytes(256)
    for whole in (id3 + content, id3 + id3 + content, content + b"TAG" + bytes(125)):
        path.write_bytes(whole)
        assert len(read_audio(path).samples) == len(SAMPLES)
    path.write_bytes(id3 + content[:-1])
    with pytest.raises(
        AudioError, match=rf"song\.audio: truncated; the header promises {len(content)} bytes"
    ):
        read_audio(path)
    # Tag behind tag without end is looked through up to a bound.
    path.write_bytes(b"ID3\4\0\0\0\0\0\0" * 20_000)
    with path.open("rb") as file:
        assert find_xing(file)[0] == 100_000
