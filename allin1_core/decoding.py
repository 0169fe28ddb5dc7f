"""The two decoders of audio files, libsndfile and FFmpeg (PyAV), as one: blocks of samples, and a check at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from allin1_core.completeness import check_decoded, check_header
from allin1_core.errors import AudioError

BLOCK_VALUES = 1 << 20

# A rate below or above these is a damaged header: resampling from 1 Hz would turn a second into 44,100.
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 1_000_000

_INT16_SUBTYPES = {"PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW", "ALAC_16", "DPCM_16", "DPCM_8"}
_MATROSKA = b"\x1a\x45\xdf\xa3"
_ASF = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"

# AAC and its containers state durations to within a few codec frames of 1,024 samples.
_DURATION_TOLERANCE = 0.25


@dataclasses.dataclass(frozen=True)
class Source:
    """An open audio file.

    Attributes
    ----------
    sample_rate, num_channels : int
    dtype : str
        ``int16`` or ``float32``: of the samples.
    promised : int
        Samples of each channel that the header states; 0 if it states none.
    blocks : iterator of int16 or float32 (num_samples, num_channels)
    check_whole : callable
        To be called with the number of samples that came: `AudioError` if the file was cut off.
    """

    sample_rate: int
    num_channels: int
    dtype: str
    promised: int
    blocks: Iterator[np.ndarray]
    check_whole: Callable[[int], None]


def open_source(
    path: Path, file: BinaryIO, head: bytes, stream: int = 0
) -> contextlib.AbstractContextManager[Source]:
    """Open a file, and of a container that audio stream, with the decoder that its first 16 bytes are for.

    Raises
    ------
    AudioError
        Here, or while blocks are taken inside the ``with`` block: not audio, truncated, damaged, an absurd rate.
    """
    is_container = head[4:8] == b"ftyp" or head.startswith((_MATROSKA, _ASF))
    return _open_container(path, file, stream) if is_container else _open_libsndfile(path, file)


def _check_rate(path: Path, sample_rate: int) -> int:
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{path}: sample rate {sample_rate} Hz; expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz. "
            "The header is damaged, or this is not audio"
        )
    return sample_rate


@contextlib.contextmanager
def _open_libsndfile(path: Path, file: BinaryIO) -> Iterator[Source]:
    import soundfile

    check_header(path, file)
    # libsndfile begins where the descriptor stands, which is not where the buffered file does.
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    try:
        # By descriptor, so that the format is told from the content: ".raw" or ".txt" mean nothing then.
        sound = soundfile.SoundFile(file.fileno(), closefd=False)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{path}: not audio that libsndfile can read ({error.error_string.rstrip('.')}); "
            "expected WAV, FLAC, AIFF, Ogg, MP3, m4a or the like"
        ) from error
    with sound:
        dtype = "int16" if sound.subtype in _INT16_SUBTYPES else "float32"
        try:
            yield Source(
                _check_rate(path, sound.samplerate),
                sound.channels,
                dtype,
                sound.frames,
                _libsndfile_blocks(sound, dtype),
                lambda found: check_decoded(path, file, sound, found),
            )
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{path}: truncated or damaged ({error.error_string.rstrip('.')}); expected {sound.frames} samples"
            ) from error


def _libsndfile_blocks(sound: Any, dtype: str) -> Iterator[np.ndarray]:
    frames = max(1, BLOCK_VALUES // sound.channels)
    while len(block := sound.read(frames, dtype=dtype, always_2d=True)):
        yield block


@contextlib.contextmanager
def _open_container(path: Path, file: BinaryIO, number: int) -> Iterator[Source]:
    import av

    file.seek(0)
    try:
        # Not by name: FFmpeg takes "concat:..." or "http:..." for a protocol, though it names a file.
        with av.open(file) as container:
            if not container.streams.audio:
                raise AudioError(f"{path}: the container holds no audio stream; expected at least one")
            stream = container.streams.audio[number]
            if stream.codec_context is None:
                raise AudioError(
                    f"{path}: the sound is coded in a way that FFmpeg does not know; convert it to FLAC"
                )
            duration = _stated_duration(av, container, stream)
            sample_rate = _check_rate(path, int(stream.codec_context.sample_rate))

            def check_whole(found: int) -> None:
                if duration is not None and found / sample_rate < duration - _DURATION_TOLERANCE:
                    raise AudioError(
                        f"{path}: truncated; the header promises {duration:.2f} s, {found / sample_rate:.2f} s are "
                        "there. Copy the file again"
                    )

            yield Source(
                sample_rate,
                1,
                "float32",
                int(max(duration or 0, 0) * sample_rate),
                _container_blocks(av, container, stream),
                check_whole,
            )
    except AudioError:
        raise
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioError(
            f"{path}: truncated, damaged, or not audio that FFmpeg can read ({reason})"
        ) from error


def _stated_duration(av: Any, container: Any, stream: Any) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # Matroska states the length of the whole file only; that of a video may be longer than its sound.
    if container.duration and len(container.streams) == 1:
        return float(container.duration / av.time_base)
    return None


def _container_blocks(av: Any, container: Any, stream: Any) -> Iterator[np.ndarray]:
    to_planar = None
    for frame in container.decode(stream):
        if to_planar is None:
            wanted = "s16p" if frame.format.name in ("u8", "u8p", "s16", "s16p") else "fltp"
            to_planar = av.AudioResampler(format=wanted)
        for planar in to_planar.resample(frame):
            yield planar.to_ndarray().T
    if to_planar is not None:
        for planar in to_planar.resample(None):
            yield planar.to_ndarray().T
