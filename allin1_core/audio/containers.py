"""Inspection of audio containers before decoding: which decoder a file needs, and whether it was cut off.

Chunks, boxes, pages and elements state their own size: a file that ends before one of them does was cut off. Decoders
give what is there, and do not say so.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from allin1_core.errors import AudioError

# Lengths that stand for none: the writer could not seek back (a pipe), and the file is whole. In 32 bits the largest,
# signed or not, less a page.
_UNKNOWN_32 = (range(0x7FFFF000, 0x80000100), range(0xFFFFF000, 1 << 32))
_UNKNOWN_64 = (range(1 << 62, 1 << 64),)
# Some writers count a header too many in the size of the whole file.
_SLACK = 64
# More than any writer makes.
_MOST_CHUNKS = 10_000


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How a format of chunks, each an identifier and a size, is laid out.

    Attributes
    ----------
    start : int
        Where the first chunk begins.
    whole : tuple of int, or None
        Where the size of the whole file stands, and the bytes that it does not count.
    size : str
        Of a chunk, as `struct` writes it.
    id_bytes, align : int
        Length of an identifier, of which the first four bytes tell; chunks begin at multiples of `align`.
    counts_header : bool
        Whether a chunk's size includes its identifier and size.
    """

    start: int
    whole: tuple[int, int] | None
    size: str
    id_bytes: int = 4
    align: int = 2
    counts_header: bool = False

    @property
    def unknown(self) -> tuple[range, ...]:
        """Sizes that stand for an unknown one."""
        return _UNKNOWN_32 if self.size[1] == "I" else _UNKNOWN_64


_LAYOUTS = {
    b"RIFF": _Layout(12, (4, 8), "<I"),
    b"RIFX": _Layout(12, (4, 8), ">I"),
    b"RF64": _Layout(12, None, "<I"),
    b"BW64": _Layout(12, None, "<I"),
    b"FORM": _Layout(12, (4, 8), ">I"),
    b"caff": _Layout(8, None, ">q", align=1),
    b"riff": _Layout(40, (16, 0), "<Q", id_bytes=16, align=8, counts_header=True),  # Sony Wave64
    b"\x30\x26\xb2\x75": _Layout(0, None, "<Q", id_bytes=16, align=1, counts_header=True),  # ASF
}
_ASF_DATA = b"\x36\x26\xb2\x75"
_SOUND = (b"data", b"SSND", b"BODY", _ASF_DATA)

# Integers, float, A-law, mu-law.
_WAV_PCM = {1, 3, 6, 7}
_WAV_EXTENSIBLE = 0xFFFE
_AIFF_PCM = {b"NONE", b"twos", b"sowt", b"raw ", b"in24", b"in32", b"42ni", b"23ni"}
_AIFF_PCM |= {b"fl32", b"FL32", b"fl64", b"FL64", b"alaw", b"ALAW", b"ulaw", b"ULAW"}
_CAF_PCM = {b"lpcm", b"alaw", b"ulaw"}
_AU_PCM = {*range(1, 8), 27}

BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_NEEDED_BOXES = {b"moov", b"moof", b"mdat"}
EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"

_OGG = b"OggS"
# Capture pattern, version, flags, granule position, serial number, sequence number, checksum, number of segments.
_OGG_HEADER_BYTES = 27
_OGG_FLAGS, _OGG_NUM_SEGMENTS, _OGG_END_OF_STREAM = 5, 26, 0x04
_OGG_MOST_PAGE_BYTES = 27 + 255 + 255 * 255

# After the header and the side information of the first frame: MPEG-1 stereo, its mono or MPEG-2 stereo, MPEG-2 mono.
_XING_PLACES = (36, 21, 13)


