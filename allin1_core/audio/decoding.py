"""Decoding of audio files: libsndfile for plain PCM, FFmpeg (PyAV) for everything else."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from allin1_core.audio.containers import is_plain_pcm
from allin1_core.audio.libsndfile import libsndfile_blocks, open_soundfile
from allin1_core.errors import AudioError

BLOCK_VALUES = 1 << 20
# Small enough to stay in the processor's cache until they are copied to their place.
_DECODED_VALUES = 1 << 16

# A rate below or above these is a damaged header: resampling from 1 Hz would turn a second into 44,100.
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 1_000_000

_INT16_SUBTYPES = {"PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW"}
_INT16_FORMATS = {"u8", "u8p", "s16", "s16p"}
# PyAV reads past the pointers of a frame that has more planes than this.
_MOST_PLANES = 7

# FFmpeg checks the sums in these only if it is told to.
_WITH_CHECKSUMS = {"flac", "tta", "wavpack", "ape"}
# Their headers state the length in samples.
_OF_STATED_LENGTH = {"flac", "wv", "tta", "ape", "nistsphere"}
# Their headers state when the last stream ends; its last frame may be shorter than the writer assumed.
_OF_STATED_END, _END_TOLERANCE = {"matroska,webm", "flv"}, 0.25
# Streams that can be entered at any frame: incomplete frames at both ends are skipped, as FFmpeg does.
_ENTERED_ANYWHERE = {
    *("mp3", "aac", "loas", "ac3", "eac3", "dts", "dtshd", "truehd", "mlp", "amr", "amrnb", "amrwb"),
    *("mpegts", "mpeg", "wav", "w64"),
}
_TAGS = (b"ID3", b"TAG", b"APE", b"LYR", b"\0\0\0")
# Samples by which time stamps may run ahead: in FLAC none; in Ogg those within a page are reckoned from its end, which
# is off by up to a quarter of Vorbis' longest block, and by the pre-skip between two parts of a chain.
_MOST_AHEAD = {"flac": 1, "ogg": 4096}
# How far FFmpeg looks for the next page of Ogg, and more.
_OGG_SEARCH_BYTES = 1 << 20


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
        Each may be overwritten by the next. Raises `AudioError` at its end if the file was cut off.
    """

    sample_rate: int
    num_channels: int
    dtype: str
    promised: int
    blocks: Iterator[np.ndarray]


def open_source(path: Path, file: BinaryIO, stream: int = 0) -> contextlib.AbstractContextManager[Source]:
    """Open a file, and of a container that audio stream, with the decoder that its content is for.

    Raises
    ------
    AudioError
        Here, or while blocks are taken inside the ``with`` block: not audio, truncated, damaged, an absurd rate.
    """
    return _open_libsndfile(path, file) if is_plain_pcm(path, file) else _open_ffmpeg(path, file, stream)


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

    try:
        sound = open_soundfile(file)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{path}: not audio that libsndfile can read ({error.error_string.rstrip('.')}); "
            "the header is damaged. Export the file again"
        ) from error
    with sound:
        dtype = "int16" if sound.subtype in _INT16_SUBTYPES else "float32"
        try:
            yield Source(
                _check_rate(path, sound.samplerate),
                sound.channels,
                dtype,
                sound.frames,
                _whole_blocks(path, sound, dtype),
            )
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{path}: truncated or damaged ({error.error_string.rstrip('.')}); expected {sound.frames} samples"
            ) from error


def _whole_blocks(path: Path, sound: Any, dtype: str) -> Iterator[np.ndarray]:
    found = 0
    for block in libsndfile_blocks(sound, dtype):
        found += len(block)
        yield block
    _check_length(path, sound.frames, found)


def _check_length(path: Path, promised: int, found: int) -> None:
    if found < promised:
        raise AudioError(
            f"{path}: truncated or damaged; the header promises {promised} samples, {found} are there. "
            "Copy the file again; if it is a part cut out of a longer one, decode it and encode it anew"
        )


def open_container(file: BinaryIO) -> Any:
    """Open a file with FFmpeg (PyAV), which looks at its content alone."""
    import av

    # Not by name: FFmpeg takes "concat:..." or "http:..." for a protocol, though it names a file. And none is allowed,
    # since playlists name other files.
    return av.open(file, metadata_errors="replace", container_options={"protocol_whitelist": "none"})


