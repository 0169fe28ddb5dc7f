"""Whether an audio file holds as much as its header says: libsndfile reads what is there, and says nothing.

It shortens the length to what the file holds, with at most a line in its log, which ends after 2 kB: enough tags
before the sound, and the line is lost. So the chunks of WAV, RF64 and AIFF, the pages of Ogg and the header of NIST
are looked at here, and the log is asked for the rest.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from allin1_core import ogg
from allin1_core.errors import AudioError

# Writers that cannot seek back (a pipe) leave such a length, or none; the file is whole.
_PLACEHOLDER_LENGTH = 0x7FFFF000
# The size of a whole file is off by a header in some writers.
_SLACK = 64
# More than any writer makes, few enough to walk in no time.
_MOST_CHUNKS = 10_000
_IN_CHUNKS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<", b"FORM": ">"}
# Sony Wave64, whose first chunk is the whole: a GUID that begins so, and its size in 64 bits.
_W64 = b"riff\x2e\x91\xcf\x11"
_SOUND = (b"data", b"SSND", b"BODY")

_NIST = b"NIST_1A"
_NIST_HEADER_BYTES = 1024
_NIST_LENGTH = re.compile(rb"^sample_count -i (\d+)\s*$", re.MULTILINE)

# "data : 176400 (should be 88178)", "Data length 88200 should be 79376", "truncated. 158753 <--> 176400".
_LOGGED = re.compile(
    r"(?:data|SSND|BODY|Data Size)\s*:\s*(?P<promised>\d+) \(should be (?P<present>\d+)\)"
    r"|Data length (?P<promised_wve>\d+) should be (?P<present_wve>\d+)"
    r"|truncated\. (?P<present_mat4>\d+) <--> (?P<promised_mat4>\d+)"
)
_LOGGED_WITHOUT_LENGTHS = "Seems to be a truncated file"
# Where libsndfile logs the length of the header, in samples or bytes, and does not look at it.
_LOGGED_SAMPLES = {
    "AVR": re.compile(r"^  Frames      : (\d+)$", re.MULTILINE),
    "MPC2K": re.compile(r"^  Length       : (\d+)$", re.MULTILINE),
}
_LOGGED_BYTES = {"MAT5": re.compile(r"^    Type : \w+ +Size : (\d+)$", re.MULTILINE)}
_SAMPLE_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}


def check_header(path: Path, file: BinaryIO) -> None:
    """Raise `AudioError` if a file is shorter than its own header, chunks or pages say; a look before it is read."""
    file.seek(0)
    head = file.read(24)
    magic = head[:4]
    if magic == ogg.MAGIC:
        missing = ogg.what_is_missing(file)
        if missing:
            raise AudioError(f"{path}: truncated; {missing}. Copy the file again")
    elif magic in _IN_CHUNKS:
        _check_chunks(path, file, _IN_CHUNKS[magic])
    elif head.startswith(_W64) and len(head) == 24:
        promised, present = struct.unpack("<Q", head[16:])[0], os.fstat(file.fileno()).st_size
        if present + _SLACK < promised < 1 << 62:
            _check_bytes(path, promised, present, may_be_unknown=False)


def check_decoded(path: Path, file: BinaryIO, sound: Any, found: int) -> None:
    """Raise `AudioError` if fewer samples came out of a file than its header promises.

    Parameters
    ----------
    path, file : Path, binary file
    sound : soundfile.SoundFile
        As which it was read, to the end.
    found : int
        Samples that were read, of each channel.
    """
    promised, log = sound.frames, sound.extra_info
    file.seek(0)
    header = file.read(_NIST_HEADER_BYTES)
    if header.startswith(_NIST):
        promised = max([promised, *map(int, _NIST_LENGTH.findall(header))])
    elif sound.format in _LOGGED_SAMPLES:
        promised = max([promised, *map(int, _LOGGED_SAMPLES[sound.format].findall(log))])
    if found < promised:
        raise AudioError(
            f"{path}: truncated; the header promises {promised} samples, {found} are there. Copy the file again"
        )
    if sound.format in _LOGGED_BYTES:
        present = found * sound.channels * _SAMPLE_BYTES[sound.subtype]
        for logged in _LOGGED_BYTES[sound.format].findall(log)[-1:]:
            _check_bytes(path, int(logged), present)
    for match in _LOGGED.finditer(log):
        lengths = {name.partition("_")[0]: int(text) for name, text in match.groupdict().items() if text}
        _check_bytes(path, lengths["promised"], lengths["present"])
    if _LOGGED_WITHOUT_LENGTHS in log:
        raise AudioError(f"{path}: truncated; a block is longer than the file. Copy the file again")


def _check_chunks(path: Path, file: BinaryIO, order: str) -> None:
    size = os.fstat(file.fileno()).st_size
    whole = long_size = None
    for name, promised, start in _chunks(path, file, order):
        if start == 8:
            whole = promised
        elif name == b"ds64":  # RF64: the lengths that 32 bits cannot hold
            file.seek(start)
            lengths = file.read(16)
            long_size = struct.unpack("<QQ", lengths)[1] if len(lengths) == 16 else None
        elif name in _SOUND:
            _check_bytes(
                path,
                promised if long_size is None else long_size,
                size - start,
                may_be_unknown=long_size is None,
            )
    if whole is not None and size - 8 + _SLACK < whole:
        _check_bytes(path, whole, size - 8)


def _chunks(path: Path, file: BinaryIO, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, size in bytes and place of the content of the whole, then of each chunk in it."""
    position = 0
    for number in range(_MOST_CHUNKS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return
        name, size = head[:4], struct.unpack(f"{order}I", head[4:])[0]
        yield name, size, position + 8
        # The whole begins with the name of its kind; chunks begin at even bytes.
        position += 12 if number == 0 else 8 + size + size % 2
    raise AudioError(f"{path}: more than {_MOST_CHUNKS} chunks; expected audio. The file is damaged")


def _check_bytes(path: Path, promised: int, present: int, *, may_be_unknown: bool = True) -> None:
    if present < promised and not (may_be_unknown and promised >= _PLACEHOLDER_LENGTH):
        raise AudioError(
            f"{path}: truncated; the header promises {promised} bytes of audio, {present} are there. "
            "Copy the file again"
        )
