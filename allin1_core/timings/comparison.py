"""Comparison of two recorded runs, stage by stage, with causes: ``allin1-core timings compare``.

Two files of timing lines (docs/timings.md) go in. For each stage the times are paired by track; over several runs in
a file the median counts. What was expected comes from a TOML file (`allin1_core.timings.expectations`).
"""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from allin1_core.errors import TimingsError
from allin1_core.timings.causes import Cause, run_causes, same_implementation, stage_causes, values_of
from allin1_core.timings.expectations import UNCHANGED, Expectation, read_expectations
from allin1_core.timings.schema import STAGES, StageTiming, read_timings
from allin1_core.timings.verdicts import (
    AS_EXPECTED,
    CANNOT_TELL,
    FALSE_ALARM,
    FELL_SHORT,
    FEWEST_RUNS,
    NONE,
    NOT_COMPARABLE,
    PARTIAL,
    REGRESSED,
    SHORTEST,
    TOO_SHORT,
    is_too_short,
    ratio_of,
    speedup_interval,
    verdict,
)


@dataclasses.dataclass(frozen=True)
class Component:
    """One row of the table.

    Attributes
    ----------
    stage : str
    before, after : float or None
        Seconds, summed over the tracks that both runs have; None where a run has no such stage.
    interval : (float, float) or None
        Range in which the speed-up lies, sure enough for a verdict; None where the runs are too few for one.
    runs : int
        Runs that the side with fewer of them has.
    expected : Expectation or None
    status : str
        ``as expected``, ``better``, ``partial``, ``none``, ``regressed``, ``cannot tell``, ``too short`` or
        ``not comparable``; see `allin1_core.timings.verdicts`.
    causes : tuple of Cause
    """

    stage: str
    before: float | None
    after: float | None
    interval: tuple[float, float] | None
    runs: int
    expected: Expectation | None
    status: str
    causes: tuple[Cause, ...]

    @property
    def speedup(self) -> float | None:
        """Before divided by after; None where one of them is missing or nothing was timed."""
        return ratio_of(self.before, self.after)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two runs compared; see `compare`."""

    before: Path
    after: Path
    components: tuple[Component, ...]
    causes: tuple[Cause, ...]

    @property
    def all_causes(self) -> tuple[Cause, ...]:
        """Those of each component, then those of the runs as a whole."""
        return (*(cause for component in self.components for cause in component.causes), *self.causes)

    @property
    def exit_status(self) -> int:
        """1 if a stage fell short of what was expected of it, or could not be compared; otherwise 0."""
        return int(any(component.status in FELL_SHORT for component in self.components))

    def markdown(self) -> str:
        """Verdict, table and causes."""
        short = [component for component in self.components if component.status in FELL_SHORT]
        unclear = [component for component in self.components if component.status == CANNOT_TELL]
        lines = ["# Timings compared", "", f"Before: `{self.before}`. After: `{self.after}`.", ""]
        if short:
            words = ", ".join(f"{component.stage} ({component.status})" for component in short)
            lines += [
                f"**{len(short)} of {len(self.components)} stages fell short or cannot be compared:** {words}."
            ]
        elif not unclear:
            judged = [component for component in self.components if component.status != TOO_SHORT]
            shortest = "" if judged == list(self.components) else f" of {SHORTEST * 1000:g} ms or more"
            lines += [f"**All {len(judged)} stages{shortest} are as expected or better.**"]
        if unclear:
            lines += [
                f"**Of {len(unclear)} stages these runs cannot tell:** "
                f"{', '.join(component.stage for component in unclear)}. A verdict holds at both ends of an interval "
                f"that calls a stage slower in at most {FALSE_ALARM:.1%} of the tables of runs that do not differ. It "
                f"takes {FEWEST_RUNS} runs a side or more, recorded by turns; the fewest here are "
                f"{min(component.runs for component in unclear)}."
            ]
        lines += ["", "| component | before ms | after ms | saved ms | speed-up | expected | status |"]
        lines += ["| --- | ---: | ---: | ---: | ---: | --- | --- |"]
        lines += [_row(component) for component in self.components]
        lines += ["", "## Causes", ""]
        lines += _cause_lines(self) or [
            "None found: beyond what was expected, nothing that the lines record differs between the runs."
        ]
        lines += _left_on_the_table(self.components)
        return "\n".join(lines) + "\n"


def compare(
    before_path: str | os.PathLike[str],
    after_path: str | os.PathLike[str],
    expectations_path: str | os.PathLike[str] | None = None,
) -> Comparison:
    """Compare two files of timings.

    Parameters
    ----------
    before_path, after_path : path-like
        JSON lines as `allin1_core.timings.recorder` writes them; each may hold several runs.
    expectations_path : path-like, optional
        TOML, as `allin1_core.timings.expectations` describes.

    Raises
    ------
    TimingsError
        If a file cannot be read, holds no timings, or is not of the expected form.
    """
    before, after = _read(before_path), _read(after_path)
    unchanged, expectations = (
        (UNCHANGED, {}) if expectations_path is None else read_expectations(expectations_path)
    )
    present = {line.stage for line in (*before, *after)}
    components = [
        _component(
            stage,
            [line for line in before if line.stage == stage],
            [line for line in after if line.stage == stage],
            expectations.get(stage),
            unchanged,
        )
        for stage in STAGES
        if stage in present or stage in expectations
    ]
    components = [_with_inherited(component, components, (*before, *after)) for component in components]
    return Comparison(
        Path(before_path), Path(after_path), tuple(components), tuple(run_causes(before, after))
    )


def _read(path: str | os.PathLike[str]) -> list[StageTiming]:
    lines = read_timings(path)
    if not lines:
        raise TimingsError(
            f"{path}: holds no timings; record some with `allin1-core analyze --timings {path}`"
        )
    return lines


def _component(
    stage: str,
    before: Sequence[StageTiming],
    after: Sequence[StageTiming],
    expected: Expectation | None,
    unchanged: float,
) -> Component:
    if not before or not after:
        when = "before" if before else "after"
        text = f"recorded only {when}" if before or after else "expected, but recorded in neither run"
        causes = [Cause("missing", stage, text, invalidates=True)]
        # A stage that came or went without anybody expecting something of it falls short of nothing.
        status = NOT_COMPARABLE if expected else AS_EXPECTED
        sides = [sum(_medians(_by_track(lines)).values()) if lines else None for lines in (before, after)]
        return Component(stage, sides[0], sides[1], None, 0, expected, status, tuple(causes))
    causes = stage_causes(stage, before, after, expected)
    one, other = _by_track(before), _by_track(after)
    common = sorted(one.keys() & other.keys(), key=str)
    if common:
        one, other = ({track: side[track] for track in common} for side in (one, other))
    seconds = [sum(_medians(side).values()) if side else None for side in (one, other)]
    totals = [_by_run(side) for side in (one, other)]
    interval = speedup_interval(*totals)
    ratio = ratio_of(*seconds)
    if ratio is None or any(cause.invalidates for cause in causes):
        status = NOT_COMPARABLE
    elif is_too_short(*seconds):
        status = TOO_SHORT
    else:
        # What ran instead of what was expected is no matter of chance, and the times are taken as they are.
        status = verdict((ratio, ratio) if _ran_another(after, expected) else interval, expected, unchanged)
        if (
            expected is not None
            and status in FELL_SHORT
            and not any(cause.kind == "backend" for cause in causes)
        ):
            causes += same_implementation(stage, before, after)
    runs = min(map(len, totals))
    return Component(stage, seconds[0], seconds[1], interval, runs, expected, status, tuple(causes))


def _with_inherited(
    component: Component, components: Sequence[Component], lines: Sequence[StageTiming]
) -> Component:
    """The component with what keeps the stages inside it from being compared."""
    inside = {line.stage for line in lines if line.parent == component.stage}
    inherited: list[Cause] = []
    for part in components:
        if part.stage in inside and part.status == NOT_COMPARABLE:
            reasons = (cause for cause in part.causes if cause.invalidates)
            inherited += [
                dataclasses.replace(cause, stage=component.stage, text=f"contains {part.stage}: {cause.text}")
                for cause in reasons
            ]
    if not inherited:
        return component
    return dataclasses.replace(component, status=NOT_COMPARABLE, causes=(*component.causes, *inherited))


def _ran_another(after: Sequence[StageTiming], expected: Expectation | None) -> bool:
    """Whether another backend ran than was expected, or on another device, or in another precision."""
    return expected is not None and any(
        bool(allowed) and bool(values_of(after, field) - set(allowed))
        for field, allowed in (
            ("backend", expected.backend),
            ("device", expected.device),
            ("precision", expected.precision),
        )
    )


def _by_track(lines: Sequence[StageTiming]) -> dict[str | None, dict[str, float]]:
    """Seconds of a stage by track and run; what a run did in several lines is added up."""
    found: dict[str | None, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for line in lines:
        if line.error is None:
            found[line.track][line.run_id] += line.duration
    return dict(found)


def _medians(side: Mapping[str | None, Mapping[str, float]]) -> dict[str | None, float]:
    return {track: float(np.median(list(runs.values()))) for track, runs in side.items()}


def _by_run(side: Mapping[str | None, Mapping[str, float]]) -> list[float]:
    """Seconds of all tracks together, of each run that has them all."""
    tracks = list(side.values())
    return [
        sum(track[run] for track in tracks)
        for run in (tracks[0] if tracks else ())
        if all(run in track for track in tracks)
    ]


def _row(component: Component) -> str:
    before, after, speedup = component.before, component.after, component.speedup
    saved = None if before is None or after is None else before - after
    ratio = "-"
    if component.status not in (NOT_COMPARABLE, TOO_SHORT) and speedup is not None and component.after:
        ratio = f"{speedup:.2f}x"
        if component.interval is not None:
            ratio += f" ({component.interval[0]:.2f}-{component.interval[1]:.2f})"
    expected = "-"
    if component.expected:
        low, high = component.expected.speedup
        expected = f"{low:g}-{high:g}x" if high > low else f"{low:g}x"
        if component.expected.backend:
            expected += f", {' or '.join(component.expected.backend)}"
    cells = [f"{component.stage}", _milliseconds(before), _milliseconds(after), _milliseconds(saved), ratio]
    status = f"**{component.status}**" if component.status in FELL_SHORT else component.status
    return "| " + " | ".join([*cells, expected, status]) + " |"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:,.1f}"


def _cause_lines(comparison: Comparison) -> list[str]:
    return [
        f"- **{cause.stage or 'all stages'}** ({cause.kind}): {cause.text}."
        for cause in comparison.all_causes
    ]


def _left_on_the_table(components: Sequence[Component]) -> list[str]:
    """What the stages that fell short would have taken."""
    lines = []
    for component in components:
        if component.status in (PARTIAL, NONE, REGRESSED) and component.expected and component.before:
            low, high = component.expected.speedup
            lines.append(
                f"- {component.stage}: {_milliseconds(component.before / high)} to "
                f"{_milliseconds(component.before / low)} ms expected, {_milliseconds(component.after)} ms measured."
            )
    return ["", "## Left on the table", "", *lines] if lines else []
