"""Simulation of a schedule: tracks that go through stages, each of which needs a core or a card for its time.

``python -m bench.schedule --cores 16 --cards 1 --in-flight 8 core=0.21 card=0.27 core=0.04`` tells what a machine does
in an hour with tracks of those stage times, and how busy its cores and its card are.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence

from allin1_core.timings.schema import StageTiming

CORE, CARD = "core", "card"
# What a track holds, and for how many seconds, one after another.
Stages = Sequence[tuple[str, float]]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long it takes, and which share of that each resource is at work."""

    seconds: float
    busy: dict[str, float]


def simulate(tracks: Sequence[Stages], capacity: Mapping[str, int], in_flight: int) -> Schedule:
    """The schedule of tracks that are begun in their order, so many at a time.

    Parameters
    ----------
    tracks : sequence
        The stages of each.
    capacity : dict of int
        Units of each resource. A stage holds one; stages that wait for one get it in the order they came.
    in_flight : int
        Tracks at a time.

    Raises
    ------
    ValueError
        If there is nothing to do, or none of what a stage needs.
    """
    needed = {resource for stages in tracks for resource, _ in stages}
    if not needed or not all(capacity.get(resource, 0) > 0 for resource in needed) or in_flight < 1:
        raise ValueError(
            f"schedule: {len(tracks)} tracks that need {', '.join(sorted(needed)) or 'nothing'}, {in_flight} at a "
            f"time, of {dict(capacity)}; expected at least one of each"
        )
    capacity = {resource: capacity[resource] for resource in needed}
    free = dict(capacity)
    held = dict.fromkeys(capacity, 0.0)
    waiting: dict[str, collections.deque[int]] = {name: collections.deque() for name in capacity}
    todo = iter(range(len(tracks)))
    next_stage = [0] * len(tracks)
    ends: list[tuple[float, int]] = []  # of stages at work: when, and of which track

    def ask(track: int) -> None:
        waiting[tracks[track][next_stage[track]][0]].append(track)

    for track in itertools.islice(todo, in_flight):
        ask(track)
    now = 0.0
    while True:
        for resource, queue in waiting.items():
            while queue and free[resource]:
                track = queue.popleft()
                seconds = tracks[track][next_stage[track]][1]
                free[resource] -= 1
                held[resource] += seconds
                heapq.heappush(ends, (now + seconds, track))
        if not ends:
            break
        now, track = heapq.heappop(ends)
        free[tracks[track][next_stage[track]][0]] += 1
        next_stage[track] += 1
        following: int | None = track if next_stage[track] < len(tracks[track]) else next(todo, None)
        if following is not None:
            ask(following)
    return Schedule(now, {name: held[name] / (now * capacity[name]) for name in capacity})


def measured_stages(lines: Iterable[StageTiming]) -> list[Stages]:
    """The stages of each track of a recorded run, and what lies between them, in the order the tracks were begun.

    What ran on a GPU holds the card, all else a core.
    """
    of_tracks: dict[str, list[StageTiming]] = {}
    for line in sorted(lines, key=lambda line: line.start):
        if line.parent is None and line.track is not None:
            of_tracks.setdefault(line.track, []).append(line)
    tracks: list[Stages] = []
    for stages in of_tracks.values():
        found, end = [], stages[0].start
        for line in stages:
            found.append((CORE, max(0.0, line.start - end)))
            found.append((CARD if str(line.device).startswith("cuda") else CORE, line.duration))
            end = line.end
        tracks.append(found)
    return tracks


def stages_at_work(lines: Iterable[StageTiming], seconds: float) -> str:
    """In words: how many tracks of a recorded run each stage worked for at a time, on average over so many seconds."""
    stages: dict[str, float] = {}
    for line in lines:
        if line.parent is None and line.track is not None:
            stages[line.stage] = stages.get(line.stage, 0.0) + line.duration / seconds
    shares = ", ".join(f"{stage} {share:.2f}" for stage, share in stages.items() if share >= 0.005)
    return f"stages at work at a time, on average: {shares}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the schedule of a thousand equal tracks."""
    parser = argparse.ArgumentParser("python -m bench.schedule", description=__doc__)
    parser.add_argument("stages", nargs="+", metavar="RESOURCE=SECONDS", help="core=SECONDS or card=SECONDS")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--cards", type=int, default=0)
    parser.add_argument("--in-flight", type=int, default=1)
    given = parser.parse_args(arguments)
    number = 1000
    try:
        stages = [
            (name, float(seconds)) for name, _, seconds in (stage.partition("=") for stage in given.stages)
        ]
        schedule = simulate([stages] * number, {CORE: given.cores, CARD: given.cards}, given.in_flight)
    except ValueError as error:
        parser.error(str(error))
    shares = ", ".join(f"{name}s busy {share:.0%}" for name, share in sorted(schedule.busy.items()))
    print(
        f"{number * 3600 / schedule.seconds:,.0f} tracks an hour, {schedule.seconds / number:.3f} s each; {shares}"
    )


if __name__ == "__main__":
    main()
