"""Long FLAC files decoded by several handles: the samples of one, or FFmpeg's where anything is wrong."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import pytest
import soundfile
from audio_files import decoded, encoded, music, written

from allin1_core.audio import verified
from allin1_core.audio.libsndfile import libsndfile_blocks
from allin1_core.audio.reading import read_audio, read_mono
from allin1_core.audio.types import STEM_NAMES
from allin1_core.audio.verified import UnverifiedError, open_verified
from allin1_core.errors import AudioError
from allin1_core.files.reading import FileContent
from allin1_core.separation import read_stems_folder
from allin1_core.threads import limited_cores, readers

SECONDS = 8.0
HANDLES = 4


@pytest.fixture
def handles(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many handles each file was decoded by, of four cores that may be used; a second is long here."""
    numbers: list[int] = []
    blocks = verified._verified_blocks

    def seen(file: BinaryIO, sounds: Sequence[Any], *arguments: Any) -> Iterator[np.ndarray]:
        numbers.append(len(sounds))
        return blocks(file, sounds, *arguments)

    monkeypatch.setattr(verified, "_verified_blocks", seen)
    monkeypatch.setattr(verified, "_SECONDS_OF_A_HANDLE", 1)
    monkeypatch.setattr("allin1_core.audio.libsndfile._READ_VALUES", 20_000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(HANDLES)))
    return numbers