@contextlib.contextmanager
def _open_ffmpeg(path: Path, file: BinaryIO, number: int) -> Iterator[Source]:
    import av

    file.seek(0)
    opened = False
    try:
        with open_container(file) as container:
            if not container.streams.audio:
                raise AudioError(f"{path}: the container holds no audio stream; expected at least one")
            stream = container.streams.audio[number]
            if stream.codec_context is None:
                raise AudioError(
                    f"{path}: the sound is coded in a way that FFmpeg does not know; convert it to FLAC"
                )
            opened = True
            _forget_order_of_channels(stream.codec_context)
            frames = _frames(av, path, container, stream, file)
            first = next(frames, None)
            rate = stream.codec_context.sample_rate if first is None else first.sample_rate
            duration = (stream.duration or 0) * (stream.time_base or 0)
            yield Source(
                _check_rate(path, rate),
                1 if first is None else first.layout.nb_channels,
                "int16" if first is not None and first.format.name in _INT16_FORMATS else "float32",
                int(max(duration, 0) * rate),
                iter(()) if first is None else _ffmpeg_blocks(av, path, first, frames),
            )
    except (AudioError, MemoryError):
        raise
    except (av.FFmpegError, ValueError) as error:
        if opened:
            raise AudioError(
                f"{path}: truncated or damaged ({_reason(error)}). Copy the file again"
            ) from error
        raise AudioError(
            f"{path}: not audio that FFmpeg can read ({_reason(error)}); expected WAV, FLAC, AIFF, MP3, AAC, Ogg, "
            "m4a, WebM or the like. If it is one of these, its beginning is damaged"
        ) from error


def _forget_order_of_channels(context: Any) -> None:
    """PyAV frees the layout of channels in an order of their own twice; the mean of them knows no order."""
    layout = context.layout
    has_own_order, channels = "+" in layout.name, layout.nb_channels
    del layout
    if has_own_order:
        context.layout = f"{channels}c"


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _frames(av: Any, path: Path, container: Any, stream: Any, file: BinaryIO) -> Iterator[Any]:
    """The frames of a stream; `AudioError` if a packet among them is damaged, or samples are missing."""
    context, name = stream.codec_context, container.format.name
    if context.name in _WITH_CHECKSUMS:
        context.options = {"err_detect": "crccheck+explode"}
    elif (name, context.name) == ("caf", "alac"):
        # The last packet is shorter already; FFmpeg 8 would cut the same number of samples off once more.
        context.options = {"flags2": "+skip_manual"}
    most_ahead = _MOST_AHEAD.get(name)
    first = last = failed = None
    found, end = 0, 0.0
    for packet in _packets(av, path, container, stream, file):
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except av.FFmpegError as error:
            if _is_no_sound(name, context.name, bytes(packet)):
                continue
            if name not in _ENTERED_ANYWHERE:
                raise
            failed = error
            continue
        for frame in frames:
            if failed is not None and found:
                raise AudioError(
                    f"{path}: damaged after sample {found} ({_reason(failed)}); expected frames without gaps. "
                    "Copy the file again"
                ) from failed
            failed = None
            if name == "flac" and found and frame.pts is None:  # some of them FFmpeg would give twice
                raise AudioError(
                    f"{path}: damaged after sample {found}, where frames are not numbered on. Copy the file again; if "
                    "it was joined of several, decode them and encode them as one"
                )
            if most_ahead is not None and frame.pts is not None:
                begin = _begin(frame)
                if begin - end >= most_ahead and first is not None:
                    raise AudioError(
                        f"{path}: damaged; {begin - end:.0f} samples are missing after sample {found}. "
                        "Copy the file again"
                    )
                end = begin
            end += frame.samples
            first = frame if first is None else first
            last = frame
            found += frame.samples
            yield frame
    if failed is not None and not found:
        raise failed
    _check_end(av, path, container, stream, first, last, found)


def _begin(frame: Any) -> float:
    """A frame's time stamp, in samples; 0 if it has none."""
    return (frame.pts or 0) * frame.sample_rate * frame.time_base.numerator / frame.time_base.denominator


