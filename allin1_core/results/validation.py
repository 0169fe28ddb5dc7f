"""Validation of a result: what exports, figures and click tracks rely on, checked in one place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from allin1_core.audio.types import STEM_NAMES, Audio
from allin1_core.dbn.metrical import FRAMES_PER_SECOND
from allin1_core.errors import ResultError
from allin1_core.files.reading import file_digest
from allin1_core.files.writing import check_no_input, expand_user, identities
from allin1_core.separation.folder import audio_files
from allin1_core.separation.inputs import Input, PathLike
from allin1_core.separation.mix import read_mix
from allin1_core.structure import LABELS, Segment

if TYPE_CHECKING:
    from allin1_core.results.result import AnalysisResult

# A week: longer than any track that can be analysed.
_LONGEST_SECONDS = 7 * 24 * 3600
_HIGHEST_BPM = 60 * FRAMES_PER_SECOND
_LONGEST_BAR = 1000
# Of probabilities that are means of float32.
_ROUNDING = 1e-5


def validate(result: AnalysisResult, source: str | None = None) -> None:
    """Check that the fields of a result have their types and ranges, and agree with each other.

    All-In-One's own results keep the same rules: sections follow each other without a gap from 0 to the end of the
    track, beats ascend within it, downbeats are the beats at position 1, arrays have 100 frames a second.

    Parameters
    ----------
    result : AnalysisResult
    source : str, optional
        What messages call it: the file it was read from.

    Raises
    ------
    ResultError
        If something is amiss; the message names the field, what was found, and what was expected.
    """
    if not hasattr(result, "segments"):
        raise _fault("result", _shown(result), "an AnalysisResult, as analyze and load_result give it")
    try:
        if not isinstance(result.path, Path) or not result.path.name:
            raise _fault("path", _shown(result.path), "a pathlib.Path that names the track")
        if result.bpm is not None:
            _check_number("bpm", result.bpm, 0, _HIGHEST_BPM, "beats per minute, or null")
        _check_tempo(result.tempo, result.tempo_spread)
        end = _check_segments(result.segments)
        _check_beats(result, end)
        if result.confidences is not None:
            _check_confidences(result)
        _check_provenance(result.provenance)
        num_frames = round(end * FRAMES_PER_SECOND)
        if result.activations is not None:
            _check_activations(result.activations, num_frames)
        if result.embeddings is not None:
            _check_embeddings(result.embeddings, num_frames)
    except ResultError as error:
        raise ResultError(f"{source or f'result of {result.path}'}: {error}") from None


def _fault(field: str, found: str, expected: str) -> ResultError:
    return ResultError(f"{field}: found {found}; expected {expected}")


def _shown(value: Any) -> str:
    """A value for a message, short however large it is."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    is_short = value is None or isinstance(value, str | int | float | Path)
    return repr(value)[:80] if is_short else f"a value of type {type(value).__name__}"


def _check_type(field: str, value: Any, kind: type, expected: str) -> None:
    if not isinstance(value, kind):
        raise _fault(field, _shown(value), expected)


def _check_number(field: str, value: Any, least: float, most: float, unit: str) -> None:
    if not _is_number(value, least, most):
        raise _fault(field, _shown(value), f"a number from {least:g} to {most:g}, {unit}")


def _is_number(value: Any, least: float, most: float) -> bool:
    # Compared, not converted: digits may be too many for a float. NaN is in no range.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most


def _check_tempo(tempo: Any, spread: Any) -> None:
    if tempo is None and spread is None:
        return
    _check_number("tempo", tempo, 0, _HIGHEST_BPM, "beats per minute, or null as tempo_spread")
    if tempo == 0:
        raise _fault("tempo", _shown(tempo), "more than 0 beats per minute")
    _check_number("tempo_spread", spread, 0, _HIGHEST_BPM, "beats per minute, or null as tempo")


