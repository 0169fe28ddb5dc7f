"""Tempo maps of a result for sequencers and DJ software: Standard MIDI File, Reaper project, Rekordbox collection.

All three put every beat to its own time, whatever the tempo does: one tempo from each beat to the next. A bar is as
many quarters as it has beats, and begins on its downbeat. The time before the first beat is filled by bars of its own,
because a bar line can stand only where a bar is over.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import struct
import urllib.parse

from allin1_core.errors import ResultError, printable
from allin1_core.results.result import AnalysisResult
from allin1_core.results.validation import validate

# Ticks of a quarter. A tempo of MIDI, 24 bits of microseconds, makes the longest tick 1.75 ms: what is rounded to ticks
# is true to a millisecond at any tempo.
_TICKS = 9600
_LONGEST_QUARTER = (1 << 24) - 1
_LARGEST_DELTA = (1 << 28) - 1
_LONGEST_BAR = 255
_SMALLEST_NOTE = 64
# Seconds from a beat to the next where there is none: MIDI's own default.
_DEFAULT_INTERVAL = 0.5
# Seconds: a beat this far from the grid that Rekordbox draws begins a new grid.
_TOLERANCE = 0.0004


@dataclasses.dataclass(frozen=True)
class TempoChange:
    """Where a tempo map goes on at another tempo.

    Attributes
    ----------
    time : float
        Seconds.
    tick : int
        9,600 a quarter.
    bpm : float
        Quarters per minute from here on.
    signature : (int, int) or None
        Numerator and denominator of the bars from here on; None where they go on as before.
    """

    time: float
    tick: int
    bpm: float
    signature: tuple[int, int] | None


def tempo_map(result: AnalysisResult) -> list[TempoChange]:
    """A tempo for each beat, a time signature where the bars change, and bars that lead to the first beat.

    Raises
    ------
    ResultError
        If the result is not valid.
    """
    validate(result)
    beats = result.beats
    if not beats:
        return [TempoChange(0.0, 0, 60 / _DEFAULT_INTERVAL, (4, 4))]
    meters = _meters(result)
    intervals = _intervals(beats)
    changes, tick, current = [], 0, None
    if beats[0] >= 0.0005:
        lengths = list(meters.values())
        most_common = max(dict.fromkeys(lengths), key=lengths.count)
        numerator, denominator, quarters = _lead_in(beats[0], intervals[0], most_common)
        current = (numerator, denominator)
        changes.append(TempoChange(0.0, 0, 60 * quarters / beats[0], current))
        tick = round(quarters * _TICKS)
    for index, (time, interval) in enumerate(zip(beats, intervals, strict=True)):
        signature = (meters[index], 4) if index in meters else current
        changes.append(TempoChange(time, tick, 60 / interval, signature if signature != current else None))
        current, tick = signature, tick + _TICKS
    return changes


def _intervals(beats: list[float]) -> list[float]:
    """Seconds from each beat to the next; the last one's is that before it."""
    intervals = [after - time for time, after in itertools.pairwise(beats)]
    return [*intervals, intervals[-1] if intervals else _DEFAULT_INTERVAL]


def _meters(result: AnalysisResult) -> dict[int, int]:
    """How many beats the bar has that begins at a beat of this index; the first one may lack its beginning."""
    positions = result.beat_positions
    starts = [i for i, position in enumerate(positions) if i == 0 or position <= positions[i - 1]]
    meters = {start: end - start for start, end in zip(starts, [*starts[1:], len(positions)], strict=True)}
    # The last bar may lack its end: it goes on as the one before, unless that lacks its beginning.
    is_usual = len(starts) > 2 or (len(starts) == 2 and positions[0] == 1)
    usual = meters[starts[-2]] if is_usual else max(positions)
    meters[starts[-1]] = max(meters[starts[-1]], usual)
    return meters


def bar_lengths(result: AnalysisResult) -> dict[int, int]:
    """As `_meters`, by position: the first bar of a song that begins with an upbeat has all its beats."""
    positions = result.beat_positions
    meters = _meters(result) if positions else {}
    return {start: max(meter, *positions[start : start + meter]) for start, meter in meters.items()}


