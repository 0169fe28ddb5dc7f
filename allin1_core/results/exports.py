"""Export of a result to the formats of other tools: ``.beats`` lists, Audacity labels, JAMS, and tempo maps."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

from allin1_core.errors import ResultError
from allin1_core.files.writing import expand_user, make_folder, written_whole
from allin1_core.results.result import AnalysisResult
from allin1_core.results.validation import check_outputs, validate

JAMS_MISSING = "JAMS export needs the package 'jams'; pip install 'allin1-core[jams]'"


def beats_text(result: AnalysisResult) -> str:
    """One beat a line: time in seconds, tab, position in the bar (the form of madmom and of beat_this).

    Raises
    ------
    ResultError
        If the result is not valid.
    """
    validate(result)
    return beats_lines(result.beats, result.beat_positions)


def beats_lines(times: list[float], positions: list[int]) -> str:
    """Time in seconds, tab, position in the bar, a line each: two decimals, or six where frames are no hundredths."""
    decimals = 2 if all(abs(time - round(time, 2)) < 1e-9 for time in times) else 6
    return "".join(
        f"{time:.{decimals}f}\t{position}\n" for time, position in zip(times, positions, strict=True)
    )


def audacity_text(result: AnalysisResult) -> str:
    """A label track for Audacity (File > Import > Labels): sections as regions, then beats as points.

    Raises
    ------
    ResultError
        If the result is not valid.
    """
    validate(result)
    lines = [f"{segment.start:.6f}\t{segment.end:.6f}\t{segment.label}\n" for segment in result.segments]
    lines += [
        f"{time:.6f}\t{time:.6f}\t{position}\n"
        for time, position in zip(result.beats, result.beat_positions, strict=True)
    ]
    return "".join(lines)


def jams_text(result: AnalysisResult) -> str:
    """A JAMS document with the annotations ``beat``, ``beat_position``, ``segment_open`` and ``tempo``.

    Raises
    ------
    ResultError
        If the result is not valid, or the package ``jams`` is not installed.
    """
    from allin1_core.results.tempo_maps import bar_lengths

    validate(result)
    try:
        import jams
    except ModuleNotFoundError as error:
        raise ResultError(JAMS_MISSING) from error
    duration = result.segments[-1].end
    document = jams.JAMS()
    document.file_metadata.title = result.path.stem
    document.file_metadata.duration = duration
    tools = f"allin1-core {result.provenance.get('allin1_core_version', '')}".strip()

    def annotate(namespace: str) -> jams.Annotation:
        metadata = jams.AnnotationMetadata(annotation_tools=tools, data_source="program")
        annotation = jams.Annotation(namespace, annotation_metadata=metadata, time=0, duration=duration)
        document.annotations.append(annotation)
        return annotation

    beats, positions = annotate("beat"), annotate("beat_position")
    lengths = bar_lengths(result)
    measure = length = 0  # of an upbeat
    for index, (time, position) in enumerate(zip(result.beats, result.beat_positions, strict=True)):
        measure, length = measure + (position == 1), lengths.get(index, length)
        value = {"position": position, "measure": measure, "num_beats": length, "beat_units": 4}
        beats.append(time=time, duration=0, value=position)
        positions.append(time=time, duration=0, value=value)
    segments = annotate("segment_open")
    for segment in result.segments:
        segments.append(time=segment.start, duration=segment.end - segment.start, value=segment.label)
    tempo = result.bpm if result.tempo is None else result.tempo
    if tempo is not None:
        annotate("tempo").append(time=0, duration=duration, value=tempo, confidence=1)
    text = io.StringIO()
    document.save(text)
    return text.getvalue()


# Suffix of the files of each format.
FORMATS = {
    "beats": ".beats",
    "audacity": ".labels.txt",
    "jams": ".jams",
    "midi": ".mid",
    "reaper": ".rpp",
    "rekordbox": ".rekordbox.xml",
}


def export(result: AnalysisResult, path: str | os.PathLike[str], file_format: str) -> Path:
    """Write a result in another format.

    Parameters
    ----------
    result : AnalysisResult
    path : path-like
        File to write; its folder is created.
    file_format : str
        A key of `FORMATS`.

    Raises
    ------
    ResultError
        If the format is unknown or cannot hold this result, its package is not installed, or the result is not valid;
        see `allin1_core.results.validation`.
    OptionError
        If it would be written over the audio that was analysed.
    OutputError
        If the file cannot be written.
    """
    if file_format not in FORMATS:
        raise ResultError(f"format {file_format!r}: unknown; expected one of {', '.join(FORMATS)}")
    from allin1_core.results import tempo_maps

    makers: dict[str, Callable[[AnalysisResult], str | bytes]] = {
        "beats": beats_text,
        "audacity": audacity_text,
        "jams": jams_text,
        "midi": tempo_maps.midi_bytes,
        "reaper": tempo_maps.reaper_text,
        "rekordbox": tempo_maps.rekordbox_text,
    }
    content = makers[file_format](result)
    path = expand_user(path)
    check_outputs(result, [path])
    make_folder(path.parent)
    with written_whole(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path
