"""Audio from files: read, checked, mixed to mono, resampled, quantised.

libsndfile reads plain PCM (WAV and its kin, AIFF, CAF, AU), FFmpeg through PyAV whatever is compressed or in another
container. Which of the two is decided by the content of the file, not by its name and not by trying one after the
other, so that an error is the error of the reader that was meant to succeed. Files are read in blocks until they end:
how much memory is taken depends on what a file holds, never on what its header claims.

16-bit audio stays ``int16`` (the spectrogram's reference transforms the integers as they are); everything else
becomes ``float32`` in [-1, 1].
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from allin1_core.decoding import BLOCK_VALUES, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Source, open_source
from allin1_core.errors import Allin1Error, AudioError, StemsError
from allin1_core.files import expand_user
from allin1_core.regular_files import FileContent, open_file
from allin1_core.sample_buffer import SampleBuffer

STEM_NAMES = ("bass", "drums", "other", "vocals")
SAMPLE_RATE = 44100

# Silence packs so well that a few megabytes could decode to more than any memory. This is 3.4 hours of stereo at
# 44.1 kHz in 16 bits.
MOST_BYTES = 2 << 30

# Integers of 32 bits that were stored as float as they are; what is beyond is no sound, and its sums and spectra would
# overflow sooner or later.
LARGEST_SAMPLE = np.float32(2**31)

# As libsndfile. More are samples along the wrong axis.
_MOST_CHANNELS = 1024


@dataclasses.dataclass(frozen=True)
class Audio:
    """Samples as a file holds them.

    Attributes
    ----------
    samples : int16 or float32 (num_samples, num_channels)
        float32 in [-1, 1].
    sample_rate : int
        Samples per second.

    Raises
    ------
    AudioError
        If they have another shape or dtype, or the rate is no whole number from 1,000 to 1,000,000.
    """

    samples: np.ndarray
    sample_rate: int

    def __post_init__(self) -> None:
        samples = self.samples
        if (
            not isinstance(samples, np.ndarray)
            or samples.ndim != 2
            or not 1 <= samples.shape[1] <= _MOST_CHANNELS
        ):
            raise AudioError(
                f"samples: {type(samples).__name__} of shape {np.shape(samples)}; expected a numpy array of shape "
                f"(num_samples, num_channels) with at most {_MOST_CHANNELS} channels. Mono samples are "
                "samples[:, np.newaxis], samples with channels first samples.T"
            )
        if samples.dtype not in (np.int16, np.float32):
            raise AudioError(
                f"samples: dtype {samples.dtype}; expected int16, or float32 with full scale at 1. Convert with astype"
            )
        _check_sample_rate(self.sample_rate, AudioError)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate


@dataclasses.dataclass(frozen=True)
class Stems:
    """The four stems of a track, in the order of `STEM_NAMES`.

    Attributes
    ----------
    samples : int16 or float32 (4, num_samples)
        Mono.
    sample_rate : int
        Samples per second.

    Raises
    ------
    StemsError
        If they have another shape or dtype, or the rate is no whole number from 1,000 to 1,000,000.
    """

    samples: np.ndarray
    sample_rate: int = SAMPLE_RATE

    def __post_init__(self) -> None:
        samples = self.samples
        if not isinstance(samples, np.ndarray) or samples.ndim != 2 or samples.shape[0] != len(STEM_NAMES):
            raise StemsError(
                f"stems: shape {np.shape(samples)}; expected ({len(STEM_NAMES)}, num_samples), mono, in the order "
                f"{', '.join(STEM_NAMES)}"
            )
        if samples.dtype not in (np.int16, np.float32):
            raise StemsError(f"stems: dtype {samples.dtype}; expected int16 or float32")
        _check_sample_rate(self.sample_rate, StemsError)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples.shape[1] / self.sample_rate


def _check_sample_rate(sample_rate: int, error: type[Allin1Error]) -> None:
    if not isinstance(sample_rate, int | np.integer) or not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise error(
            f"sample_rate: {sample_rate!r}; expected a whole number from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz"
        )


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


def read_mono(path: str | os.PathLike[str] | FileContent, most_bytes: int, stream: int = 0) -> Audio:
    """Read an audio file as `read_audio` does, mixed to mono block by block; its other channels take no memory.

    Parameters
    ----------
    path : path-like or FileContent
    most_bytes : int
        Size that its mono samples may have at 44.1 kHz or, if that is higher, at their own rate.
    stream : int
        Which of the audio streams of a container; only containers have more than one.

    Returns
    -------
    Audio
        One channel, as `remix_to_mono` gives it.

    Raises
    ------
    AudioError
        As `read_audio`.
    """
    return _read(path, most_bytes, lambda block: remix_to_mono(block)[:, None], stream)


def _read(
    source_file: str | os.PathLike[str] | FileContent,
    most_bytes: int,
    mix: Callable[[np.ndarray], np.ndarray],
    stream: int = 0,
) -> Audio:
    path = Path(source_file.name if isinstance(source_file, FileContent) else source_file)  # for messages
    try:
        with open_file(source_file, AudioError) as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise AudioError(f"{path}: the file is empty (0 bytes); expected audio")
            with open_source(path, file, stream) as source:
                samples = _gather(path, source, most_bytes, mix, size)
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
    path: Path, source: Source, most_bytes: int, mix: Callable[[np.ndarray], np.ndarray], file_size: int
) -> np.ndarray:
    """All samples of a source, at most so many bytes of them at 44.1 kHz or, if that is higher, at their own rate."""
    most = most_bytes * min(SAMPLE_RATE, source.sample_rate) // SAMPLE_RATE
    buffer = SampleBuffer(most, source.promised, file_size)
    for unmixed in source.blocks:
        block = mix(unmixed)
        if not buffer.add(block):
            hours = most_bytes / (block.itemsize * block.shape[1] * SAMPLE_RATE * 3600)
            raise AudioError(
                f"{path}: decodes to more than {most_bytes} bytes; expected at most that, which is {hours:.1f} hours "
                f"of {block.shape[1]} channels in {block.dtype} at {SAMPLE_RATE} Hz. Cut it into parts"
            )
    return buffer.samples(source.dtype, source.num_channels)


def check_finite(samples: np.ndarray, name: str) -> None:
    """Refuse samples that are NaN, infinite, or beyond `LARGEST_SAMPLE`.

    Parameters
    ----------
    samples : int16 or float32, any shape
    name : str
        What the message calls them: the file or argument.

    Raises
    ------
    AudioError
        With the number of such samples and where the first one is.
    """
    if samples.dtype.kind != "f":
        return
    number, first = 0, 0
    step = max(1, BLOCK_VALUES * len(samples) // max(1, samples.size))
    for start in range(0, len(samples), step):
        block = samples[start : start + step]
        if block.min() >= -LARGEST_SAMPLE and block.max() <= LARGEST_SAMPLE:  # neither, if there is a NaN
            continue
        bad = ~(np.abs(block) <= LARGEST_SAMPLE)
        first = first if number else start + int(np.argwhere(bad)[0][0])
        number += int(bad.sum())
    if number:
        is_finite = np.isfinite(samples[first]).all()
        found = f"beyond {LARGEST_SAMPLE:.0f}, where full scale is 1" if is_finite else "NaN or infinite"
        raise AudioError(
            f"{name}: {number} samples are {found}, the first at sample {first}; expected finite numbers in [-1, 1]. "
            "Repair the file with an audio editor"
        )


def remix_to_mono(samples: np.ndarray) -> np.ndarray:
    """Mean over the channels, cast back to the dtype: for ``int16`` that truncates toward zero.

    Parameters
    ----------
    samples : int16 or float32 (num_samples, num_channels)

    Returns
    -------
    int16 or float32 (num_samples,)
        Identical to ``madmom.audio.signal.remix(samples, 1)``.
    """
    if samples.shape[1] == 1:
        return samples[:, 0]
    return np.mean(samples, axis=-1).astype(samples.dtype)


def resample(samples: np.ndarray, sample_rate: int, to_sample_rate: int) -> np.ndarray:
    """Resample with soxr at its high quality; the dtype stays.

    Parameters
    ----------
    samples : int16 or float32 (num_samples,) or (num_samples, num_channels)
    sample_rate, to_sample_rate : int
        Samples per second.

    Returns
    -------
    int16 or float32, ``num_samples * to_sample_rate / sample_rate`` samples
        ``int16`` is resampled in float64, then rounded and clipped: without dither, so the same every time.
    """
    if sample_rate == to_sample_rate or len(samples) == 0:
        return samples
    import soxr

    if samples.dtype == np.int16:
        # Block by block, which gives the same: in float64 all of it would take eight times the memory, and again.
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        stream = soxr.ResampleStream(sample_rate, to_sample_rate, channels, dtype=np.float64)
        most = -(-len(samples) * to_sample_rate // sample_rate) + 1
        buffer = SampleBuffer(2 * most * channels, most, 2 * most * channels)
        step = max(1, BLOCK_VALUES // channels)
        for start in range(0, len(samples), step):
            block = samples[start : start + step].astype(np.float64)
            resampled = stream.resample_chunk(block, last=start + step >= len(samples))
            rounded = np.clip(np.rint(resampled), -32768, 32767).astype(np.int16)
            is_added = buffer.add(rounded.reshape(-1, channels))
            assert is_added, "soxr gave more samples than the ratio of the rates"
        resampled = buffer.samples("int16", channels)
        return resampled[:, 0] if samples.ndim == 1 else resampled
    return soxr.resample(samples, sample_rate, to_sample_rate)


def quantise(samples: np.ndarray) -> np.ndarray:
    """Float samples to ``int16`` exactly as Demucs writes them to a 16-bit WAV file.

    A stem whose peak would clip is scaled down so that the peak is at 1/1.01 (Demucs' ``clip="rescale"``), then
    rounded to the nearest of 2^15 steps, ties to even.

    Parameters
    ----------
    samples : float32, any shape
        One stem, all its channels: the peak is taken over all of them.

    Returns
    -------
    int16, same shape
    """
    if samples.size == 0:
        return samples.astype(np.int16)
    peak = np.float32(1.01) * np.abs(samples).max()
    if peak > 1:
        samples = samples / peak
    return np.clip(np.rint(samples.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)
