"""A page of a result: one HTML file that shows its beats, sections and activations over the song, and plays it."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core.audio.conversion import as_float32, resample
from allin1_core.audio.types import STEM_NAMES, Audio, Stems
from allin1_core.dbn.metrical import FRAMES_PER_SECOND
from allin1_core.errors import AudioError, StemsError, printable
from allin1_core.files.writing import expand_user, make_folder, write_text
from allin1_core.results.differences import differences
from allin1_core.results.result import AnalysisResult
from allin1_core.results.summary import COLOURS, summary
from allin1_core.results.validation import check_audio, check_outputs, validate
from allin1_core.separation import find_stems, read_stems
from allin1_core.separation.inputs import Input, PathLike, check_samples
from allin1_core.separation.mix import read_mix
from allin1_core.structure import LABELS
from allin1_core.threads import ThreadPool

_TEMPLATE = Path(__file__).with_name("page.html")
_DATA, _TITLE, _AUDIO = "@DATA@", "@TITLE@", "@AUDIO@"
_PEAKS_PER_SECOND = 200
# Frames of the probabilities of functions that are shown as one.
_FUNCTION_FRAMES = 10
# Opus: it states how many samples precede the sound, so that every browser plays it at the same time. In pieces, which
# a page decodes one after the other, an hour takes no more memory than a minute. Each begins so much earlier than it is
# played that the codec has heard what comes before.
_SAMPLE_RATE = 48000
_PIECE_SECONDS, _LEAD_SECONDS = 10, 0.08
_BITS_PER_SECOND = {1: 64_000, 2: 112_000}
# Between a result and its audio.
_LARGEST_DIFFERENCE = 1.0


def write_page(
    result: AnalysisResult,
    path: PathLike,
    *,
    audio: Input | None = None,
    stems: bool = False,
    against: AnalysisResult | None = None,
) -> Path:
    """Write the page of a result; parameters and errors are those of `page`, and `OutputError`.

    It is not written over the result's audio: `OptionError`.
    """
    path = expand_user(path)
    validate(result)
    check_outputs(result, [path], audio)
    text = page(result, audio=audio, stems=stems, against=against)
    make_folder(path.parent)
    return write_text(path, text)


def page(
    result: AnalysisResult,
    *,
    audio: Input | None = None,
    stems: bool = False,
    against: AnalysisResult | None = None,
) -> str:
    """The HTML of a page that needs no network and no other file.

    Parameters
    ----------
    result : AnalysisResult
        With activations, they are shown.
    audio : path-like, Audio, Stems or binary file object, optional
        What is drawn and played; by default the `path` of the result. If nothing is there, the page has no sound, and
        says so.
    stems : bool
        Draw and play the stems one by one, of a folder of stems or a stem file.
    against : AnalysisResult, optional
        Another result of the song, laid over this one, with their differences marked.

    Raises
    ------
    ResultError
        If a result is not valid, the two are of songs of different lengths, or the audio at the path of the result is
        not that which was analysed.
    AudioError, StemsError
        If the audio cannot be read, holds no stems that are asked for, or is of another length than the result.
    """
    validate(result)
    results = [result] if against is None else [result, against]
    is_silent = audio is None and not os.path.exists(result.path)
    sound = {} if is_silent else _sound(result, audio, stems)
    name = printable(result.path.name)
    content: dict[str, Any] = {
        "name": name,
        "about": "; ".join([summary(result), *_made_by(result)]),
        "note": None,
        "duration": result.segments[-1].end,
        "results": [_model(one) for one in results],
        "differences": None if against is None else differences(result, against),
        "colours": COLOURS,
        "labels": LABELS,
        "fps": FRAMES_PER_SECOND,
        "functionsPerSecond": FRAMES_PER_SECOND / _FUNCTION_FRAMES,
        **_probabilities(result.activations),
        "peaksPerSecond": _PEAKS_PER_SECOND,
        "waves": [],
        "audio": None,
    }
    pieces: list[str] = []
    if is_silent:
        content["note"] = (
            f"There is no audio at {printable(str(result.path))}: this page has neither sound nor waveform. "
            "Name the audio to have them (--audio)."
        )
    else:
        total, gain = next(iter(sound.values())), 1.0
        if len(sound) > 1:
            summed = np.sum([stem.samples for stem in sound.values()], axis=0)
            gain = 1 / max(1.0, float(np.abs(summed).max()))
            total = Audio(summed * np.float32(gain), total.sample_rate)
        waves = {"mix": total, **(sound if len(sound) > 1 else {})}
        content["waves"] = [{"name": name, "peaks": _base64(peaks(wave))} for name, wave in waves.items()]
        seconds = {"seconds": _PIECE_SECONDS, "lead": _LEAD_SECONDS}
        content["audio"] = {"streams": list(sound), "rate": _SAMPLE_RATE, "gain": gain, **seconds}
        pieces = _encoded(sound)
    # As an element of HTML it ends at the first "</script".
    data = json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {_TITLE: html.escape(name), _DATA: data, _AUDIO: "\n".join(pieces)}
    split = re.split(f"({'|'.join(parts)})", _TEMPLATE.read_text(encoding="utf-8"))
    return "".join(parts.get(piece, piece) for piece in split)


def _model(result: AnalysisResult) -> dict[str, Any]:
    return {
        "beats": result.beats,
        "positions": result.beat_positions,
        "segments": [[segment.start, segment.end, segment.label] for segment in result.segments],
    }


def _made_by(result: AnalysisResult) -> list[str]:
    model = result.provenance.get("model", {}).get("name")
    version = result.provenance.get("allin1_core_version")
    return [*([f"model {model}"] if model else []), *([f"allin1-core {version}"] if version else [])]


def _probabilities(activations: Mapping[str, np.ndarray] | None) -> dict[str, Any]:
    """In 16 bits beat, downbeat and section, in 8 bits functions, each the mean over 0.1 s."""
    if activations is None:
        return {"activations": None, "functions": None}
    curves = {
        name: _base64(np.rint(np.clip(activations[name], 0, 1) * 65535).astype("<u2"))
        for name in ("beat", "downbeat", "segment")
    }
    labels = activations["label"]
    starts = np.arange(0, labels.shape[1], _FUNCTION_FRAMES)
    lengths = np.diff([*starts, labels.shape[1]])
    means = np.add.reduceat(labels, starts, axis=1) / lengths
    return {"activations": curves, "functions": _base64(np.rint(np.clip(means, 0, 1) * 255).astype(np.uint8))}


def _sound(result: AnalysisResult, audio: Input | None, stems: bool) -> dict[str, Audio]:
    """What is drawn and played, float32: the mix, or the stems, each mono."""
    if audio is None:
        check_audio(result)
    if not stems:
        sound = {"mix": read_mix(result.path, audio=audio)}
    else:
        source: Any = result.path if audio is None else audio
        if isinstance(source, str | os.PathLike):
            path = expand_user(source)
            files = find_stems(path)
            if files is None:
                raise StemsError(
                    f"{path}: found a mix; expected a folder of stems or a stem file. Name one (--audio), or leave out "
                    "the stems"
                )
            source = read_stems(files, str(path))
        if not isinstance(source, Stems):
            raise StemsError(f"audio: found {type(source).__name__}; expected Stems or the path of some")
        check_samples(source)
        rows = zip(STEM_NAMES, source.samples, strict=True)
        sound = {name: Audio(as_float32(row)[:, np.newaxis], source.sample_rate) for name, row in rows}
    seconds, expected = next(iter(sound.values())).seconds, result.segments[-1].end
    if abs(seconds - expected) > _LARGEST_DIFFERENCE:
        name = result.path if audio is None else audio if isinstance(audio, str | os.PathLike) else "audio"
        raise AudioError(
            f"{name}: {seconds:.2f} s long; expected the {expected:.2f} s of the "
            "result. Name the audio that was analysed (--audio)"
        )
    return sound


def peaks(audio: Audio) -> np.ndarray:
    """Least and greatest sample of each two-hundredth of a second, over all channels.

    Parameters
    ----------
    audio : Audio
        float32.

    Returns
    -------
    int8 (num_spans, 2)
        Full scale is 127.
    """
    low, high = audio.samples.min(axis=1), audio.samples.max(axis=1)
    count = -(-len(low) * _PEAKS_PER_SECOND // audio.sample_rate)
    starts = np.arange(count, dtype=np.int64) * audio.sample_rate // _PEAKS_PER_SECOND
    pairs = np.stack([np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)], axis=1)
    return np.rint(127 * np.clip(pairs, -1, 1)).astype(np.int8)


def _encoded(sound: Mapping[str, Audio]) -> list[str]:
    """Ogg files in base64: the pieces of the first stream, then those of the next."""
    length, lead = _PIECE_SECONDS * _SAMPLE_RATE, round(_LEAD_SECONDS * _SAMPLE_RATE)
    pieces: list[np.ndarray] = []
    for audio in sound.values():
        samples = audio.samples
        if samples.shape[1] not in _BITS_PER_SECOND:
            samples = samples.mean(axis=1, keepdims=True)
        samples = resample(samples, audio.sample_rate, _SAMPLE_RATE)
        starts = range(0, len(samples), length)
        pieces += [samples[max(0, start - lead) : start + length] for start in starts]
    # Encoding releases the interpreter's lock.
    with ThreadPool(name="page") as pool:
        return pool.map(lambda piece: base64.b64encode(_ogg(piece)).decode(), pieces)


def _ogg(samples: np.ndarray) -> bytes:
    """An Ogg file with Opus, the same for the same samples ``float32 (num_samples, 1 or 2)``."""
    import av

    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    content = io.BytesIO()
    with av.open(content, "w", format="ogg", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libopus", rate=_SAMPLE_RATE, layout=layout)
        stream.bit_rate = _BITS_PER_SECOND[samples.shape[1]]
        stream.format = "flt"
        frame = av.AudioFrame.from_ndarray(
            np.clip(samples, -1, 1).reshape(1, -1), format="flt", layout=layout
        )
        frame.rate = _SAMPLE_RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return content.getvalue()


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
