"""Exports to sequencers and DJ software, as their own readers see them: every beat and section at its time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import rpp
from hypothesis import given, settings
from hypothesis import strategies as st

from allin1_core.errors import ResultError
from allin1_core.results.exports import export
from allin1_core.results.result import AnalysisResult
from allin1_core.results.tempo_maps import midi_bytes, reaper_text, rekordbox_text, tempo_map
from allin1_core.structure import Segment
from parity.oracles.network_golden import TRACKS

MILLISECOND = 1e-3


def made(
    beats: list[float], positions: list[int], end: float | None = None, path: str = "/music/a.wav"
) -> Any:
    """A result with two sections, of which the second begins 0.123 s after the middle."""
    end = end or (beats[-1] if beats else 0) + 1.0
    downbeats = [time for time, position in zip(beats, positions, strict=True) if position == 1]
    middle = end / 2 + 0.123
    segments = [Segment(0.0, middle, "intro"), Segment(middle, end, "verse")]
    return AnalysisResult(Path(path), 120 if len(beats) > 1 else None, beats, downbeats, positions, segments)


def golden(shared: Path, track: str) -> AnalysisResult:
    fields = json.loads((shared / "golden" / f"{track}.json").read_text())
    result = made(fields["beats"], fields["beat_positions"], path=f"/music/{track}.flac")
    result.segments = [Segment(*row) for row in fields["segments"]]
    return result


def even(first: float, interval: float, positions: list[int]) -> AnalysisResult:
    return made([round(first + interval * index, 3) for index in range(len(positions))], positions)


EDGES = {
    "no beats": made([], [], 10.0),
    "one beat": made([3.21], [1]),
    "one beat at 0": made([0.0], [4]),
    "first beat less than a tick from 0": made([0.0004, 0.4004, 0.8004], [1, 2, 1]),
    "grid a third of a millisecond ahead of a jump": made([5e-248, 1.9994, 3.9989], [1, 2, 2]),
    "two beats, no downbeat": made([0.5, 1.1], [2, 3]),
    "first bar incomplete": even(0.27, 0.51, [3, 4] + [1, 2, 3, 4] * 3),
    "last bar incomplete": even(0.02, 0.4, [1, 2, 3, 4, 1, 2]),
    "positions jump": made(np.arange(0.4, 5.9, 0.5).round(2).tolist(), [1, 2, 3, 4, 1, 2, 1, 2, 4, 1, 2]),
    "positions repeat": even(1.0, 0.5, [4, 4, 1, 1, 2, 3]),
    "3/4": even(0.61, 0.7, [1, 2, 3] * 5),
    "4/4 to 3/4": even(7.3, 0.43, [1, 2, 3, 4] * 3 + [1, 2, 3] * 3),
    "long before the first beat": even(200.0, 0.5, [2, 3, 1, 2, 3, 1]),
    "a gap": made([0.5, 1.0, 15.0, 15.5], [1, 2, 3, 4]),
    "not rounded": made([1 / 3 + index / 1.7 for index in range(500)], [1, 2, 3, 4] * 125),
}


@pytest.fixture(params=[*TRACKS, *EDGES])
def result(request: pytest.FixtureRequest, shared: Path) -> AnalysisResult:
    return EDGES[request.param] if request.param in EDGES else golden(shared, request.param)


def midi_events(content: bytes) -> Iterator[tuple[float, float, mido.MetaMessage]]:
    """Seconds, quarters and message of each event, by mido's reading of the tempo map."""
    file = mido.MidiFile(file=io.BytesIO(content))
    assert (file.type, len(file.tracks)) == (1, 1)
    seconds, ticks, tempo = 0.0, 0, 500_000
    for message in file.tracks[0]:
        seconds += mido.tick2second(message.time, file.ticks_per_beat, tempo)
        ticks += message.time
        yield seconds, ticks / file.ticks_per_beat, message
        tempo = message.tempo if message.type == "set_tempo" else tempo


def bars(signatures: list[tuple[float, int, int]], end: float) -> list[float]:
    """Where bars begin, in quarters, by time signatures at quarters, which must not cut a bar."""
    lines: list[float] = []
    for (start, numerator, denominator), stop in zip(
        signatures, [*(row[0] for row in signatures[1:]), end], strict=True
    ):
        length = numerator * 4 / denominator
        count = (stop - start) / length
        assert stop == end or count == int(count)
        lines += [start + length * index for index in range(int(np.ceil(count)))]
    return lines


def assert_near(found: list[float], expected: list[float], most: float = MILLISECOND) -> None:
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=most)