def _lead_in(seconds: float, interval: float, meter: int) -> tuple[int, int, float]:
    """Time signature and quarters of the bars before the first beat.

    Whole bars where there is room for one; else a bar of as many quarters, or of as large a note, as come nearest to
    the tempo of the first beat.
    """
    if seconds >= interval * meter:
        return meter, 4, float(meter * round(seconds / (interval * meter)))
    denominator = 4
    while seconds < interval * 2 / denominator and denominator < _SMALLEST_NOTE:
        denominator *= 2
    numerator = max(1, round(seconds / (interval * 4 / denominator)))
    return numerator, denominator, numerator * 4 / denominator


def midi_bytes(result: AnalysisResult) -> bytes:
    """A Standard MIDI File without notes: tempo and time signatures of the beats, a marker for each section.

    Tempi are whole microseconds a quarter, each from where the ones before have led, so that errors do not add up.

    Raises
    ------
    ResultError
        If the result is not valid, or its beats are further apart, or its bars longer, than MIDI can say.
    """
    changes = tempo_map(result)
    for time, next_time in itertools.pairwise(result.beats):
        _tempo(result, (next_time - time) * 1e6, f"from the beat at {time} s to the next")
    events = []
    elapsed = 0.0  # microseconds, as a reader of the file adds them up
    for change, after in zip(changes, [*changes[1:], None], strict=True):
        if change.signature is not None:
            numerator, denominator = change.signature
            if numerator > _LONGEST_BAR:
                raise ResultError(
                    f"{result.path}: found a bar of {numerator} beats at {change.time} s; a MIDI file takes up to "
                    f"{_LONGEST_BAR}. Export another format"
                )
            meta = struct.pack("4B", numerator, denominator.bit_length() - 1, 96 // denominator, 8)
            events.append((change.tick, _meta(0x58, meta)))
        quarters = 1.0 if after is None else (after.tick - change.tick) / _TICKS
        end = elapsed + quarters * 60e6 / change.bpm if after is None else after.time * 1e6
        tempo = _tempo(result, (end - elapsed) / quarters, f"for each quarter from {change.time} s on")
        elapsed += tempo * quarters
        events.append((change.tick, _meta(0x51, tempo.to_bytes(3, "big"))))
    for segment in result.segments:
        events.append((_tick(changes, segment.start), _meta(0x06, segment.label.encode())))
    events.append((_tick(changes, result.segments[-1].end), _meta(0x2F, b"")))
    track, last = b"", 0
    for tick, event in sorted(events, key=lambda item: item[0]):
        if tick - last > _LARGEST_DELTA:
            raise ResultError(
                f"{result.path}: found {tick - last} ticks without a beat or section; a MIDI file takes up to "
                f"{_LARGEST_DELTA}. Export another format"
            )
        track += _variable_length(tick - last) + event
        last = tick
    # Of format 1 the first track is the tempo map.
    header = struct.pack(">4sIHHH", b"MThd", 6, 1, 1, _TICKS)
    return header + struct.pack(">4sI", b"MTrk", len(track)) + track


def _tempo(result: AnalysisResult, microseconds: float, where: str) -> int:
    """Whole microseconds of a quarter; `ResultError` if they are more or fewer than MIDI can say."""
    tempo = round(microseconds)
    if not 1 <= tempo <= _LONGEST_QUARTER:
        raise ResultError(
            f"{result.path}: found {microseconds / 1e6:g} s {where}; a MIDI file takes from 0.000001 to "
            f"{_LONGEST_QUARTER / 1e6:.2f} s. Export another format"
        )
    return tempo


def _tick(changes: list[TempoChange], time: float) -> int:
    change = next(change for change in reversed(changes) if change.time <= time or change.tick == 0)
    # A first beat that is as good as at 0 is at tick 0, and so is what begins before it.
    return change.tick + round(max(0.0, time - change.time) * change.bpm / 60 * _TICKS)


def _meta(kind: int, content: bytes) -> bytes:
    return bytes([0xFF, kind]) + _variable_length(len(content)) + content


def _variable_length(number: int) -> bytes:
    """Seven bits a byte, the highest first; all but the last have the eighth bit set."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F | 0x80)
    return bytes(reversed(groups))


def reaper_text(result: AnalysisResult) -> str:
    """A Reaper project without tracks: a tempo marker for each beat, a region for each section.

    Raises
    ------
    ResultError
        If the result is not valid.
    """
    changes = tempo_map(result)
    numerator, denominator = changes[0].signature or (4, 4)
    lines = ['<REAPER_PROJECT 0.1 "7.0" 0', f"  TEMPO {changes[0].bpm:.10f} {numerator} {denominator}"]
    for number, segment in enumerate(result.segments, start=1):
        lines.append(f'  MARKER {number} {segment.start:.12f} "{segment.label}" 1')
        lines.append(f'  MARKER {number} {segment.end:.12f} "" 1')
    lines += ["  <TEMPOENVEX", "    ACT 1 -1", "    VIS 1 0 1", "    LANEHEIGHT 0 0", "    ARM 0"]
    lines.append("    DEFSHAPE 1 -1 -1")
    for change in changes:
        # Shape 1: the tempo stays until the next. A signature is 65,536 denominators and the numerator.
        point = f"    PT {change.time:.12f} {change.bpm:.10f} 1"
        if change.signature is not None:
            numerator, denominator = change.signature
            point += f" {denominator << 16 | numerator} 0 1"
        lines.append(point)
    return "\n".join([*lines, "  >", ">", ""])


def rekordbox_text(*results: AnalysisResult) -> str:
    """A collection for Rekordbox, XML: the beat grid of each track, and a memory cue at the start of each section.

    Parameters
    ----------
    *results : AnalysisResult
        The tracks of the collection; Rekordbox knows each by its path.

    Raises
    ------
    ResultError
        If a result is not valid.
    """
    from xml.etree import ElementTree

    root = ElementTree.Element("DJ_PLAYLISTS", Version="1.0.0")
    ElementTree.SubElement(root, "PRODUCT", Name="allin1-core", Version="", Company="")
    collection = ElementTree.SubElement(root, "COLLECTION", Entries=str(len(results)))
    for number, result in enumerate(results, start=1):
        validate(result)
        attributes = {
            "TrackID": str(number),
            "Name": printable(result.path.stem),
            "TotalTime": str(round(result.segments[-1].end)),
            "Location": "file://localhost/" + urllib.parse.quote(os.fsencode(result.path).lstrip(b"/"), ":/"),
        }
        if result.bpm is not None:
            attributes["AverageBpm"] = f"{result.bpm if result.tempo is None else result.tempo:.2f}"
        track = ElementTree.SubElement(collection, "TRACK", attributes)
        for grid in _grids(result):
            ElementTree.SubElement(track, "TEMPO", grid)
        for segment in result.segments:
            cue = {"Name": segment.label, "Type": "0", "Start": f"{segment.start:.3f}", "Num": "-1"}
            ElementTree.SubElement(track, "POSITION_MARK", cue)
    playlists = ElementTree.SubElement(root, "PLAYLISTS")
    ElementTree.SubElement(playlists, "NODE", Type="0", Name="ROOT", Count="0")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _grids(result: AnalysisResult) -> list[dict[str, str]]:
    """Grids of even beats, each until the next begins; none where there are not two beats to tell a tempo from."""
    beats, positions = result.beats, result.beat_positions
    if len(beats) < 2:
        return []
    meters = bar_lengths(result)
    times = [round(time, 3) for time in beats]
    grids: list[dict[str, str]] = []
    meter, period, expected, position = 0, 0.0, -math.inf, 0
    for index, (time, interval) in enumerate(zip(times, _intervals(times), strict=True)):
        current = meters.get(index, meter)
        is_beat = abs(time - expected) <= _TOLERANCE and positions[index] == position % current + 1
        ahead = time + interval - expected - period
        # A grid ahead of the next beat would draw one beat more where another grid begins at that.
        if current != meter or not is_beat or not -_TOLERANCE <= ahead <= 1e-6:
            # Rounded down for the same reason.
            bpm = max(math.floor(6000 / max(interval, 0.001) + 1e-6) / 100, 0.01)
            grid = {"Inizio": f"{time:.3f}", "Bpm": f"{bpm:.2f}"}
            grids.append({**grid, "Metro": f"{current}/4", "Battito": str(positions[index])})
            meter, period, expected = current, 60 / bpm, time
        expected += period
        position = positions[index]
    return grids
