"""Causes of a difference between two recorded runs, stage by stage, read from their timing lines.

Each function below looks at one kind of cause and names it only where the lines show it. A cause that makes a ratio
of the two times meaningless (another track, a cached stage, another model ...) says so with
`Cause.invalidates`.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from allin1_core.timings.expectations import Expectation
from allin1_core.timings.schema import StageTiming

# What of a stage's details changes the work it has to do, and what to call that.
_WORK_DETAILS = {
    "beats_per_bar": "meters",
    "folds": "model",
    "model": "model",
}
_SAME_LENGTH = 0.005  # relative; a resampled or differently padded copy of a track is still that track


@dataclasses.dataclass(frozen=True)
class Cause:
    """Something that the lines show and that stands between two times.

    Attributes
    ----------
    kind : str
        ``backend``, ``device``, ``precision``, ``track``, ``meters``, ``model``, ``cache``, ``overlap``, ``machine``,
        ``versions``, ``failure`` or ``missing``.
    stage : str or None
        None where it concerns the whole run.
    text : str
        What was found, with the values of both runs.
    invalidates : bool
        Whether the ratio of the two times has no meaning because of it.
    """

    kind: str
    stage: str | None
    text: str
    invalidates: bool = False


Lines = Sequence[StageTiming]


def stage_causes(stage: str, before: Lines, after: Lines, expected: Expectation | None) -> list[Cause]:
    """Causes that concern one stage, in the order of how much they explain.

    Parameters
    ----------
    stage : str
    before, after : sequence of StageTiming
        The lines of that stage alone; both not empty.
    expected : Expectation, optional
    """
    found = list(_failures(stage, before, after))
    before = [line for line in before if line.error is None] or before
    after = [line for line in after if line.error is None] or after
    found += _implementation(stage, before, after, expected)
    found += _computation(stage, before, after)
    found += _library_versions(stage, before, after)
    found += _tracks(stage, before, after)
    found += _work(stage, before, after)
    found += _side_by_side(stage, before, after)
    found += _switch(stage, before, after)
    return found


def run_causes(before: Lines, after: Lines) -> list[Cause]:
    """Causes that concern the runs as a whole: machine and versions."""
    places = [("machine", name, f"different machine: {name}") for name in ("cpu", "cores", "platform")]
    libraries = sorted({name for line in (*before, *after) for name in line.versions})
    places += [("versions", name, f"different version of {name}:") for name in libraries]
    found = []
    for kind, name, what in places:
        one, other = (values_of(lines, kind, name) for lines in (before, after))
        if one and other and one != other:
            found.append(Cause(kind, None, f"{what} {in_words(one)} before, {in_words(other)} after"))
    return found


def _failures(stage: str, before: Lines, after: Lines) -> Iterator[Cause]:
    """A failure that both runs share is named only where it leaves nothing to compare."""
    differ = _differs(before, after, lambda line: line.error is not None)
    for when, lines in (("before", before), ("after", after)):
        failed = [line for line in lines if line.error is not None]
        if failed and (differ or len(failed) == len(lines)):
            text = f"failed {when} ({len(failed)} of {len(lines)} lines): {failed[0].error}"
            yield Cause("failure", stage, text, invalidates=len(failed) == len(lines))


def _implementation(stage: str, before: Lines, after: Lines, expected: Expectation | None) -> Iterator[Cause]:
    wanted = expected.backend if expected else ()
    for line in _one_per_backend(after):
        if wanted and line.backend not in wanted:
            yield Cause(
                "backend", stage, f"{_ran(line)} ran, where {' or '.join(wanted)} was expected{_why(line)}"
            )
    for kind in ("backend", "device", "precision"):
        one, other = (values_of(lines, kind) for lines in (before, after))
        allowed = getattr(expected, kind) if expected else ()
        if one != other and one and other and not (allowed and other <= set(allowed)):
            reason = _why(after[0]) if kind != "precision" else ""
            yield Cause(kind, stage, f"{kind} {in_words(one)} before, {in_words(other)} after{reason}")
        elif kind != "backend" and allowed and other - set(allowed):
            yield Cause(
                kind,
                stage,
                f"{kind} {in_words(other)}, where {' or '.join(allowed)} was expected{_why(after[0])}",
            )


def _computation(stage: str, before: Lines, after: Lines) -> Iterator[Cause]:
    """The same backend, but other code or other instructions behind it; lines of older versions do not say."""
    if values_of(before, "backend") != values_of(after, "backend"):
        return
    for field, kind, words in (
        ("computed_by", "backend", "computed by"),
        ("instruction_set", "machine", "kernels for"),
    ):
        one, other = (values_of(lines, field) for lines in (before, after))
        if one and other and one != other:
            yield Cause(kind, stage, f"{words} {in_words(one)} before, {in_words(other)} after")


def _library_versions(stage: str, before: Lines, after: Lines) -> Iterator[Cause]:
    """Another version of what did the work, unless `run_causes` names it for all stages."""
    for library in sorted(values_of(before, "library") & values_of(after, "library")):
        if values_of(before, "versions", library) != values_of(after, "versions", library):
            continue
        one, other = (
            values_of([line for line in lines if line.library == library], "library_version")
            for lines in (before, after)
        )
        if one and other and one != other:
            text = f"different version of {library}: {in_words(one)} before, {in_words(other)} after"
            yield Cause("versions", stage, text)


def same_implementation(stage: str, before: Lines, after: Lines) -> list[Cause]:
    """Named for a stage that gained less than expected: what ran after is what had run before."""
    for line in _one_per_backend(after):
        for other in _one_per_backend(before):
            if _identity(line) == _identity(other):
                text = f"the same implementation ran before and after: {_ran(line)}{_why(line)}"
                return [Cause("backend", stage, text)]
    return []


def _identity(line: StageTiming) -> tuple[str | None, ...]:
    own = line.versions.get("allin1-core")
    return (line.backend, line.library_version, line.device, line.precision, own)


def _one_per_backend(lines: Lines) -> list[StageTiming]:
    found: dict[str, StageTiming] = {}
    for line in lines:
        if line.backend is not None:
            found.setdefault(line.backend, line)
    return list(found.values())


def _ran(line: StageTiming) -> str:
    version = f" {line.library_version}" if line.library_version else ""
    return f"{line.backend} ({line.library or 'unknown library'}{version}, device {line.device})"


def _why(line: StageTiming) -> str:
    parts = []
    if line.requested_device is not None:
        parts.append(f"requested: backend {line.requested_backend}, device {line.requested_device}")
    if line.reason:
        parts.append(f"chosen because: {line.reason}")
    return f" ({'; '.join(parts)})" if parts else ""


def _tracks(stage: str, before: Lines, after: Lines) -> Iterator[Cause]:
    one, other = (
        {line.track: line.audio_seconds for line in lines if line.track} for lines in (before, after)
    )
    if not one or not other:
        return
    common = one.keys() & other.keys()
    if not common:
        names = f"{in_words(set(map(str, one)))} before, {in_words(set(map(str, other)))} after"
        yield Cause("track", stage, f"another track: {names}", invalidates=True)
        return
    for track in sorted(map(str, common)):
        lengths = one[track], other[track]
        if None not in lengths and abs(lengths[0] - lengths[1]) > _SAME_LENGTH * max(lengths):  # type: ignore[operator, type-var]
            text = f"another length of {track}: {lengths[0]:.1f} s before, {lengths[1]:.1f} s after"
            yield Cause("track", stage, text, invalidates=True)
    for when, only in (("before", one.keys() - common), ("after", other.keys() - common)):
        if only:
            yield Cause("track", stage, f"only {when}: {in_words(set(map(str, only)))}; not counted here")


def _work(stage: str, before: Lines, after: Lines) -> Iterator[Cause]:
    for name, kind in _WORK_DETAILS.items():
        one, other = (values_of(lines, "details", name) for lines in (before, after))
        if one and other and one != other:
            text = f"different work: {name} {in_words(one)} before, {in_words(other)} after"
            yield Cause(kind, stage, text, invalidates=True)


def _side_by_side(stage: str, before: Lines, after: Lines) -> Iterator[Cause]:
    """Another number of tracks shared the machine: a stage that takes longer beside others is no slower for that."""
    one, other = (values_of(lines, "concurrent") for lines in (before, after))
    if one != other:
        text = f"tracks at the same time: {in_words(one)} before, {in_words(other)} after; record both with one --jobs"
        yield Cause("overlap", stage, text, invalidates=True)


def _switch(stage: str, before: Lines, after: Lines) -> Iterator[Cause]:
    """Served from a cache, or run beside other stages of its track, in one run and not in the other."""
    kinds: tuple[tuple[str, str, Callable[[StageTiming], bool], bool], ...] = (
        ("cache", "served from a cache", lambda line: line.cached, True),
        (
            "overlap",
            "run beside other stages (their times overlap)",
            lambda line: line.thread != "main" and line.concurrent == 1,
            False,
        ),
    )
    for kind, words, holds, invalidates in kinds:
        differ = _differs(before, after, holds)
        if differ:
            one, other = (sum(map(holds, lines)) for lines in (before, after))
            text = f"{words}: {one} of {len(before)} lines before, {other} of {len(after)} after"
            named = [track for track in differ if track is not None]
            if named:
                text += f" (differs for {', '.join(named)})"
            yield Cause(kind, stage, text, invalidates)


def _differs(before: Lines, after: Lines, holds: Callable[[StageTiming], bool]) -> list[str | None]:
    """Tracks of both runs in which something holds for another share of the lines; without such tracks, of all lines.

    A share, not a number: the runs of two files may differ in number, and a run may record a stage in several lines
    of which it holds for some only, as it does of the two threads that load the model.
    """
    one, other = (_shares(lines, holds) for lines in (before, after))
    common = [track for track in one if track in other]
    if common:
        return [track for track in common if one[track] != other[track]]
    shares = (Fraction(sum(map(holds, lines)), len(lines)) for lines in (before, after))
    return [None] if len(set(shares)) > 1 else []


def _shares(lines: Lines, holds: Callable[[StageTiming], bool]) -> dict[str | None, Fraction]:
    found: dict[str | None, list[bool]] = defaultdict(list)
    for line in lines:
        found[line.track].append(holds(line))
    return {track: Fraction(sum(held), len(held)) for track, held in found.items()}


def values_of(lines: Lines, field: str, key: str | None = None) -> set[str]:
    """What the lines say in a field (or under a key of it), as words; lines that say nothing do not count."""
    values = [getattr(line, field) if key is None else getattr(line, field).get(key) for line in lines]
    return {str(value) for value in values if value is not None}


def in_words(values: set[str]) -> str:
    return ", ".join(sorted(values))
