"""Reading of audio files: decoded, checked, mixed to mono, resampled, quantised.

libsndfile reads plain PCM (WAV and its kin, AIFF, CAF, AU), and FLAC and MP3 that a checksum in them proves whole, as
threads do not wait for each other there; FFmpeg through PyAV whatever else is compressed or in another container. Which
of the two is decided by the content of the file, not by its name, and every error is that of the reader meant for it.
Files are read in blocks until they end: how much memory is taken depends on what a file holds, never on what its header
claims.

16-bit audio stays ``int16`` (the spectrogram's reference transforms the integers as they are); everything else
becomes ``float32`` in [-1, 1].
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from allin1_core.audio.containers import is_plain_pcm, read_at
from allin1_core.audio.conversion import remix_to_mono
from allin1_core.audio.decoding import Source, open_container, open_source
from allin1_core.audio.libsndfile import open_soundfile
from allin1_core.audio.sample_buffer import AllocateFirst, SampleBuffer
from allin1_core.audio.types import SAMPLE_RATE, Audio, check_finite
from allin1_core.audio.verified import UnverifiedError, open_verified
from allin1_core.errors import AudioError
from allin1_core.files.reading import FileContent, open_file
from allin1_core.files.writing import expand_user

# Silence packs so well that a few megabytes could decode to more than any memory. This is 3.4 hours of stereo at
# 44.1 kHz in 16 bits.
MOST_BYTES = 2 << 30


# Codecs compress sound, silence excepted, to a sixteenth of its size at best. What a header promises within that is
# allocated at once: an array that grows is filled with zeros under the interpreter's lock, for which other tracks wait.
_PACKED_TO = 16


def read_audio(path: str | os.PathLike[str] | FileContent) -> Audio:
    """Read an audio file.

    Parameters
    ----------
    path : path-like or FileContent
        Any file that FFmpeg reads: WAV, AIFF, FLAC, MP3, AAC, Ogg, Opus, WavPack, the containers MPEG-4, QuickTime,
        Matroska, WebM, AVI, FLV, ASF, MPEG-TS ... The samples are those that ``ffmpeg -i FILE -map 0:a:0 -f f32le -``
        gives, of the first audio stream: encoder delay and edit lists are honoured, all parts of chained Ogg and of
        concatenated MP3 files are read (of chained Opus each without its pre-skip), and gaps in the time stamps, or
        a start after 0, are not filled with silence. A change of sample rate or channels is an error. A file that
        names others (a playlist) is refused.

        A file that was cut off is refused where the format tells its length: by a header, an index, the size of a
        chunk, or a mark at the end. It cannot be told, and the file is read as far as it goes, of MP3 without a Xing
        or Info header, MP2, AAC (ADTS), AC-3, DTS, AMR, MPEG program and transport streams, and of WAV, AU, CAF and
        Matroska written to a pipe, which state no length. A part cut out of a FLAC file without decoding
        (``ffmpeg -ss T -c copy``) is read to its end, whatever its header says, if its first frame is not the
        whole's. A packet that cannot be decoded is an error, but for those before the first and after the last
        frame of a format that can be entered anywhere (MP3, AAC, MPEG-TS ...), which are passed over.

        Its samples may take `MOST_BYTES`, 2 GiB, and at a lower rate than 44.1 kHz so much less as resampling adds:
        3.4 hours of stereo at 44.1 kHz in 16 bits, half of that in ``float32``. Reading takes a quarter more.

    Returns
    -------
    Audio
        ``int16`` where the file's own samples have at most 16 bits, else ``float32``.

    Raises
    ------
    AudioError
        If the file is missing, empty, truncated, damaged, not audio, too long, holds no samples, or holds samples
        that are NaN, infinite or beyond `LARGEST_SAMPLE`.
    """
    source = path if isinstance(path, FileContent) else expand_user(path)
    return _read(source, MOST_BYTES, lambda block: block)


def read_mono(
    path: str | os.PathLike[str] | FileContent,
    most_bytes: int,
    stream: int = 0,
    allocate: AllocateFirst = np.empty,
) -> Audio:
    """Read an audio file as `read_audio` does, mixed to mono block by block; its other channels take no memory.

    Parameters
    ----------
    path : path-like or FileContent
    most_bytes : int
        Size that its mono samples may have at 44.1 kHz or, if that is higher, at their own rate.
    stream : int
        Which of the audio streams of a container; only containers have more than one.
    allocate : callable
        Makes the array that samples at 44.1 kHz are decoded into; see `SampleBuffer`.

    Returns
    -------
    Audio
        One channel, as `remix_to_mono` gives it.

    Raises
    ------
    AudioError
        As `read_audio`.
    """
    return _read(path, most_bytes, lambda block: remix_to_mono(block)[:, None], stream, allocate)


def stated_seconds(source: str | os.PathLike[str] | FileContent) -> float:
    """Length of an audio file, as its header states it or FFmpeg reckons it from its size.

    Returns
    -------
    float
        In seconds; 0 if there is none, or the file cannot be opened: reading it says why.
    """
    import soundfile

    try:
        with open_file(source, AudioError) as file:
            # Without FFmpeg, whose import takes longer than the rest.
            if read_at(file, 0, 4) == b"fLaC" or is_plain_pcm(Path(str(source)), file):
                with open_soundfile(file) as sound:
                    return float(sound.frames / sound.samplerate)
            file.seek(0)
            import av

            try:
                with open_container(file) as container:
                    return max(0.0, (container.duration or 0) / av.time_base)
            except av.FFmpegError:
                return 0.0
    except (AudioError, OSError, soundfile.LibsndfileError, ValueError):
        return 0.0


def _read(
    source_file: str | os.PathLike[str] | FileContent,
    most_bytes: int,
    mix: Callable[[np.ndarray], np.ndarray],
    stream: int = 0,
    allocate: AllocateFirst = np.empty,
) -> Audio:
    path = Path(source_file.name if isinstance(source_file, FileContent) else source_file)  # for messages
    try:
        with open_file(source_file, AudioError) as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise AudioError(f"{path}: the file is empty (0 bytes); expected audio")
            samples = None
            again = None if isinstance(source_file, FileContent) else path
            with contextlib.suppress(UnverifiedError), open_verified(file, again) as source:
                samples = _gather(path, source, most_bytes, mix, size, allocate)
            if samples is None:
                with open_source(path, file, stream) as source:
                    samples = _gather(path, source, most_bytes, mix, size, allocate)
    except MemoryError as error:
        raise AudioError(
            f"{path}: decodes to more than the memory that is free; cut it into parts"
        ) from error
    except OSError as error:
        raise AudioError(
            f"{path}: cannot be read ({error.strerror or error}); copy the file again"
        ) from error
    if len(samples) == 0:
        raise AudioError(f"{path}: the file holds no samples; expected at least one")
    check_finite(samples, str(path))
    return Audio(samples, source.sample_rate)


def _gather(
    path: Path,
    source: Source,
    most_bytes: int,
    mix: Callable[[np.ndarray], np.ndarray],
    file_size: int,
    allocate: AllocateFirst,
) -> np.ndarray:
    """All samples of a source, at most so many bytes of them at 44.1 kHz or, if that is higher, at their own rate."""
    most = most_bytes * min(SAMPLE_RATE, source.sample_rate) // SAMPLE_RATE
    if source.sample_rate != SAMPLE_RATE:
        allocate = np.empty
    buffer = SampleBuffer(most, source.promised, _PACKED_TO * file_size, allocate)
    for unmixed in source.blocks:
        block = mix(unmixed)
        if not buffer.add(block):
            hours = most_bytes / (block.itemsize * block.shape[1] * SAMPLE_RATE * 3600)
            raise AudioError(
                f"{path}: decodes to more than {most_bytes} bytes; expected at most that, which is {hours:.1f} hours "
                f"of {block.shape[1]} channels in {block.dtype} at {SAMPLE_RATE} Hz. Cut it into parts"
            )
    return buffer.samples(source.dtype, source.num_channels)
