"""FLAC and MP3 files verified by the checksums that their encoder wrote: MD5 of the samples, CRC-16 of the frames.

Of these libsndfile gives FFmpeg's samples, many frames in one call. PyAV takes the interpreter's lock several times a
frame, for which threads that read at the same time wait: four stems took 1.9 times as long. But libsndfile does not
tell what is missing or damaged, so whatever no checksum proves whole is left to FFmpeg.

A long FLAC file is decoded by several cores, block by block. That the blocks are the right ones, their MD5 says too.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from allin1_core.audio.containers import find_xing, read_at
from allin1_core.audio.decoding import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Source
from allin1_core.audio.libsndfile import blocks_of_handles, libsndfile_blocks, open_soundfile
from allin1_core.errors import AudioError
from allin1_core.files.reading import open_regular
from allin1_core.threads import ThreadPool, cores_of_a_reader

_FLAC = b"fLaC"
_STREAMINFO = b"\0\0\0\x22"  # not the last block of metadata, or with the highest bit the last one
_MOST_METADATA_BLOCKS = 1000
# By the code in a frame's header; other codes are for rates that are written out there.
_FLAC_RATES = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
_FLAC_DTYPES = {16: "int16", 24: "int32"}
# More than libFLAC reads ahead.
_FLAC_TAIL_BYTES = 1 << 16
# A file of less than two such parts is decoded in order: threads and seeks would cost more than they save.
_SECONDS_OF_A_HANDLE = 20
# The MD5 goes through all blocks in one thread, in a quarter of the time that decoding them takes.
_MOST_HANDLES = 6

# By the code in a frame's header: kbit/s of MPEG-1 and of MPEG-2 and 2.5, and samples per second of MPEG-1.
_MP3_BIT_RATES = (
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_MP3_RATES = (44100, 48000, 32000)
_ID3V1 = b"TAG"
_CRC_BLOCK_BYTES = 1 << 20


class UnverifiedError(Exception):
    """A file without a checksum, or with another one than its content has: FFmpeg reads it, or refuses it."""


@contextlib.contextmanager
def open_verified(file: BinaryIO, path: Path | None = None) -> Iterator[Source]:
    """Open a FLAC or MP3 file whose checksum proves that libsndfile reads all of it.

    Parameters
    ----------
    file : binary file
    path : Path, optional
        Where it is, if it may be opened again to decode FLAC by several threads.

    Raises
    ------
    UnverifiedError
        Here, or while blocks are taken inside the ``with`` block, at last behind the last one: any other file.
    """
    if read_at(file, 0, 4) == _FLAC:
        num_samples, dtype, digest = _read_streaminfo(file)
    else:
        num_samples, dtype, digest = _check_lame(file), "float32", b""
    import soundfile

    try:
        with open_soundfile(file) as sound, contextlib.ExitStack() as held:
            if sound.frames != num_samples or not MIN_SAMPLE_RATE <= sound.samplerate <= MAX_SAMPLE_RATE:
                raise UnverifiedError
            seconds = num_samples / sound.samplerate
            number = min(cores_of_a_reader(), int(seconds / _SECONDS_OF_A_HANDLE), _MOST_HANDLES)
            sounds = [sound]
            if digest and path is not None and number > 1:
                sounds += _opened_again(file, path, number - 1, held)
            pool = held.enter_context(ThreadPool(len(sounds), "flac"))
            blocks = _verified_blocks(file, sounds, pool, dtype, digest)
            of_samples = "int16" if dtype == "int16" else "float32"
            yield Source(sound.samplerate, sound.channels, of_samples, num_samples, blocks)
    except soundfile.LibsndfileError as error:
        raise UnverifiedError from error


def _opened_again(file: BinaryIO, path: Path, number: int, held: contextlib.ExitStack) -> list[Any]:
    """Further handles of an open file, each at a position of its own; fewer if at its path there is another by now."""
    sounds: list[Any] = []
    with contextlib.suppress(AudioError):
        while len(sounds) < number:
            again = held.enter_context(open_regular(path, AudioError))
            if not os.path.sameopenfile(again.fileno(), file.fileno()):
                break
            sounds.append(held.enter_context(open_soundfile(again)))
    return sounds


def _verified_blocks(
    file: BinaryIO, sounds: Sequence[Any], pool: ThreadPool, dtype: str, digest: bytes
) -> Iterator[np.ndarray]:
    found, md5 = 0, hashlib.md5(usedforsecurity=False)
    if len(sounds) > 1:
        pairs = blocks_of_handles(pool, sounds, dtype, _stored_and_scaled)
    else:
        pairs = map(_stored_and_scaled, libsndfile_blocks(sounds[0], dtype))
    for stored, block in pairs:
        found += len(block)
        if digest:
            md5.update(stored)
        yield block
    if found != sounds[0].frames or (digest and (md5.digest() != digest or _goes_on(file, sounds))):
        raise UnverifiedError


def _stored_and_scaled(block: np.ndarray) -> tuple[memoryview | bytes, np.ndarray]:
    """A block's samples as the MD5 of a FLAC file takes them, and as `Source` gives them."""
    if block.dtype != np.int32:
        return block.data, block
    # The 24 bits that the file has are the upper ones.
    stored = block.view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    return stored, block.astype(np.float32) / np.float32(2**31)


