"""Report of a run's timings: a table of its stages, and a waterfall plot of when each one ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from allin1_core.errors import TimingsError
from allin1_core.plotting import new_figure
from allin1_core.timings.schema import STAGES, StageTiming

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# With more bars than this, a track is one row and its stages are told by colour.
_MOST_ROWS = 45


def select_run(records: Sequence[StageTiming], run_id: str | None = None) -> list[StageTiming]:
    """The lines of one run.

    Parameters
    ----------
    records : sequence of StageTiming
    run_id : str, optional
        The run's id or the beginning of it; by default the run that was written last.

    Raises
    ------
    TimingsError
        If there is no such run, or several begin so.
    """
    runs = list(dict.fromkeys(record.run_id for record in records))
    if not runs:
        raise TimingsError("timings: the file holds no lines; analyse something with --timings first")
    found = [run for run in runs if run.startswith(run_id)] if run_id else runs[-1:]
    if len(found) != 1:
        raise TimingsError(f"run {run_id!r}: {len(found)} runs begin so; the file has {', '.join(runs)}")
    return [record for record in records if record.run_id == found[0]]


def wall_seconds(records: Sequence[StageTiming]) -> float:
    """From the start of the first stage to the end of the last."""
    return max(record.end for record in records) - min(record.start for record in records)


def stage_table(records: Sequence[StageTiming]) -> str:
    """The stages of a run, in the order of the pipeline, as a table of plain text.

    A stage's time is the sum over tracks. Stages inside another are indented, and count in their parent's time;
    ``beside`` marks what ran in a thread beside the others. Of tracks side by side they add up to more than the run.

    Parameters
    ----------
    records : sequence of StageTiming
        Of one run, at least one.
    """
    wall = wall_seconds(records)
    tracks = {
        record.track: record.audio_seconds for record in records if record.track and record.audio_seconds
    }
    audio = sum(seconds for seconds in tracks.values() if seconds)
    rows: list[tuple[str, ...]] = [
        ("stage", "ms", "share", "runs", "backend", "device", "precision", "notes")
    ]
    for stage in STAGES:
        lines = [record for record in records if record.stage == stage]
        if not lines:
            continue
        total = sum(line.duration for line in lines)
        rows.append(
            (
                ("  " if lines[0].parent else "") + stage,
                f"{total * 1000:,.1f}",
                f"{total / wall:.1%}" if wall else "-",
                str(len(lines)),
                _one_or_more([_library(line) for line in lines]),
                _one_or_more([line.device for line in lines]),
                _one_or_more([line.precision for line in lines]),
                _notes(lines),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = "<>>><<<<"  # numbers to the right
    rows.insert(1, tuple("-" * width for width in widths))
    text = [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    first = records[0]
    heading = [
        f"run {first.run_id}, started {first.run_started}",
        f"{len(tracks)} tracks, {audio:,.1f} s of audio, {wall:,.2f} s on the clock"
        + (f" ({audio / wall:,.1f} times real time)" if wall and audio else "")
        + (f", {first.concurrent} tracks at the same time" if first.concurrent > 1 else ""),
        f"{first.machine['cpu']}, {first.machine['cores']} cores, {first.machine['platform']}",
        ", ".join(
            f"{name} {version}" for name, version in max((r.versions for r in records), key=len).items()
        ),
        "",
    ]
    return "\n".join([*heading, *text])


def _library(line: StageTiming) -> str | None:
    return None if line.backend is None else f"{line.backend} ({line.library} {line.library_version})"


def _one_or_more(values: Sequence[str | None]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value)) or "-"


def _notes(lines: Sequence[StageTiming]) -> str:
    notes = ["beside"] if any(line.thread != "main" and line.concurrent == 1 for line in lines) else []
    counts = {"cached": sum(line.cached for line in lines), "failed": sum(bool(line.error) for line in lines)}
    return ", ".join(notes + [f"{count} {what}" for what, count in counts.items() if count])


def waterfall(records: Sequence[StageTiming]) -> Figure:
    """When each stage of a run ran: time to the right, one row a stage, or with many tracks one row a track.

    Parameters
    ----------
    records : sequence of StageTiming
        Of one run, at least one.

    Raises
    ------
    ResultError
        If matplotlib is not installed.
    """
    ordered = sorted(records, key=lambda record: (record.start, -record.duration))
    # By track, in the order in which they began; what belongs to none goes first.
    tracks = dict.fromkeys(record.track for record in ordered if record.track is not None)
    begun = {track: index for index, track in enumerate(tracks)}
    ordered.sort(key=lambda record: -1 if record.track is None else begun[record.track])
    by_stage = len(ordered) <= _MOST_ROWS
    labels = (
        [_row_label(record, ordered) for record in ordered]
        if by_stage
        else list(dict.fromkeys(record.track or "whole run" for record in ordered))
    )
    figure = new_figure(11, 1.4 + 0.24 * len(labels))
    axes = figure.subplots()
    colours = _stage_colours()
    shown: set[str] = set()
    for index, record in enumerate(ordered):
        row = index if by_stage else labels.index(record.track or "whole run")
        axes.barh(
            row,
            record.duration,
            left=record.start,
            height=0.8 if record.parent is None else 0.5,
            color=colours[record.stage],
            hatch="//" if record.thread != "main" else None,
            edgecolor="white" if record.thread != "main" else colours[record.stage],
            label=None if by_stage or record.stage in shown else record.stage,
        )
        shown.add(record.stage)
        if by_stage:
            text = f" {record.duration * 1000:,.1f} ms" + (f", {record.backend}" if record.backend else "")
            axes.text(record.end, row, text, va="center", fontsize="x-small")
    axes.set_yticks(range(len(labels)), labels, fontsize="small")
    axes.set_ylim(len(labels) - 0.4, -0.6)
    # Room for the words behind the last bar.
    axes.set_xlim(0, max(record.end for record in ordered) * (1.18 if by_stage else 1.02))
    axes.set_xlabel("Time since the start of the run (s); hatched: in a thread beside the others")
    axes.set_title(
        f"{wall_seconds(ordered):.2f} s, {ordered[0].machine['cpu']}, {ordered[0].machine['cores']} cores",
        fontsize="medium",
    )
    if not by_stage:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    return figure


def _row_label(record: StageTiming, records: Sequence[StageTiming]) -> str:
    # Labels end at the axis, so a blank before one would not be seen.
    label = ("└ " if record.parent else "") + record.stage
    what = record.details.get("what")
    if what:
        label += f" ({what})"
    several = len({other.track for other in records if other.track}) > 1
    return f"{record.track}: {label}" if several and record.track else label


def _stage_colours() -> dict[str, tuple[float, ...]]:
    from matplotlib import colormaps

    palette = colormaps["tab20"].colors  # type: ignore[attr-defined]
    return {stage: palette[index % len(palette)] for index, stage in enumerate(STAGES)}