def test_midi_as_mido_reads_it(result: AnalysisResult) -> None:
    events = list(midi_events(midi_bytes(result)))
    tempi = [(seconds, quarters) for seconds, quarters, message in events if message.type == "set_tempo"]
    beats = tempi[len(tempi) - len(result.beats) :]
    # Nothing adds up: the first beat is off by what the quarters before it were rounded by, the others by half of 1e-6.
    assert_near([seconds for seconds, _ in beats][1:], result.beats[1:], 1e-6)
    if beats:
        assert_near(
            [beats[0][0]], result.beats[:1], 1e-6 * max(500 * (result.beats[0] < 0.0005), 1, beats[0][1])
        )
    assert_near([quarters - beats[0][1] for _, quarters in beats], list(range(len(beats))), 0)
    markers = [(seconds, message.text) for seconds, _, message in events if message.type == "marker"]
    assert [text for _, text in markers] == [segment.label for segment in result.segments]
    assert_near([seconds for seconds, _ in markers], [segment.start for segment in result.segments])
    assert_near([events[-1][0]], [result.segments[-1].end])
    signatures = [
        (quarters, message.numerator, message.denominator)
        for _, quarters, message in events
        if message.type == "time_signature"
    ]
    for message in (message for *_, message in events if message.type == "time_signature"):
        # 24 MIDI clocks, or 8 thirty-seconds, are a quarter; a 64th is a clock and a half.
        assert message.clocks_per_click == {4: 24, 8: 12, 16: 6, 32: 3, 64: 1}[message.denominator]
        assert message.notated_32nd_notes_per_beat == 8
    lines = {round(line, 9) for line in bars(signatures, events[-1][1])}
    quarter_of = dict(zip(result.beats, [round(quarters, 9) for _, quarters in beats], strict=True))
    assert {quarter_of[time] for time in result.downbeats} <= lines


def test_midi_as_mido_writes_it(result: AnalysisResult) -> None:
    content = midi_bytes(result)
    file = mido.MidiFile(file=io.BytesIO(content))
    again = io.BytesIO()
    file.save(file=again)
    assert again.getvalue() == content


def test_reaper_as_rpp_reads_it(result: AnalysisResult) -> None:
    project = rpp.loads(reaper_text(result))
    regions = project.findall("MARKER")
    starts, ends = regions[::2], regions[1::2]
    assert [(row[3], row[4]) for row in starts] == [(segment.label, "1") for segment in result.segments]
    assert [(row[1], row[3], row[4]) for row in ends] == [(row[1], "", "1") for row in starts]
    assert_near([float(row[2]) for row in starts], [segment.start for segment in result.segments], 1e-9)
    assert_near([float(row[2]) for row in ends], [segment.end for segment in result.segments], 1e-9)
    points = [row[1:] for row in project.find("TEMPOENVEX").findall("PT")]
    assert {row[2] for row in points} == {"1"}
    times, tempi = ([float(row[column]) for row in points] for column in (0, 1))
    assert_near(times[len(times) - len(result.beats) :], result.beats, 1e-9)
    # Reaper counts beats from the tempi: whole ones from beat to beat, and no downbeat off a bar line.
    quarters = np.concatenate([[0], np.cumsum(np.diff(times) * tempi[:-1] / 60)])
    assert_near(quarters.tolist(), [change.tick / 9600 for change in tempo_map(result)], 1e-6)
    signatures = [
        (change.tick / 9600, int(row[3]) & 0xFFFF, int(row[3]) >> 16)
        for change, row in zip(tempo_map(result), points, strict=True)
        if len(row) > 3
    ]
    lines = {round(line, 9) for line in bars(signatures, float(quarters[-1]) + 1)}
    of_beats = dict(zip(result.beats, quarters[len(quarters) - len(result.beats) :], strict=True))
    assert {round(of_beats[time], 4) for time in result.downbeats} <= {round(line, 4) for line in lines}


def rekordbox(text: str, folder: Path) -> Any:
    from pyrekordbox.rbxml import RekordboxXml  # with a database's library: a second

    path = folder / "collection.xml"
    path.write_text(text, encoding="utf-8")
    return RekordboxXml(path)


def grid(track: Any, count: int) -> tuple[list[float], list[int], list[str]]:
    """The first beats of a track as its grids draw them: seconds, position in the bar, meter."""
    times, positions, meters = [], [], []
    ends = [*(tempo.Inizio for tempo in track.tempos[1:]), np.inf]
    for tempo, end in zip(track.tempos, ends, strict=True):
        beats_per_bar = int(tempo.Metro.removesuffix("/4"))
        index = 0
        while (time := tempo.Inizio + index * 60 / tempo.Bpm) < end - 1e-6 and len(times) < count:
            times.append(time)
            positions.append((tempo.Battito - 1 + index) % beats_per_bar + 1)
            meters.append(tempo.Metro)
            index += 1
    return times, positions, meters


def test_rekordbox_as_pyrekordbox_reads_it(result: AnalysisResult, tmp_path: Path) -> None:
    [track] = rekordbox(rekordbox_text(result), tmp_path).get_tracks()
    assert (track.Name, track.Location) == (result.path.stem, str(result.path).removeprefix("/"))
    assert track.AverageBpm == (None if result.bpm is None else 120.0)
    if len(result.beats) < 2:
        assert track.tempos == []  # a tempo that nobody knows
    else:
        times, positions, _ = grid(track, len(result.beats))
        assert_near(times, result.beats)
        assert positions == result.beat_positions
    cues = [(mark.Type, mark.Name, mark.Num) for mark in track.marks]
    assert cues == [("cue", segment.label, -1) for segment in result.segments]
    assert_near([mark.Start for mark in track.marks], [segment.start for segment in result.segments])


