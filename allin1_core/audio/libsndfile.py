"""Sequential reading of audio files with libsndfile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

# Small enough to stay in the processor's cache until they are copied to their place.
_READ_VALUES = 1 << 18


def open_soundfile(file: BinaryIO) -> Any:
    """Open a file as a `soundfile.SoundFile` to be read from its beginning to its end.

    Raises
    ------
    soundfile.LibsndfileError
        If it is none that libsndfile reads.
    """
    import soundfile

    # libsndfile begins where the descriptor stands, which is not where the buffered file does.
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    # By descriptor, so that the format is told from the content: ".raw" or ".txt" mean nothing then.
    sound = soundfile.SoundFile(file.fileno(), closefd=False)
    # Where it can, soundfile seeks behind each block to where it is; the next frames of MP3 are decoded wrongly then.
    sound.seekable = lambda: False
    return sound


def libsndfile_blocks(sound: Any, dtype: str) -> Iterator[np.ndarray]:
    """Blocks ``(num_samples, num_channels)`` of an opened file to its end; each is overwritten by the next."""
    buffer = np.empty((max(1, _READ_VALUES // sound.channels), sound.channels), dtype)
    # `read` takes twice as long for each block before and after libsndfile's own work.
    while frames := sound.buffer_read_into(buffer, dtype):
        yield buffer[:frames]
