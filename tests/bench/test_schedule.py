"""The simulation of a schedule: times that can be told by hand, and stages read from a recorded run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from allin1_core.timings.recorder import Timings
from allin1_core.timings.schema import StageTiming
from bench.schedule import CARD, CORE, main, measured_stages, simulate, stages_at_work


@pytest.mark.parametrize(
    ("tracks", "capacity", "in_flight", "seconds", "busy"),
    [
        # Cores alone: rounds of as many as there are, or as are in flight.
        ([[(CORE, 2.0)]] * 5, {CORE: 2}, 2, 6.0, {CORE: 5 / 6}),
        ([[(CORE, 2.0)]] * 5, {CORE: 2}, 1, 10.0, {CORE: 0.5}),
        ([[(CORE, 5.0)], [(CORE, 1.0)], [(CORE, 1.0)]], {CORE: 2}, 2, 5.0, {CORE: 0.7}),
        # One card, which never waits when a second track is read meanwhile.
        (
            [[(CORE, 1.0), (CARD, 2.0), (CORE, 0.5)]] * 4,
            {CORE: 4, CARD: 1},
            2,
            9.5,
            {CORE: 6 / 38, CARD: 8 / 9.5},
        ),
        (
            [[(CORE, 1.0), (CARD, 2.0), (CORE, 0.5)]] * 4,
            {CORE: 4, CARD: 1},
            1,
            14.0,
            {CORE: 6 / 56, CARD: 8 / 14},
        ),
        # The one that came first is served first.
        ([[(CARD, 1.0), (CARD, 1.0)], [(CARD, 3.0)]], {CORE: 1, CARD: 1}, 2, 5.0, {CARD: 1.0}),
    ],
)
def test_schedules_by_hand(tracks: list, capacity: dict, in_flight: int, seconds: float, busy: dict) -> None:
    schedule = simulate(tracks, capacity, in_flight)
    assert schedule.seconds == pytest.approx(seconds)
    assert schedule.busy == pytest.approx(busy)


@pytest.mark.parametrize(
    ("tracks", "capacity", "in_flight"),
    [([], {CORE: 1}, 1), ([[(CARD, 1.0)]], {CORE: 1, CARD: 0}, 1), ([[(CORE, 1.0)]], {CORE: 1}, 0)],
)
def test_what_cannot_be_scheduled(tracks: list, capacity: dict, in_flight: int) -> None:
    with pytest.raises(ValueError, match="expected at least one of each"):
        simulate(tracks, capacity, in_flight)


def test_stages_of_a_recorded_run() -> None:
    def line(stage: str, track: str | None, start: float, end: float, **more: Any) -> StageTiming:
        timings = Timings()
        with timings.stage(stage, track=track):
            pass
        return dataclasses.replace(timings.records[0], start=start, end=end, duration=end - start, **more)

    lines = [
        line("model_load", None, 0.0, 9.0),
        line("audio_read", "a", 1.0, 2.0),
        line("nn", "a", 2.5, 4.0, device="cuda:0"),
        line("metrical_dbn", "a", 4.0, 4.5, parent="postprocess"),
        line("postprocess", "a", 4.0, 5.0),
        line("audio_read", "b", 1.5, 2.0),
    ]
    first = [(CORE, 0.0), (CORE, 1.0), (CORE, 0.5), (CARD, 1.5), (CORE, 0.0), (CORE, 1.0)]
    assert measured_stages(lines) == [first, [(CORE, 0.0), (CORE, 0.5)]]
    words = "audio_read 0.15, nn 0.15, postprocess 0.10"
    assert stages_at_work(lines, 10.0) == f"stages at work at a time, on average: {words}"


def test_the_command_tells_an_hours_tracks(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--cores", "4", "--in-flight", "4", "core=2"])
    assert capsys.readouterr().out == "7,200 tracks an hour, 0.500 s each; cores busy 100%\n"
    with pytest.raises(SystemExit):
        main(["--cards", "0", "card=2"])
    assert "expected at least one of each" in capsys.readouterr().err