def _check_segments(segments: Any) -> float:
    """The end of the last one, in seconds."""
    _check_type("segments", segments, list, "a list of sections")
    if not segments:
        raise _fault("segments", "none", "at least one")
    end: float = 0
    for index, segment in enumerate(segments):
        field = f"segments[{index}]"
        _check_type(field, segment, Segment, "an object with start, end and label")
        _check_number(f"{field}.start", segment.start, 0, _LONGEST_SECONDS, "seconds")
        _check_number(f"{field}.end", segment.end, 0, _LONGEST_SECONDS, "seconds")
        if segment.start != end:
            raise _fault(f"{field}.start", _shown(segment.start), f"{end}, without gap or overlap")
        if segment.end <= segment.start:
            raise _fault(f"{field}.end", _shown(segment.end), f"more than its start, {segment.start}")
        if not isinstance(segment.label, str) or segment.label not in LABELS:
            raise _fault(f"{field}.label", _shown(segment.label), f"one of {', '.join(LABELS)}")
        end = segment.end
    return end


def _check_beats(result: AnalysisResult, end: float) -> None:
    beats, positions, downbeats = result.beats, result.beat_positions, result.downbeats
    _check_type("beats", beats, list, "a list of seconds")
    _check_type("beat_positions", positions, list, "a list of whole numbers")
    _check_type("downbeats", downbeats, list, "a list of seconds")
    if len(positions) != len(beats):
        raise _fault("beat_positions", f"{len(positions)}", f"{len(beats)}, one for each of the beats")
    expected = []
    # Names of fields are made for those alone that are amiss: there are hundreds.
    before: float = -1
    for index, (time, position) in enumerate(zip(beats, positions, strict=True)):
        if not _is_number(time, 0, end):
            _check_number(f"beats[{index}]", time, 0, end, "seconds within the sections")
        if time <= before:
            raise _fault(f"beats[{index}]", _shown(time), f"more than the one before, {before}")
        if not isinstance(position, int) or not _is_number(position, 1, _LONGEST_BAR):
            field = f"beat_positions[{index}]"
            _check_type(field, position, int, "a whole number")
            _check_number(field, position, 1, _LONGEST_BAR, "a position in the bar")
        if position == 1:
            expected.append(time)
        before = time
    if len(downbeats) != len(expected):
        raise _fault("downbeats", f"{len(downbeats)}", f"{len(expected)}, the beats at position 1")
    for index, (time, beat) in enumerate(zip(downbeats, expected, strict=True)):
        if isinstance(time, bool) or time != beat:
            raise _fault(f"downbeats[{index}]", _shown(time), f"{beat}, a beat at position 1")


def _check_confidences(result: AnalysisResult) -> None:
    confidences: Any = result.confidences
    counts = {
        "beats": len(result.beats),
        "downbeats": len(result.downbeats),
        "boundaries": len(result.segments) - 1,
        "labels": len(result.segments),
    }
    _check_type("confidences", confidences, dict, "an object")
    if confidences.keys() != counts.keys():
        raise _fault("confidences", ", ".join(map(str, confidences))[:200], ", ".join(counts))
    for name, count in counts.items():
        field, values = f"confidences.{name}", confidences[name]
        _check_type(field, values, list, "a list of probabilities")
        if len(values) != count:
            raise _fault(field, f"{len(values)}", f"{count}, one for each")
        for index, value in enumerate(values):
            _check_number(f"{field}[{index}]", value, 0, 1, "a probability")


