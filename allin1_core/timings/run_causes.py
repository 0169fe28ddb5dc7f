"""Causes that concern whole runs: machine, versions, how often the model was loaded, deferred work.

What concerns one stage is in `allin1_core.timings.causes`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from allin1_core.timings.causes import Cause, Lines, in_words, values_of


def run_causes(before: Lines, after: Lines) -> list[Cause]:
    """Causes that concern the runs as a whole: machine, versions, how often the model was loaded."""
    places = [("machine", name, f"different machine: {name}") for name in ("cpu", "cores", "platform")]
    libraries = sorted({name for line in (*before, *after) for name in line.versions})
    places += [("versions", name, f"different version of {name}:") for name in libraries]
    found = []
    for kind, name, what in places:
        one, other = (values_of(lines, kind, name) for lines in (before, after))
        if one and other and one != other:
            found.append(Cause(kind, None, f"{what} {in_words(one)} before, {in_words(other)} after"))
    return [*found, *_model_loading(before, after)]


def _model_loading(before: Lines, after: Lines) -> Iterator[Cause]:
    one, other = _loads_per_track(before), _loads_per_track(after)
    if one is not None and other is not None and one != other:
        text = f"model loading counted {one} before, {other} after"
        yield Cause("model_load", "model_load", text, invalidates=True)


def _loads_per_track(lines: Lines) -> str | None:
    """``once a run``, ``for each track`` or the like; None where no line tells (one track, one load)."""
    loads: dict[str, int] = defaultdict(int)
    tracks: dict[str, set[str]] = defaultdict(set)
    said = set()
    for line in lines:
        if line.track:
            tracks[line.run_id].add(line.track)
        if line.stage == "model_load" and line.error is None:
            loads[line.run_id] += 1
            per = line.details.get("per")
            said.add(str(per) if per else "track" if line.track else None)
    if not loads:
        return None
    said.discard(None)
    if said:
        return "once a run" if said == {"run"} else "for each track"
    run = max(loads, key=lambda run: len(tracks[run]))
    if len(tracks[run]) <= 1:
        return None
    return "once a run" if loads[run] == 1 else "for each track"


def lazy_followers(lines: Lines) -> dict[str, str]:
    """Stages that were running when the unwaited work of another was done, and that other stage.

    It is the first stage to start after a line without synchronisation, in the same run and track, together with
    the stages that contain it.
    """
    found: dict[str, str] = {}
    for lazy in lines:
        if lazy.synchronized or lazy.error is not None:
            continue
        later = [line for line in lines if (line.run_id, line.track) == (lazy.run_id, lazy.track)]
        later = sorted((line for line in later if line.start >= lazy.end), key=lambda line: line.start)
        parents = {line.parent for line in later}
        follower = next((line for line in later if line.stage not in parents), None)
        if follower is not None:
            found[follower.stage] = lazy.stage
            if follower.parent is not None and follower.parent != lazy.parent:
                found[follower.parent] = lazy.stage
    return found
