"""Differences between two results of a song: beats that moved, are missing or have another position, and sections."""

from __future__ import annotations

import itertools
from typing import Any

from allin1_core.dbn.metrical import BEAT_TOLERANCE
from allin1_core.errors import ResultError
from allin1_core.results.result import AnalysisResult
from allin1_core.results.validation import validate

# Seconds up to which beats are the same ones at the same time.
SAME = 0.001
_ROUNDING = 1e-9
_LARGEST_DIFFERENCE = 1.0
KINDS = ("same", "moved", "position", "only here", "only there")


def differences(result: AnalysisResult, other: AnalysisResult) -> dict[str, Any]:
    """What differs between two results of a song.

    Parameters
    ----------
    result, other : AnalysisResult

    Returns
    -------
    dict, ready for JSON
        ``beats``: ``(index, index in the other, kind)`` of each beat of either, in order; an index is None where the
        other has no beat within 70 ms. Kinds: ``same`` (up to 1 ms apart), ``moved`` (up to 70 ms), ``position`` (in
        the bar, which differs), ``only here``, ``only there``. ``counts``: by kind. ``sections``: ``(start, end, label,
        label of the other)`` of the spans, in seconds, longer than 1 ms, whose labels differ. ``times``: where
        differences begin, in seconds, ascending.

    Raises
    ------
    ResultError
        If a result is not valid, or they are of songs whose lengths differ by more than a second.
    """
    validate(result)
    validate(other)
    ends = result.segments[-1].end, other.segments[-1].end
    if abs(ends[0] - ends[1]) > _LARGEST_DIFFERENCE:
        raise ResultError(
            f"{other.path}: {ends[1]:.2f} s long, {result.path}: {ends[0]:.2f} s; expected two results of one song"
        )
    beats = _matched(result, other)
    sections = _sections(result, other)
    times = {result.beats[ours] for ours, _, kind in beats if ours is not None and kind != "same"}
    times |= {other.beats[theirs] for ours, theirs, _ in beats if ours is None and theirs is not None}
    return {
        "beats": beats,
        "counts": {kind: sum(row[2] == kind for row in beats) for kind in KINDS},
        "sections": sections,
        "times": sorted(times | {row[0] for row in sections}),
    }


def _matched(result: AnalysisResult, other: AnalysisResult) -> list[tuple[int | None, int | None, str]]:
    matched: list[tuple[int | None, int | None, str]] = []
    ours = theirs = 0
    while ours < len(result.beats) or theirs < len(other.beats):
        here = result.beats[ours] if ours < len(result.beats) else float("inf")
        there = other.beats[theirs] if theirs < len(other.beats) else float("inf")
        if abs(there - here) <= BEAT_TOLERANCE + _ROUNDING:
            is_same_position = result.beat_positions[ours] == other.beat_positions[theirs]
            is_moved = abs(there - here) > SAME + _ROUNDING
            matched.append(
                (ours, theirs, "moved" if is_moved else "same" if is_same_position else "position")
            )
            ours, theirs = ours + 1, theirs + 1
        elif here < there:
            matched.append((ours, None, "only here"))
            ours += 1
        else:
            matched.append((None, theirs, "only there"))
            theirs += 1
    return matched


def _sections(
    result: AnalysisResult, other: AnalysisResult
) -> list[tuple[float, float, str | None, str | None]]:
    def label(one: AnalysisResult, time: float) -> str | None:
        return next((segment.label for segment in one.segments if segment.start <= time < segment.end), None)

    edges = sorted(
        {time for one in (result, other) for part in one.segments for time in (part.start, part.end)}
    )
    spans: list[tuple[float, float, str | None, str | None]] = []
    for start, end in itertools.pairwise(edges):
        labels = label(result, start), label(other, start)
        if labels[0] == labels[1] or end - start <= SAME + _ROUNDING:
            continue
        if spans and spans[-1][1:] == (start, *labels):
            start = spans.pop()[0]
        spans.append((start, end, *labels))
    return spans
