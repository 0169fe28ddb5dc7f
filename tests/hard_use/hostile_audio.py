"""Malformed audio files, generated from a seed."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import numpy as np
from audio_files import encoded, music, written

from hard_use import hostile_files

SEED = 7
CONTAINERS = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "caf": ("CAF", "ALAC_16"),
    "w64": ("W64", "PCM_24"),
    "au": ("AU", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "nist": ("NIST", "PCM_16"),
    "svx": ("SVX", "PCM_16"),
    "ima.wav": ("WAV", "IMA_ADPCM"),
}
# Codec and container by FFmpeg's names, and the format of the samples where it is not the codec's first.
ENCODED = {
    "m4a": ("aac", "mp4", ""),
    "mka": ("flac", "matroska", "s16"),
    "oga": ("flac", "ogg", "s16"),
    "webm": ("libopus", "webm", ""),
    "avi": ("libmp3lame", "avi", ""),
    "mov": ("alac", "mov", "s16p"),
    "wv": ("wavpack", "wv", "s16p"),
    "tta": ("tta", "tta", "s16"),
    "wma": ("wmav2", "asf", ""),
}
# These state no length.
ENDLESS = {
    "mp2": ("mp2", "mp2", ""),
    "aac": ("aac", "adts", ""),
    "ac3": ("ac3", "ac3", ""),
    "ts": ("aac", "mpegts", ""),
}


def wholesome(seconds: float = 0.25) -> dict[str, bytes]:
    """One good file of each kind, by its suffix."""
    files = {}
    for suffix, (container, subtype) in CONTAINERS.items():
        files[suffix] = written(container, subtype, music(seconds), 48000)
    for suffix, (codec, container, sample_format) in {**ENCODED, **ENDLESS}.items():
        files[suffix] = encoded(
            music(seconds), codec, container, sample_format=sample_format, bit_rate=96_000
        )
    return files


def wav(rate: int, channels: int, bits: int, claimed: int, tag: int = 1, held: int = 2000) -> bytes:
    """A WAV file whose header claims what it likes."""
    block = channels * ((bits + 7) // 8) % 65536
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * block % 2**32, block, bits)
    body = (
        b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", claimed) + bytes(held)
    )
    return b"RIFF" + struct.pack("<I", (claimed + 36) % 2**32) + body


def flac(rate: int, channels: int, bits: int, num_samples: int) -> bytes:
    """A FLAC file whose STREAMINFO claims what it likes, before real frames."""
    good = bytearray(wholesome(0.05)["flac"])
    packed = rate << 44 | (channels - 1) << 41 | (bits - 1) << 36 | num_samples
    good[18:26] = packed.to_bytes(8, "big")
    return bytes(good)


def absurd_headers() -> Iterator[tuple[str, bytes]]:
    """Files with absurd sizes, rates, channels and widths: about 200."""
    rates, channels = (0, 1, 44100, 2**31 - 1, 2**32 - 1), (0, 1, 1025, 65535)
    widths, claims = (0, 1, 16, 64, 65535), (0, 2**31 - 1, 2**32 - 1)
    for number, fields in enumerate(itertools.product(rates, channels, widths)):
        yield f"header{number}.wav", wav(*fields, claims[number % 3])
    for tag in (0, 2, 3, 6, 7, 17, 80, 85, 0x161, 0xFFFE, 0xFFFF):
        yield f"tag{tag}.wav", wav(44100, 2, 16, 2000, tag)
    for claimed in (0, 1, 1999, 2001, 2**31, 2**32 - 1):
        yield f"claims{claimed}.wav", wav(44100, 1, 16, claimed)
    for number, fields in enumerate(
        itertools.product((0, 1, 655350, 2**20 - 1), (1, 8), (4, 16, 32), (0, 1, 2**36 - 1))
    ):
        yield f"header{number}.flac", flac(*fields)


def truncated(step: int = 1024) -> Iterator[tuple[str, bytes]]:
    """Every kind of file that states its length cut off at every kilobyte, and within its first hundred bytes."""
    for suffix, content in wholesome().items():
        if suffix in ENDLESS:
            continue
        for length in sorted({*range(0, len(content), step), *range(1, 100, 9)}):
            if length < len(content):
                yield f"cut{length}.{suffix}", content[:length]


def flipped(number: int) -> Iterator[tuple[str, bytes]]:
    """Files with one to eight flipped bits, half of them in the first 256 bytes: ``number`` of each kind."""
    random = np.random.default_rng(SEED)
    for suffix, content in wholesome().items():
        for index in range(number):
            reach = min(256, len(content)) if index % 2 else len(content)
            yield f"flip{index}.{suffix}", hostile_files.flipped(content, range(reach), 8, random)
