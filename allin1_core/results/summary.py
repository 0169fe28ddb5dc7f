"""Summary of a result, in a line of text and in a few kilobytes of HTML, and the colours of section labels."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from allin1_core.errors import printable
from allin1_core.results.validation import validate

if TYPE_CHECKING:
    from allin1_core.results.result import AnalysisResult


# Okabe and Ito's palette, which readers with any colour vision can tell apart; labels that play the same part share
# a colour, as in All-In-One's figures.
COLOURS = {
    "start": "#999999",
    "end": "#999999",
    "intro": "#56B4E9",
    "outro": "#56B4E9",
    "break": "#F0E442",
    "bridge": "#F0E442",
    "inst": "#009E73",
    "solo": "#009E73",
    "verse": "#E69F00",
    "chorus": "#D55E00",
}


def summary(result: AnalysisResult) -> str:
    """Tempo, beats, bars, sections and length in a line."""
    tempo = "no tempo"
    if result.tempo is not None:
        tempo = f"{result.tempo:.2f} BPM (spread {result.tempo_spread:.2f})"
    elif result.bpm is not None:
        tempo = f"{result.bpm} BPM"
    minutes, seconds = divmod(round(result.segments[-1].end), 60)
    counted = {"beat": len(result.beats), "downbeat": len(result.downbeats), "section": len(result.segments)}
    counts = [f"{count} {word}{'s' * (count != 1)}" for word, count in counted.items()]
    return ", ".join([tempo, *counts, f"{minutes}:{seconds:02d}"])


def summary_html(result: AnalysisResult) -> str:
    """A few kilobytes of HTML for a notebook: a bar of the sections, and the beats in a line."""
    validate(result)
    bar = "display:flex;gap:1px;max-width:1000px;margin:4px 0;font:600 12px/24px system-ui,sans-serif;color:#111"
    cell = "overflow:hidden;min-width:0;text-indent:4px;white-space:nowrap"
    spans = ""
    for segment in result.segments:
        title = f"{segment.label}, {segment.start:.2f} to {segment.end:.2f} s"
        style = f"{cell};flex:{segment.end - segment.start:.2f} 1 0;background:{COLOURS[segment.label]}"
        spans += f'<span title="{title}" style="{style}">{segment.label}</span>'
    name = html.escape(printable(result.path.name))
    return f'<div><b>{name}</b><div style="{bar}">{spans}</div><div>{summary(result)}</div></div>'
