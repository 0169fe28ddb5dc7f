"""Files that were cut off: refused in every format that tells its length, read where they are whole."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from allin1_core import ogg
from allin1_core.audio import read_audio
from allin1_core.errors import AudioError

SAMPLES = np.random.default_rng(0).integers(-20000, 20000, (88200, 1), dtype=np.int16)
# libsndfile does not know these again, or cannot read what it wrote.
NOT_READ = {("AIFF", "DWVW_12"), ("AIFF", "DWVW_16"), ("AIFF", "DWVW_24"), ("WAV", "MPEG_LAYER_III")}
NOT_READ |= {("MP3", "MPEG_LAYER_I"), ("MP3", "MPEG_LAYER_II")}
# Headers without a length: `read_audio` says so.
NO_LENGTH = ("IRCAM", "PAF", "PVF", "XI")
KINDS = [
    (container, subtype)
    for container in soundfile.available_formats()
    for subtype in soundfile.available_subtypes(container)
    if container not in ("RAW", "SD2") and (container, subtype) not in NOT_READ
]


def encode(container: str, subtype: str, samples: np.ndarray = SAMPLES) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 48000 if subtype == "OPUS" else 44100, format=container, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(("container", "subtype"), KINDS)
def test_a_whole_file_is_read_and_one_that_was_cut_off_is_not(
    tmp_path: Path, container: str, subtype: str
) -> None:
    path, content = tmp_path / "song.audio", encode(container, subtype)
    path.write_bytes(content)
    # Some codecs fill their last block.
    assert 0 <= len(read_audio(path).samples) - len(SAMPLES) < 2048
    for part in (0.3, 0.9, 0.99):
        path.write_bytes(content[: int(part * len(content))])
        if container in NO_LENGTH:
            assert len(read_audio(path).samples) < len(SAMPLES)
            continue
        reason = "truncated|not audio" if container in ("CAF", "HTK", "VOC") else "truncated"
        with pytest.raises(AudioError, match=rf"song\.audio: ({reason})"):
            read_audio(path)


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
    # The capture pattern across the border of two blocks.
    for length in range(1 << 16, (1 << 16) + 10):
        with (tmp_path / "b").open("w+b") as file:
            file.write(content[: pages(content)[1]] + bytes(length) + content[pages(content)[1] :])
            file.flush()
            assert ogg.what_is_missing(file) == ""


def test_a_second_link_of_a_chain_that_was_cut_off(tmp_path: Path) -> None:
    first, second = encode("OGG", "VORBIS", SAMPLES[:30_000]), encode("OGG", "VORBIS", SAMPLES[30_000:])
    for content, missing in (
        (first + second, False),
        (first + second[:-1], True),
        (first + second[: pages(second)[-1]], True),
        (first + second[:20], True),
    ):
        with (tmp_path / "chain.ogg").open("w+b") as file:
            file.write(content)
            file.flush()
            assert bool(ogg.what_is_missing(file)) == missing