def _check_provenance(provenance: Any) -> None:
    _check_type("provenance", provenance, dict, "an object")
    for name in ("model", "stages", "audio_sha256"):
        _check_type(f"provenance.{name}", provenance.get(name, {}), dict, "an object")
    for name, stage in provenance.get("stages", {}).items():
        _check_type(f"provenance.stages.{str(name)[:40]}", stage, dict, "an object")
    weights = provenance.get("model", {}).get("weights", [])
    _check_type("provenance.model.weights", weights, list, "a list")
    for index, fold in enumerate(weights):
        _check_type(f"provenance.model.weights[{index}]", fold, dict, "an object")
    try:
        json.dumps(provenance, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _fault("provenance", str(error), "what JSON can hold") from error


def _check_activations(activations: Any, num_frames: int) -> None:
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("beat", "downbeat", "segment"), (num_frames,))
    shapes["label"] = (len(LABELS), num_frames)
    _check_type("activations", activations, Mapping, "a dict of arrays")
    if activations.keys() != shapes.keys():
        raise _fault("activations", ", ".join(map(str, activations))[:200], ", ".join(shapes))
    for name, shape in shapes.items():
        least, most = _range(f"activations[{name!r}]", activations[name], shape)
        if not (least >= -_ROUNDING and most <= 1 + _ROUNDING):  # NaN is not, either
            raise _fault(
                f"activations[{name!r}]", f"values from {least} to {most}", "probabilities from 0 to 1"
            )


def _check_embeddings(embeddings: Any, num_frames: int) -> None:
    # The width is the network's; with an ensemble there is one more axis, of its folds.
    width = getattr(embeddings, "shape", ())[2:4] or (24,)
    least, most = _range("embeddings", embeddings, (len(STEM_NAMES), num_frames, *width))
    if not np.isfinite([least, most]).all():
        raise _fault("embeddings", f"values from {least} to {most}", "finite numbers")


def _range(field: str, array: Any, shape: tuple[int, ...]) -> tuple[float, float]:
    """The least and the greatest value of a float32 array of that shape; NaN where it holds NaN."""
    expected = f"float32 {shape}, {FRAMES_PER_SECOND} frames a second"
    _check_type(field, array, np.ndarray, expected)
    if array.dtype != np.float32 or array.shape != shape or not array.size:
        raise _fault(field, f"{array.dtype} {array.shape}", expected)
    return float(array.min()), float(array.max())


def check_audio(result: AnalysisResult) -> None:
    """Check that the files at the path of a result, as far as they are there, are those that were analysed.

    Raises
    ------
    ResultError
        If one has another SHA-256 than the result records.
    AudioError
        If one cannot be read.
    """
    recorded = result.provenance.get("audio_sha256", {})
    is_folder = os.path.isdir(result.path)
    for name, expected in recorded.items():
        path = result.path / name if is_folder else result.path
        if path.name == name and os.path.isfile(path) and (found := file_digest(path)) != expected:
            raise ResultError(
                f"{path}: found SHA-256 {found[:12]}...; expected {str(expected)[:12]}..., of the audio that was "
                "analysed. Analyse it again, or name the audio (audio=, --audio)"
            )


def check_outputs(result: AnalysisResult, outputs: Iterable[Path], audio: Input | None = None) -> None:
    """Raise `OptionError` if a file to be written is the audio at the path of a valid result, or of `audio`."""
    inputs = [result.path, *([expand_user(audio)] if isinstance(audio, str | os.PathLike) else [])]
    check_no_input(outputs, identities(file for path in inputs for file in audio_files(path)))


def check_of_several(**of_one: Any) -> None:
    """Raise `ResultError` if something is given for several results that one alone can have."""
    for name, value in of_one.items():
        if value is not None:
            raise ResultError(
                f"{name}: given with several results; expected with a single one. Call it for each"
            )


def with_mix(
    result: Any, stems_dir: PathLike | None = None, audio: Input | None = None
) -> tuple[AnalysisResult, Audio]:
    """A result that is checked, and the mix of its track: of `audio`, or of its path if that is what was analysed.

    Raises
    ------
    ResultError
        If the result is not valid, or the audio at its path another.
    AudioError, StemsError
        If the mix cannot be read.
    """
    validate(result)
    if audio is None:
        check_audio(result)
    return result, read_mix(result.path, stems_dir, audio)