def _check_end(av: Any, path: Path, container: Any, stream: Any, first: Any, last: Any, found: int) -> None:
    """`AudioError` if a stream ends before its header says."""
    name, rate = container.format.name, stream.codec_context.sample_rate
    # A part that was cut out of a longer file without decoding keeps the numbers and the header of the whole.
    if name in _OF_STATED_LENGTH and stream.duration and (first is None or not first.pts):
        _check_length(path, round(stream.duration * stream.time_base * rate), found)
    # Of Matroska the whole has a duration, not its streams; where FFmpeg guesses, it does for each stream.
    elif (
        name in _OF_STATED_END and len(container.streams) == 1 and not stream.duration and container.duration
    ):
        stated = container.duration / av.time_base
        seconds = 0.0 if last is None else (_begin(last) + last.samples) / last.sample_rate
        if seconds < stated - _END_TOLERANCE:
            raise AudioError(
                f"{path}: truncated or damaged; the header promises an end at {stated:.2f} s, it comes at "
                f"{seconds:.2f} s. Copy the file again"
            )


def _packets(av: Any, path: Path, container: Any, stream: Any, file: BinaryIO) -> Iterator[Any]:
    is_ogg, position = container.format.name == "ogg", 0
    try:
        for packet in container.demux(stream):
            position = position if packet.pos is None else packet.pos
            yield packet
    except (av.PatchWelcomeError, av.ArgumentError) as error:
        if not is_ogg:
            raise
        raise AudioError(
            f"{path}: its parts differ in codec, sample rate or number of channels ({_reason(error)}); expected "
            "a chain of equal ones. Convert its parts to one"
        ) from error
    except av.InvalidDataError:
        # Behind the last page, FFmpeg looks for another in vain.
        file.seek(position + 1)
        if not is_ogg or b"OggS" in file.read(_OGG_SEARCH_BYTES):
            raise


def _is_no_sound(container: str, codec: str, packet: bytes) -> bool:
    """Whether a packet is a tag among MP3 frames, or one of the headers that each part of a chained Ogg FLAC has."""
    if container == "ogg" and codec == "flac":
        return packet[:1] != b"\xff"
    return container == "mp3" and packet.startswith(_TAGS)


def _ffmpeg_blocks(av: Any, path: Path, first: Any, others: Iterator[Any]) -> Iterator[np.ndarray]:
    expected = _parameters(first)
    channels = first.layout.nb_channels
    dtype = np.dtype(np.int16 if first.format.name in _INT16_FORMATS else np.float32)
    is_planar = first.format.is_planar and channels <= _MOST_PLANES
    # Frames of this format already pass unchanged.
    converter = av.AudioResampler(format=("s16" if dtype == np.int16 else "flt") + ("p" if is_planar else ""))
    # Joining bytes takes a third of the time of `to_ndarray` and a concatenation.
    planes: list[list[bytes]] = [[] for _ in range(channels if is_planar else 1)]
    sample_bytes = dtype.itemsize * channels // len(planes)
    found = held = 0

    def block() -> np.ndarray:
        values = [np.frombuffer(b"".join(pieces), dtype) for pieces in planes]
        return np.stack(values, axis=1) if len(values) > 1 else values[0].reshape(-1, channels)

    for frame in itertools.chain([first], others, [None]):
        if frame is not None and _parameters(frame) != expected:
            raise AudioError(
                f"{path}: changes after sample {found + held} from {_described(expected)} to "
                f"{_described(_parameters(frame))}; expected one sample rate and number of channels. "
                "Convert its parts to one"
            )
        for converted in converter.resample(frame):
            if converted is not None:
                for pieces, plane in zip(planes, converted.planes, strict=True):
                    pieces.append(bytes(plane)[: converted.samples * sample_bytes])
                held += converted.samples
        if held * channels >= _DECODED_VALUES or (frame is None and held):
            yield block()
            planes = [[] for _ in planes]
            found, held = found + held, 0


def _parameters(frame: Any) -> tuple[str, int, int]:
    return frame.format.name, frame.sample_rate, frame.layout.nb_channels


def _described(parameters: tuple[str, int, int]) -> str:
    name, sample_rate, channels = parameters
    return f"{sample_rate} Hz, {channels} channels ({name})"
