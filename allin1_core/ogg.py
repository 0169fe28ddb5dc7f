"""Whether an Ogg file is all there, from the headers of its pages (RFC 3533, section 6).

Vorbis, Opus and FLAC in Ogg state no length at the start. But a page states its own size, and the last one of each
logical stream carries the end-of-stream flag: of a file that was cut off, the last page is incomplete, or the flag
is missing. Decoders give what is there and do not say so.
"""

from __future__ import annotations

import os
from typing import BinaryIO

MAGIC = b"OggS"
# Capture pattern, version, flags, granule position, serial number, sequence number, checksum, number of segments.
_HEADER_BYTES = 27
_FLAGS, _SERIAL, _NUM_SEGMENTS = 5, slice(14, 18), 26
_END_OF_STREAM = 0x04
_BLOCK = 1 << 16


def what_is_missing(file: BinaryIO) -> str:
    """What an Ogg file lacks that a whole one has; empty if nothing.

    Parameters
    ----------
    file : binary file
        Read from its start. Bytes between pages or after the last one (tags of other formats) are passed over.
    """
    size = os.fstat(file.fileno()).st_size
    ended: dict[bytes, bool] = {}
    position = _next_page(file, 0)
    while position is not None:
        file.seek(position)
        header = file.read(_HEADER_BYTES + 255)
        sizes = header[_HEADER_BYTES : _HEADER_BYTES + header[_NUM_SEGMENTS]] if len(header) > 26 else b""
        if len(header) < _HEADER_BYTES or len(sizes) < header[_NUM_SEGMENTS]:
            return "the header of its last page is cut off"
        end = position + _HEADER_BYTES + len(sizes) + sum(sizes)
        if end > size:
            return f"its last page ends {end - size} bytes after the file"
        ended[header[_SERIAL]] = bool(header[_FLAGS] & _END_OF_STREAM)
        position = _next_page(file, end)
    return "" if all(ended.values()) else "its last page lacks the end-of-stream flag"


def _next_page(file: BinaryIO, position: int) -> int | None:
    """Where the next page begins, from `position` on: right there, unless something else lies between."""
    file.seek(position)
    kept = b""
    while block := file.read(_BLOCK if kept else len(MAGIC)):
        found = (kept + block).find(MAGIC)
        if found >= 0:
            return position - len(kept) + found
        position += len(block)
        kept = (kept + block)[1 - len(MAGIC) :]
    return None