def is_plain_pcm(path: Path, file: BinaryIO) -> bool:
    """Whether an audio file is plain PCM whose header states its length: WAV and its kin, AIFF, CAF or AU.

    Raises
    ------
    AudioError
        If the file ends before its last chunk, box, element, page or (MP3 with a Xing header) frame does.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(40)
    layout = _LAYOUTS.get(head[:4])
    if layout is not None:
        return _look_at_chunks(path, file, size, head, layout)
    if head[:4] in (b".snd", b"dns.") and len(head) >= 16:
        start, length, encoding = struct.unpack(">3I" if head[:4] == b".snd" else "<3I", head[4:16])
        _check_bytes(path, length, size - start, _UNKNOWN_32)
        return encoding in _AU_PCM
    if head[4:8] in BOXES:
        _check_boxes(path, file, size)
    elif head[:4] == EBML:
        _check_segment(path, file, size)
    elif head[:4] == _OGG:
        _check_last_page(path, file, size)
    else:
        _check_xing(path, file, size)
    return False


def _look_at_chunks(path: Path, file: BinaryIO, size: int, head: bytes, layout: _Layout) -> bool:
    """As `is_plain_pcm`, of a format of chunks."""
    magic, form = head[:4], head[8:12]
    is_wave = form == b"WAVE" or magic == b"riff"
    is_pcm: bool | None = None if is_wave or form == b"AIFC" or magic == b"caff" else form == b"AIFF"
    length = long_length = None
    is_empty = False
    for name, promised, start in _chunks(path, file, layout, layout.start):
        if name == b"ds64":  # RF64: the lengths that 32 bits cannot hold
            long_length = _unpack("<Q", file, start + 8)
        elif name == b"fmt " and is_wave:
            tag = _unpack(f"{layout.size[0]}H", file, start)
            if tag == _WAV_EXTENSIBLE:
                tag = _unpack(f"{layout.size[0]}H", file, start + 24)
            is_pcm = tag in _WAV_PCM
        elif name == b"COMM" and form == b"AIFC":
            is_pcm = read_at(file, start + 18, 4) in _AIFF_PCM
        elif name == b"desc" and magic == b"caff":
            is_pcm = read_at(file, start + 8, 4) in _CAF_PCM
        elif name in _SOUND:
            length = promised if long_length is None else long_length
            _check_bytes(path, length, size - start, _UNKNOWN_64 if long_length else layout.unknown)
            is_empty = length == 0 and _is_filled_with_chunks(path, file, size, start, layout)
        if length is not None and is_pcm is not None:
            break
    if layout.whole is not None and len(head) == 40:
        place, uncounted = layout.whole
        (whole,) = struct.unpack_from(layout.size, head, place)
        if size - uncounted + _SLACK < whole:
            _check_bytes(path, whole, size - uncounted, layout.unknown)
    # What a recorder that was stopped leaves: 0 in WAV, -1 in CAF.
    is_unknown = length == -1 or (length == 0 and is_wave and not is_empty)
    return bool(is_pcm) and not is_unknown and magic != b"BW64"


def _is_filled_with_chunks(path: Path, file: BinaryIO, size: int, position: int, layout: _Layout) -> bool:
    """Whether nothing but whole chunks stands from there to the end of the file."""
    for name, promised, start in itertools.islice(_chunks(path, file, layout, position), 100):
        if not name.isascii() or not name.decode("ascii").isprintable():
            return False
        position = start + promised
    return position - size in (0, 1)


def _chunks(path: Path, file: BinaryIO, layout: _Layout, position: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, size in bytes and place of the content of each chunk."""
    header_bytes = layout.id_bytes + struct.calcsize(layout.size)
    for _ in range(_MOST_CHUNKS):
        header = read_at(file, position, header_bytes)
        if len(header) < header_bytes:
            return
        (size,) = struct.unpack_from(layout.size, header, layout.id_bytes)
        size -= header_bytes if layout.counts_header else 0
        yield header[:4], size, position + header_bytes
        if size < 0:
            return
        position += header_bytes + size
        position += -position % layout.align
    raise AudioError(f"{path}: more than {_MOST_CHUNKS} chunks; expected audio. The file is damaged")


def _check_boxes(path: Path, file: BinaryIO, size: int) -> None:
    """MPEG-4 and QuickTime: boxes of a size, which counts them whole, and a name."""
    position = 0
    for _ in range(_MOST_CHUNKS):
        header = read_at(file, position, 16)
        if len(header) < 8:
            return
        length, name = struct.unpack(">I4s", header[:8])
        if length == 1 and len(header) == 16:
            (length,) = struct.unpack(">Q", header[8:])
        if length < 8:  # 0: to the end of the file
            return
        if name in _NEEDED_BOXES:
            _check_bytes(path, length, size - position)
        position += length