def with_seek_table(flac: bytes, offset: int) -> bytes:
    """With a seek point every tenth frame, each so many bytes behind its frame."""
    points, sample = b"", 0
    with av.open(io.BytesIO(flac)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    for index, packet in enumerate(packets):
        if index % 10 == 0:
            points += struct.pack(">QQH", sample, packet.pos - packets[0].pos + offset, packet.duration)
        sample += packet.duration
    table = b"\x03" + len(points).to_bytes(3, "big") + points
    return flac[:4] + bytes([flac[4] & 0x7F]) + flac[5:42] + table + flac[42:]


def crc(content: bytes, width: int, polynomial: int) -> bytes:
    """Of FLAC: highest bit first, from 0."""
    remainder, top = 0, 1 << width - 1
    for byte in content:
        remainder ^= byte << width - 8
        for _ in range(8):
            remainder = (remainder << 1 ^ polynomial * bool(remainder & top)) & (2 * top - 1)
    return remainder.to_bytes(width // 8, "big")


def with_variable_blocks(samples: np.ndarray) -> bytes:
    """Frames of FFmpeg of four sizes, renumbered by samples, as RFC 9639 has it for blocks of variable size."""
    frames, position = b"", 0
    for number, start in enumerate(range(0, len(samples), 44_100)):
        part = samples[start : start + 44_100]
        size = (4096, 1152, 16_384, 576)[number % 4]
        flac = encoded(part, "flac", "flac", sample_rate=44100, frame_size=size)
        with av.open(io.BytesIO(flac)) as container:
            for packet in container.demux(audio=0):
                if not packet.size:
                    continue
                frame = bytes(packet)
                assert frame[4] < 0x80, "the number of the frame has more than a byte"
                behind = 5 + {6: 1, 7: 2}.get(frame[2] >> 4, 0)  # the size of the block, if no code says it
                number_of_sample = chr(position).encode("utf-8", "surrogatepass")
                head = frame[:1] + bytes([frame[1] | 1]) + frame[2:4] + number_of_sample + frame[5:behind]
                whole = head + crc(head, 8, 0x07) + frame[behind + 1 : -2]
                frames += whole + crc(whole, 16, 0x8005)
                position += packet.duration
    packed = 44100 << 44 | (samples.shape[1] - 1) << 41 | 15 << 36 | len(samples)
    info = struct.pack(">HH6xQ", 576, 16_384, packed) + hashlib.md5(samples.tobytes()).digest()
    return b"fLaC\x80\0\0\x22" + info + frames


MUSIC = music(SECONDS, 2, 44100)
FLAC = written("FLAC", "PCM_16", MUSIC)
of_ffmpeg = functools.partial(encoded, codec="flac", container="flac", sample_rate=44100)
KINDS = {
    "mono": lambda: written("FLAC", "PCM_16", MUSIC[:, :1]),
    "stereo": lambda: FLAC,
    "six channels": lambda: written("FLAC", "PCM_16", music(SECONDS, 6, 44100)),
    "24 bits": lambda: written("FLAC", "PCM_24", MUSIC),
    "24 bits, mono": lambda: written("FLAC", "PCM_24", MUSIC[:, :1]),
    "FFmpeg": lambda: of_ffmpeg(MUSIC),
    "blocks of 256": lambda: of_ffmpeg(MUSIC, frame_size=256),
    "blocks of 40000": lambda: of_ffmpeg(MUSIC, frame_size=40_000),
    "variable blocks": lambda: with_variable_blocks(MUSIC),
    "seek table": lambda: with_seek_table(FLAC, 0),
    "silence": lambda: written("FLAC", "PCM_16", np.zeros_like(MUSIC)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_samples_are_those_of_one_handle(tmp_path: Path, kind: str, handles: list[int]) -> None:
    path = tmp_path / "song.flac"
    path.write_bytes(KINDS[kind]())
    found = read_audio(path)
    with limited_cores(1):
        one = read_audio(path)
    assert handles == [HANDLES, 1]
    assert found.sample_rate == one.sample_rate == 44100
    assert found.samples.dtype == one.samples.dtype == ("float32" if "24" in kind else "int16")
    np.testing.assert_array_equal(found.samples, one.samples)
    expected = decoded(path.read_bytes())
    np.testing.assert_array_equal(one.samples, expected / 2.0**31 if "24" in kind else expected)


def test_a_file_has_a_handle_for_each_core_and_20_seconds(tmp_path: Path, handles: list[int]) -> None:
    path = tmp_path / "song.flac"
    for seconds in (1.9, 2.1, 4.1):
        path.write_bytes(written("FLAC", "PCM_16", MUSIC[: int(seconds * 44100)]))
        read_audio(path)
    assert handles == [1, 2, 4]


def test_files_that_are_read_at_a_time_share_the_cores(
    tmp_path: Path, handles: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for stem in STEM_NAMES:
        (tmp_path / f"{stem}.flac").write_bytes(FLAC)
    one_by_one = read_stems_folder(tmp_path).samples
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    by_two = read_stems_folder(tmp_path).samples
    with readers(2):
        read_audio(tmp_path / "bass.flac")
        read_stems_folder(tmp_path)
    assert handles == 4 * [1] + 4 * [2] + [4] + 4 * [1]
    np.testing.assert_array_equal(by_two, one_by_one)
    np.testing.assert_array_equal(by_two[0], read_mono(tmp_path / "bass.flac", 1 << 30).samples[:, 0])


def test_content_without_a_path_has_one_handle(handles: list[int]) -> None:
    np.testing.assert_array_equal(read_audio(FileContent("song", FLAC)).samples, MUSIC)
    assert handles == [1]


def test_a_file_that_was_replaced_since_it_was_opened_has_one_handle(
    tmp_path: Path, handles: list[int]
) -> None:
    path, other = tmp_path / "song.flac", tmp_path / "other.flac"
    for replaced in (True, False):
        path.write_bytes(FLAC)
        with path.open("rb") as file:
            path.unlink()
            if replaced:
                other.write_bytes(written("FLAC", "PCM_16", MUSIC[::-1]))
                other.rename(path)
            with open_verified(file, path) as source:
                samples = np.concatenate([block.copy() for block in source.blocks])
        np.testing.assert_array_equal(samples, MUSIC)
    assert handles == [1, 1]


def test_a_file_that_changes_while_it_is_read_is_not_verified(tmp_path: Path, handles: list[int]) -> None:
    path = tmp_path / "song.flac"
    path.write_bytes(FLAC)
    with path.open("rb") as file, contextlib.ExitStack() as held:
        source = held.enter_context(open_verified(file, path))
        next(source.blocks)
        path.write_bytes(written("FLAC", "PCM_16", MUSIC[::-1]))
        with pytest.raises(UnverifiedError):
            list(source.blocks)
    assert handles == [HANDLES]


def changed(position: int, *values: int) -> bytes:
    return FLAC[:position] + bytes(values) + FLAC[position + len(values) :]


def with_length(num_samples: int) -> bytes:
    (packed,) = struct.unpack_from(">Q", FLAC, 18)
    return changed(18, *struct.pack(">Q", packed >> 36 << 36 | num_samples))


DAMAGED = {
    **{f"frame at {part} of 8": changed(len(FLAC) * part // 8, *range(50)) for part in range(1, 8)},
    "first frame": changed(len(FLAC) // 400, *range(50)),
    "last frame": changed(len(FLAC) - 100, *range(50)),
    "cut": FLAC[: len(FLAC) // 2],
    "cut near the end": FLAC[:-100],
    "a longer header": with_length(len(MUSIC) + 1),
    "a much longer header": with_length((1 << 36) - 1),
    "a hole": FLAC[: len(FLAC) // 2] + FLAC[len(FLAC) // 2 + 10_000 :],
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_in_any_part_is_the_error_of_one_handle(tmp_path: Path, kind: str, handles: list[int]) -> None:
    path = tmp_path / "song.flac"
    path.write_bytes(DAMAGED[kind])
    with pytest.raises(AudioError, match=r"song\.flac: .*(truncated|damaged)") as found:
        read_audio(path)
    with limited_cores(1), pytest.raises(AudioError) as one:
        read_audio(path)
    assert str(found.value) == str(one.value)
    assert handles == [HANDLES, 1]


@pytest.mark.parametrize(
    "content",
    [FLAC[:26] + bytes(15) + b"\1" + FLAC[42:], FLAC + bytes(100_000), with_seek_table(FLAC, 5000)],
    ids=["wrong MD5", "more behind", "wrong seek table"],
)
def test_what_is_not_proven_has_the_samples_of_ffmpeg(
    tmp_path: Path, content: bytes, handles: list[int]
) -> None:
    path = tmp_path / "song.flac"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_audio(path).samples, MUSIC)
    assert handles == [HANDLES]


def test_blocks_of_a_wrong_place_are_not_verified(
    tmp_path: Path, handles: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a seek that missed would give."""
    seek = soundfile.SoundFile.seek
    monkeypatch.setattr(soundfile.SoundFile, "seek", lambda sound, to: seek(sound, max(0, to - 1)))
    path = tmp_path / "song.flac"
    path.write_bytes(FLAC)
    with pytest.raises(UnverifiedError), path.open("rb") as file, open_verified(file, path) as source:
        list(source.blocks)
    np.testing.assert_array_equal(read_audio(path).samples, MUSIC)  # FFmpeg's


def test_no_thread_is_left_when_reading_ends_early(tmp_path: Path, handles: list[int]) -> None:
    path = tmp_path / "song.flac"
    path.write_bytes(FLAC)
    with path.open("rb") as file, contextlib.suppress(KeyError), open_verified(file, path) as source:
        blocks: Iterator[np.ndarray] = source.blocks
        next(blocks)
        assert [thread for thread in threading.enumerate() if thread.name.startswith("flac_")]
        raise KeyError
    assert handles == [HANDLES]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("flac_")]
    with path.open("rb") as file:  # and the descriptor is still good
        sound = verified.open_soundfile(file)
        assert sum(len(block) for block in libsndfile_blocks(sound, "int16")) == len(MUSIC)
