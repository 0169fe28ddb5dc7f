"""Audio files as encoders write them, made with PyAV and libsndfile."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np
import soundfile

from allin1_core.audio.reading import read_audio
from allin1_core.audio.types import Audio

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def music(seconds: float, channels: int = 1, sample_rate: int = 48000) -> np.ndarray:
    """A few tones and noise, ``int16 (num_samples, num_channels)``."""
    time = np.arange(int(seconds * sample_rate))[:, None] / sample_rate
    tones = sum(np.sin(2 * np.pi * frequency * time) for frequency in (110, 440, 3520))
    noise = np.random.default_rng(7).standard_normal((len(time), channels))
    return np.int16(6000 * tones + 2000 * noise)


STEREO = music(1.0, 2, 44100)


def read(folder: Path, content: bytes) -> Audio:
    """Read a file whose name says nothing."""
    path = folder / "song.audio"
    path.write_bytes(content)
    return read_audio(path)


def written(container: str, subtype: str, samples: np.ndarray, sample_rate: int = 44100) -> bytes:
    """A file with ``int16 (num_samples, num_channels)`` in that container and subtype, as libsndfile names both."""
    file = io.BytesIO()
    # libsndfile does not scale integers when it writes them as float.
    values = samples / 32768 if subtype in ("FLOAT", "DOUBLE") else samples
    soundfile.write(file, values, sample_rate, format=container, subtype=subtype)
    return file.getvalue()


def encoded(
    samples: np.ndarray,
    codec: str,
    container: str,
    *,
    sample_rate: int = 48000,
    sample_format: str = "",
    bit_rate: int = 0,
    frame_size: int = 0,
    options: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    start: int = 0,
    gap: int = 0,
) -> bytes:
    """A file with ``int16 (num_samples, num_channels)`` in that codec and container, as FFmpeg names both.

    Parameters
    ----------
    options, metadata : mapping
        Of the container.
    frame_size : int
        Samples of a frame, where the codec lets it be chosen.
    start : int
        Time stamp of the first sample, in samples.
    gap : int
        Samples by which the time stamps jump in the middle.
    """
    file = io.BytesIO()
    layout = LAYOUTS[samples.shape[1]]
    with av.open(file, "w", format=container, options=dict(options or {})) as output:
        output.metadata.update(metadata or {})
        stream = output.add_stream(codec, rate=sample_rate, layout=layout)
        if sample_format:
            stream.format = sample_format
        if bit_rate:
            stream.bit_rate = bit_rate
        if frame_size:
            stream.options = {"frame_size": str(frame_size)}
        context = stream.codec_context
        context.open()
        size = context.frame_size or 4096
        converter = av.AudioResampler(format=context.format.name)
        for position in range(0, len(samples), size):
            piece = np.ascontiguousarray(samples[position : position + size]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
            frame.sample_rate = sample_rate
            frame.pts = start + position + (gap if position >= len(samples) // 2 else 0)
            for converted in converter.resample(frame):
                output.mux(stream.encode(converted))
        output.mux(stream.encode(None))
    return file.getvalue()


def cut_without_decoding(content: bytes, start: int, container: str) -> tuple[bytes, int]:
    """The packets from a time stamp on, as ``ffmpeg -ss ... -c copy`` takes them, and the time stamp of the first."""
    file, first = io.BytesIO(), None
    with av.open(io.BytesIO(content)) as whole, av.open(file, "w", format=container) as part:
        stream = part.add_stream_from_template(whole.streams.audio[0])
        for packet in whole.demux(audio=0):
            if packet.pts is not None and packet.pts >= start:
                first = packet.pts if first is None else first
                packet.stream = stream
                part.mux(packet)
    assert first is not None
    return file.getvalue(), first


def decoded(content: bytes) -> np.ndarray:
    """What a plain loop over PyAV's frames gives: ``(num_samples, num_channels)`` in the decoder's own dtype."""
    pieces = []
    with av.open(io.BytesIO(content)) as container:
        for frame in container.decode(audio=0):
            values = frame.to_ndarray()
            pieces.append(
                values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
            )
    return np.concatenate(pieces)