def _read_streaminfo(file: BinaryIO) -> tuple[int, str, bytes]:
    """Number of samples of a FLAC file, dtype to read them in, and their MD5 (RFC 9639, 8.2)."""
    head = read_at(file, 4, 38)
    if len(head) < 38 or bytes((head[0] & 0x7F,)) + head[1:4] != _STREAMINFO:
        raise UnverifiedError
    packed, digest = int.from_bytes(head[14:22], "big"), head[22:]
    sample_rate, bits, num_samples = packed >> 44, (packed >> 36 & 0x1F) + 1, packed & (1 << 36) - 1
    if bits not in _FLAC_DTYPES or not num_samples or not any(digest):
        raise UnverifiedError
    # Alone the rate is not proven by samples; each frame states it as well.
    position, is_last = 4, False
    for _ in range(_MOST_METADATA_BLOCKS):
        header = read_at(file, position, 4)
        if is_last or len(header) < 4:
            break
        position, is_last = position + 4 + int.from_bytes(header[1:], "big"), bool(header[0] & 0x80)
    code = header[2] & 0xF if len(header) == 4 and header[0] == 0xFF else 0xF
    if code >= len(_FLAC_RATES) or (code and _FLAC_RATES[code] != sample_rate):
        raise UnverifiedError
    return num_samples, _FLAC_DTYPES[bits], digest


def _goes_on(file: BinaryIO, sounds: Sequence[Any]) -> bool:
    """Whether a FLAC file has more than the samples that were read, such as another FLAC file behind the first."""
    position = max(os.lseek(sound.name, 0, os.SEEK_CUR) for sound in sounds)
    size = os.fstat(file.fileno()).st_size
    return position < size or _FLAC in read_at(file, max(4, size - _FLAC_TAIL_BYTES), _FLAC_TAIL_BYTES)


def _check_lame(file: BinaryIO) -> int:
    """Number of samples of an MP3 file that LAME wrote, whole and unchanged.

    LAME's tag stands in the first frame behind the Xing or Info header, and ends with the CRC-16 of all frames behind,
    and of its own frame up to there (``VbrTag.c``). FFmpeg writes one for what it copies, cuts out and joins too, with
    the name of the first encoder; but there it leaves out the method by which the bit rate was chosen.
    """
    start, place, frame = find_xing(file)
    tag = frame[place : place + 156]
    if not place or len(tag) < 156 or tag[120:124] != b"LAME" or not tag[129] & 0xF:
        raise UnverifiedError
    flags, num_frames, num_bytes = struct.unpack_from(">3I", tag, 4)
    end = start + num_bytes
    behind = os.fstat(file.fileno()).st_size - end
    if flags & 3 != 3 or (behind and (behind != 128 or read_at(file, end, 3) != _ID3V1)):
        raise UnverifiedError
    length, samples_per_frame = _mp3_frame(frame)
    sound = frame[length : length + 8]
    _mp3_frame(sound)
    # Behind the header, and a checksum if its 16th bit is 0, 9 or 8 bits tell how many bytes before the frame its data
    # begin. Before the first one nothing is, but where a file was cut.
    begin = 4 if sound[1] & 1 else 6
    if int.from_bytes(sound[begin : begin + 2], "big") >> (7 if samples_per_frame == 1152 else 8):
        raise UnverifiedError
    of_sound, of_tag = struct.unpack_from(">2H", tag, 152)
    if (
        _crc16(file, start, place + 154) != of_tag
        or _crc16(file, start + length, num_bytes - length) != of_sound
    ):
        raise UnverifiedError
    delay_and_padding = int.from_bytes(tag[141:144], "big")
    return num_frames * samples_per_frame - (delay_and_padding >> 12) - (delay_and_padding & 0xFFF)


def _mp3_frame(header: bytes) -> tuple[int, int]:
    """Bytes and samples of an MPEG audio frame of layer III."""
    if len(header) < 8 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        raise UnverifiedError
    halvings = {3: 0, 2: 1, 0: 2}.get(header[1] >> 3 & 3)
    bit_rate, rate = header[2] >> 4, header[2] >> 2 & 3
    if halvings is None or not 1 <= bit_rate <= 14 or rate == 3:
        raise UnverifiedError
    samples = 576 if halvings else 1152
    bits = 1000 * _MP3_BIT_RATES[bool(halvings)][bit_rate - 1] * samples
    return bits // 8 // (_MP3_RATES[rate] >> halvings) + (header[2] >> 1 & 1), samples


def _crc16(file: BinaryIO, start: int, num_bytes: int) -> int:
    """CRC-16/ARC: the remainder of x^16 times a polynomial over GF(2) by x^16 + x^15 + x^2 + 1, lowest bits first.

    Words of 16 bits are folded in pairs: of neighbours that stand for 2^k words each, x^(16 * 2^k) times the first is
    added to the second, by a table.
    """
    remainder = np.zeros(1, "<u2")
    position, end = start, start + num_bytes
    while position < end:
        # An odd byte comes first, since zeros before it change nothing.
        step = (end - position) % _CRC_BLOCK_BYTES or _CRC_BLOCK_BYTES
        block = read_at(file, position, step)
        words = np.concatenate([remainder, np.frombuffer(bytes(step % 2) + block, "<u2")])
        position, level = position + step, 0
        while len(words) > 1:
            odd = len(words) % 2
            folded = _shifted(level)[words[odd::2]] ^ words[odd + 1 :: 2]
            words, level = np.concatenate([words[:odd], folded]), level + 1
        remainder = words
    return int(_shifted(0)[remainder[0]])


@functools.cache
def _shifted(level: int) -> np.ndarray:
    """Each polynomial of 16 bits times x^(16 * 2^level), ``uint16 (65536,)``."""
    images: np.ndarray = np.array([1 << bit for bit in range(16)], np.uint16)
    if level:
        images = _shifted(level - 1)[_shifted(level - 1)[images]]
    else:
        for _ in range(16):
            images = images >> 1 ^ (images & 1) * np.uint16(0xA001)
    table = np.zeros(1 << 16, np.uint16)
    for bit, image in enumerate(images):
        table[1 << bit : 2 << bit] = table[: 1 << bit] ^ image
    return table
