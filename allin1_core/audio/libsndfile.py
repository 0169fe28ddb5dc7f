"""Reading of audio files with libsndfile, from their beginning to their end."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar

import numpy as np

from allin1_core.threads import ThreadPool

# Small enough to stay in the processor's cache until they are copied to their place.
_READ_VALUES = 1 << 18

Prepared = TypeVar("Prepared")


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


def blocks_of_handles(
    pool: ThreadPool, sounds: Sequence[Any], dtype: str, prepare: Callable[[np.ndarray], Prepared]
) -> Iterator[Prepared]:
    """What is made of each block of a FLAC file, in their order; helpers read it by handles of one position each.

    Each block is read behind a seek, which FLAC takes to any sample. The pool has a helper for each handle.

    Parameters
    ----------
    pool : ThreadPool
        To be closed before the handles are.
    sounds : sequence of soundfile.SoundFile
        Of the same file.
    prepare : callable
        Called in a helper. What it keeps of the block may be overwritten when the next one is taken.
    """
    channels = sounds[0].channels
    length = max(1, _READ_VALUES // channels)
    # Of each handle one block that is read, and one that waits to be taken.
    buffers = [np.empty((length, channels), dtype) for _ in range(2 * len(sounds))]
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for sound in sounds:
        idle.put(sound)

    def read(index: int) -> Prepared:
        sound = idle.get()
        try:
            sound.seek(index * length)
            return prepare(sound.read(out=buffers[index % len(buffers)]))
        finally:
            idle.put(sound)

    num_blocks = -(-sounds[0].frames // length)
    return pool.map_ahead(read, range(num_blocks), len(buffers))