def test_time_signatures_of_the_bars(tmp_path: Path) -> None:
    def signatures(name: str) -> list[tuple[float, tuple[int, int]]]:
        return [(row.time, row.signature) for row in tempo_map(EDGES[name]) if row.signature is not None]

    assert signatures("no beats") == [(0, (4, 4))]
    assert signatures("one beat") == [(0, (1, 4))]
    # More than half of a quarter before an upbeat of two beats; a twentieth of one.
    assert signatures("first bar incomplete") == [(0, (1, 4)), (0.27, (2, 4)), (1.29, (4, 4))]
    assert signatures("last bar incomplete") == [(0, (1, 64)), (0.02, (4, 4))]
    assert signatures("positions jump") == [(0, (1, 4)), (0.4, (4, 4)), (2.4, (2, 4)), (3.4, (3, 4))]
    assert signatures("4/4 to 3/4") == [(0, (4, 4)), (round(7.3 + 12 * 0.43, 3), (3, 4))]
    assert signatures("long before the first beat")[:2] == [(0, (3, 4)), (200.0, (2, 4))]
    [track] = rekordbox(rekordbox_text(EDGES["first bar incomplete"]), tmp_path).get_tracks()
    assert (track.tempos[0].Metro, track.tempos[0].Battito) == ("4/4", 3)
    [track] = rekordbox(rekordbox_text(EDGES["4/4 to 3/4"]), tmp_path).get_tracks()
    assert grid(track, 16)[2] == ["4/4"] * 12 + ["3/4"] * 4


def test_an_even_tempo_is_one_grid(tmp_path: Path) -> None:
    [track] = rekordbox(rekordbox_text(even(0.25, 0.5, [1, 2, 3, 4] * 100)), tmp_path).get_tracks()
    [tempo] = track.tempos
    assert (tempo.Inizio, tempo.Bpm, tempo.Metro, tempo.Battito) == (0.25, 120.0, "4/4", 1)


@st.composite
def results(draw: st.DrawFn) -> AnalysisResult:
    intervals = draw(st.lists(st.floats(0.05, 3.0), min_size=1, max_size=60))
    positions = draw(st.lists(st.integers(1, 7), min_size=len(intervals), max_size=len(intervals)))
    return made(np.cumsum([draw(st.floats(0, 20)), *intervals[1:]]).tolist(), positions)


@given(results())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_whatever_the_beats_are(tmp_path_factory: pytest.TempPathFactory, result: AnalysisResult) -> None:
    test_midi_as_mido_reads_it(result)
    test_reaper_as_rpp_reads_it(result)
    test_rekordbox_as_pyrekordbox_reads_it(result, tmp_path_factory.mktemp("rekordbox"))


def test_a_collection_of_two_tracks_with_hostile_names(tmp_path: Path) -> None:
    names = ('/music/a & "b" <c>.wav', "/music/\x01ü%20\udcff.wav")
    results = [made([0.5, 1.0], [1, 2], path=name) for name in names]
    results[0].tempo, results[0].tempo_spread = 119.97, 0.1
    first, second = rekordbox(rekordbox_text(*results), tmp_path).get_tracks()
    assert (first.AverageBpm, second.AverageBpm) == (119.97, 120.0)
    assert (first.Name, first.Location) == ('a & "b" <c>', 'music/a & "b" <c>.wav')
    assert second.Name == r"\x01ü%20\udcff"
    assert second["Location"].startswith("music/\x01ü%20")
    assert (first.TrackID, second.TrackID) == (1, 2)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            made([0.5, 20.5, 21.0], [1, 2, 3]),
            r"found 20 s from the beat at 0\.5 s to the next; .* to 16\.78 s",
        ),
        (made([0.0, 1e-7], [1, 2]), r"found 1e-07 s from the beat at 0\.0 s"),
        (made([0.5, 0.5 + 1e-7], [1, 2]), r"found 1e-07 s from the beat at 0\.5 s to the next"),
        (made([17.0, 33.5], [1, 2]), r"found 17 s for each quarter from 0\.0 s on; .* to 16\.78 s"),
        (
            made(np.arange(1, 302).tolist(), list(range(1, 302))),
            "found a bar of 301 beats at 1 s; .* up to 255",
        ),
        (made([], [], 100_000.0), "found 960002362 ticks without a beat or section"),
    ],
)
def test_what_midi_cannot_say(tmp_path: Path, result: AnalysisResult, message: str) -> None:
    with pytest.raises(ResultError, match=f"/music/a.wav: {message}"):
        export(result, tmp_path / "a.mid", "midi")
    assert not (tmp_path / "a.mid").exists()
    for file_format in ("reaper", "rekordbox"):
        export(result, tmp_path / f"a.{file_format}", file_format)


@pytest.mark.parametrize("write", [midi_bytes, reaper_text, rekordbox_text])
def test_results_that_are_not_valid(write: Any) -> None:
    result = made([0.5, 1.0], [1, 2])
    result.beats[1] = float("nan")
    with pytest.raises(ResultError, match=r"beats\[1\]: found nan"):
        write(result)