def _check_segment(path: Path, file: BinaryIO, size: int) -> None:
    """Matroska and WebM: the EBML header, and a segment that holds the rest."""
    position = 0
    for name in (EBML, _SEGMENT):
        header = read_at(file, position, 12)
        if len(header) < 12 or not header.startswith(name) or header[4] == 0:
            return
        # The size's own length is told by its leading zeros; all ones: unknown.
        num_bytes = 9 - header[4].bit_length()
        most = (1 << 7 * num_bytes) - 1
        length = int.from_bytes(header[4 : 4 + num_bytes], "big") & most
        if length == most:
            return
        position += 4 + num_bytes
        _check_bytes(path, length, size - position)
        position += length


def _check_last_page(path: Path, file: BinaryIO, size: int) -> None:
    """Ogg: a page states its own size, and the last one of a stream carries the end-of-stream flag (RFC 3533)."""
    tail = read_at(file, max(0, size - 2 * _OGG_MOST_PAGE_BYTES), 2 * _OGG_MOST_PAGE_BYTES)
    if _OGG not in tail:  # tags of another format behind the last page
        return
    page = tail[tail.rindex(_OGG) :]
    sizes = page[_OGG_HEADER_BYTES:][: page[_OGG_NUM_SEGMENTS]] if len(page) >= _OGG_HEADER_BYTES else b""
    if len(page) < _OGG_HEADER_BYTES or len(sizes) < page[_OGG_NUM_SEGMENTS]:
        missing = "the header of its last page is cut off"
    elif (excess := _OGG_HEADER_BYTES + len(sizes) + sum(sizes) - len(page)) > 0:
        missing = f"its last page ends {excess} bytes after the file"
    elif not page[_OGG_FLAGS] & _OGG_END_OF_STREAM:
        missing = "its last page lacks the end-of-stream flag"
    else:
        return
    raise AudioError(f"{path}: truncated; {missing}. Copy the file again")


def _check_xing(path: Path, file: BinaryIO, size: int) -> None:
    """MP3: a Xing or Info header states the bytes from its own frame to the last frame's end."""
    start, place, frame = find_xing(file)
    if place and len(frame) >= place + 16:
        flags, _, promised = struct.unpack_from(">3I", frame, place + 4)
        if flags & 3 == 3:  # frames and bytes
            _check_bytes(path, promised, size - start)


def find_xing(file: BinaryIO) -> tuple[int, int, bytes]:
    """Where an MP3 file's first frame begins, and in it a Xing or Info header (0 if there is none); 4 KB from there."""
    start = 0
    for _ in range(_MOST_CHUNKS):
        tag = read_at(file, start, 10)
        if tag[:3] != b"ID3" or len(tag) < 10:
            break
        start += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
    frame = read_at(file, start, 1 << 12)
    places = _XING_PLACES if frame[:1] == b"\xff" else ()
    return start, next((at for at in places if frame[at : at + 4] in (b"Xing", b"Info")), 0), frame


def _check_bytes(path: Path, promised: int, present: int, unknown: tuple[range, ...] = _UNKNOWN_64) -> None:
    if present < promised and not any(promised in sizes for sizes in unknown):
        raise AudioError(
            f"{path}: truncated; the header promises {promised} bytes of audio, {present} are there. "
            "Copy the file again"
        )


def read_at(file: BinaryIO, position: int, num_bytes: int) -> bytes:
    """Up to so many bytes from there."""
    if position >= 1 << 63:  # no file is as long
        return b""
    # Whatever the file buffers, and wherever libsndfile reads.
    return os.pread(file.fileno(), num_bytes, position)


def _unpack(form: str, file: BinaryIO, position: int) -> int | None:
    content = read_at(file, position, struct.calcsize(form))
    return struct.unpack(form, content)[0] if len(content) == struct.calcsize(form) else None
