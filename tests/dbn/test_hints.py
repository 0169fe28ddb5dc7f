"""Hints for the beats: what they are sure to do, what they leave alone, and that results are told apart by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import AnalysisResult, Analyzer, analyze, self_test
from allin1_core.dbn import DBNDownBeatTrackingProcessor
from allin1_core.dbn.metrical import decoder_input
from allin1_core.errors import BatchError, HintError, OutputError
from allin1_core.session import Session
from allin1_core.settings import Settings
from allin1_core.timings.recorder import Timings

Command = Callable[..., tuple[int, str, str]]

# What the tempo range, bars and weights of the small network's song are not without the hint; an anchor between beats.
HINTS: list[dict[str, Any]] = [
    {"min_bpm": 150.0, "max_bpm": 180.0},
    {"beats_per_bar": [5]},
    {"beats_per_bar": [3, 4], "meter_weights": [1.0, 0.0]},
    {"beats_per_bar": [3, 4], "meter_weights": [0.0, 1.0]},
    {"beats_per_bar": [2, 3], "meter_change_prob": 0.5},
    {"anchors": [[1.23, 2], [3.0, 0]]},
]


def rows(result: AnalysisResult) -> list[tuple[float, int]]:
    return [*zip(result.beats, result.beat_positions, strict=True)]


@pytest.mark.parametrize("hints", HINTS, ids=str)
def test_hints_are_those_of_the_decoder_alone_and_change_nothing_else(
    song: Path, options: dict[str, Any], hints: dict[str, Any]
) -> None:
    plain = analyze(song, include_activations=True, **options)
    timings, of_run = Timings(), {name: value for name, value in hints.items() if name != "anchors"}
    analyzer, anchors = Analyzer(**of_run, **options), hints.get("anchors")
    hinted = analyzer(song, anchors=anchors, include_activations=True, timings=timings)
    activations = decoder_input(plain.activations["beat"], plain.activations["downbeat"])
    parameters = {"beats_per_bar": [3, 4], "threshold": 0.0, "fps": 100, **of_run}
    decoded = DBNDownBeatTrackingProcessor(**parameters)(activations, anchors=anchors)
    assert rows(hinted) == [tuple(row) for row in decoded.tolist()]
    assert hinted.segments == plain.segments
    for name, values in plain.activations.items():
        np.testing.assert_array_equal(hinted.activations[name], values)
    [decoding] = [line for line in timings.records if line.stage == "metrical_dbn"]
    assert decoding.details == {"beats_per_bar": parameters["beats_per_bar"], "threshold": 0.0}
    recorded = hinted.provenance.pop("hints")
    assert {"beats_per_bar": [3, 4], **recorded} == {"beats_per_bar": [3, 4], **hints}
    assert hinted.provenance == plain.provenance
    # One of the two bar lengths is the one that is chosen anyway.
    assert rows(hinted) != rows(plain) or hints.get("meter_weights") == [1.0, 0.0]


def test_without_hints_the_result_is_that_of_the_published_decoder_and_says_nothing_of_them(
    song: Path, options: dict[str, Any]
) -> None:
    plain = analyze(song, include_activations=True, **options)
    activations = decoder_input(plain.activations["beat"], plain.activations["downbeat"])
    decoded = DBNDownBeatTrackingProcessor([3, 4], threshold=0.0, fps=100)(activations)
    assert rows(plain) == [tuple(row) for row in decoded.tolist()]
    assert [*plain.provenance] == ["allin1_core_version", "model", "audio_sha256", "stems_as_int16", "stages"]
    as_by_default = {"min_bpm": 55, "max_bpm": np.float64(215), "beats_per_bar": np.array([3, 4])}
    assert analyze(song, anchors=[], **as_by_default, **options).to_json() == plain.to_json()


@pytest.fixture
def decoder(small_model: str) -> Callable[..., DBNDownBeatTrackingProcessor]:
    """The decoder that a run with these options has."""
    return lambda **hints: Session(Settings(model=small_model, device="cpu", **hints)).decoder


def made_up(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((2, 500), np.float32)
    return decoder_input(*np.maximum(self_test.probabilities(), noise**4 / 2))


@pytest.mark.parametrize("seed", range(8))
def test_laws(decoder: Callable[..., DBNDownBeatTrackingProcessor], seed: int) -> None:
    activations, random = made_up(seed), np.random.default_rng(seed)
    slowest = random.uniform(60, 150)
    fastest = slowest * random.uniform(1.05, 1.5)
    decode = decoder(min_bpm=slowest, max_bpm=fastest)
    shortest, longest = round(6000 / fastest), round(6000 / slowest)
    tempo = decode.decode(activations).tempo
    assert round(6000 / tempo.max()) >= shortest
    assert round(6000 / tempo.min()) <= longest
    # A beat is anywhere within the first sixteenth of its interval.
    intervals = np.diff(decode(activations)[:, 0]) * 100
    assert len(intervals) >= 3
    assert shortest - longest / 16 <= intervals.min()
    assert intervals.max() <= longest + longest / 16

    for meter in (2, 3, 7):
        assert {*decoder(beats_per_bar=meter)(activations)[:, 1]} == {*range(1, meter + 1)}

    time = random.uniform(1, 4)
    position = int(random.integers(1, 5))
    beats = decoder()(activations, anchors=[(time, position)])
    nearest = np.abs(beats[:, 0] - time).argmin()
    assert abs(beats[nearest, 0] - time) <= 0.005 + 1e-9
    assert beats[nearest, 1] == position


@pytest.mark.parametrize("hints", HINTS[:1] + HINTS[-1:], ids=str)
def test_a_result_with_other_hints_is_refused(
    song: Path, options: dict[str, Any], tmp_path: Path, hints: dict[str, Any]
) -> None:
    options["out_dir"] = tmp_path / "out"
    path = tmp_path / "out" / "song.json"
    analyze(song, **options)
    with pytest.raises(OutputError) as refused:
        analyze(song, **hints, **options)
    assert str(refused.value).startswith(
        f"{path}: the result there was made with hints {{}}, not {hints}; choose another out_dir"
    )
    hinted = analyze(song, overwrite="json", **hints, **options)
    stamp = path.stat().st_mtime_ns
    turned = {name: value[::-1] if name == "anchors" else value for name, value in hints.items()}
    assert analyze(song, **turned, **options).to_json() == hinted.to_json()
    assert path.stat().st_mtime_ns == stamp
    for other in ({}, {**hints, "beats_per_bar": 4}):
        with pytest.raises(OutputError, match=r"made with hints \{.*\}, not \{"):
            analyze(song, **other, **options)
    # A result that does not name any was made without.
    fields = json.loads(path.read_text())
    fields["provenance"] = {"hints": None}
    path.write_text(json.dumps(fields))
    assert rows(analyze(song, **options)) == rows(hinted)
    with pytest.raises(OutputError, match=r"made with hints \{\}, not \{"):
        analyze(song, **hints, **options)


TEMPO = "expected beats per minute from 10 to 3000"
LENGTHS = "expected bar lengths, whole numbers of beats from 1 to 64"
TIMES = "expected times in seconds, each alone or with its position in the bar, 1 to 4 (0: any)"


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        ({"min_bpm": 120, "max_bpm": 120}, "min_bpm: 120, max_bpm: 120; expected min_bpm below max_bpm"),
        ({"min_bpm": 300}, "min_bpm: 300, max_bpm: 215; expected min_bpm below max_bpm"),
        ({"min_bpm": 9}, f"min_bpm: 9; {TEMPO}"),
        ({"min_bpm": None}, f"min_bpm: None; {TEMPO}"),
        ({"min_bpm": [60, 70]}, f"min_bpm: [60, 70]; {TEMPO}"),
        ({"max_bpm": float("nan")}, f"max_bpm: nan; {TEMPO}"),
        ({"max_bpm": 3001}, f"max_bpm: 3001; {TEMPO}"),
        ({"beats_per_bar": []}, f"beats_per_bar: []; {LENGTHS}"),
        ({"beats_per_bar": [3, 0]}, f"beats_per_bar: [3, 0]; {LENGTHS}"),
        ({"beats_per_bar": 3.5}, f"beats_per_bar: 3.5; {LENGTHS}"),
        ({"beats_per_bar": 65}, f"beats_per_bar: 65; {LENGTHS}"),
        ({"beats_per_bar": "34"}, f"beats_per_bar: '34'; {LENGTHS}"),
        ({"beats_per_bar": [float("nan")]}, f"beats_per_bar: [nan]; {LENGTHS}"),
        ({"beats_per_bar": [[3], [3, 4]]}, f"beats_per_bar: [[3], [3, 4]]; {LENGTHS}"),
        *(
            (
                {"meter_weights": weights},
                f"meter_weights: {weights}; expected one weight of at least 0, with a finite sum above 0, for each of "
                "beats_per_bar [3, 4]",
            )
            for weights in ([1], [0, 0], [1, -1], [1, float("nan")], [1, float("inf")], 1)
        ),
        *(
            (
                {"meter_change_prob": value},
                f"meter_change_prob: {value}; expected a probability from 0 to below 1, that the bar length changes at "
                "a bar line",
            )
            for value in (-0.1, 1, float("nan"), [0.1])
        ),
        (
            {"meter_change_prob": 0.1, "beats_per_bar": [4, 4]},
            "meter_change_prob: 0.1 with beats_per_bar [4, 4]; expected bar lengths to change between",
        ),
        ({"anchors": 1.5}, f"anchors: 1.5; {TIMES}"),
        ({"anchors": np.float32(1.5)}, f"anchors: {np.float32(1.5)!r}; {TIMES}"),
        ({"anchors": {1.5: 2}}, f"anchors: {{1.5: 2}}; {TIMES}"),
        ({"anchors": "1"}, f"anchors: '1'; {TIMES}"),
        ({"anchors": [-1, (2, 1)]}, f"anchors: [-1, (2, 1)]; {TIMES}"),
        ({"anchors": [float("nan")]}, f"anchors: [nan]; {TIMES}"),
        ({"anchors": [float("inf")]}, f"anchors: [inf]; {TIMES}"),
        ({"anchors": [(1, 5)]}, f"anchors: [(1, 5)]; {TIMES}"),
        ({"anchors": [(1, 0.5)]}, f"anchors: [(1, 0.5)]; {TIMES}"),
        ({"anchors": [(1, 2, 3)]}, f"anchors: [(1, 2, 3)]; {TIMES}"),
        ({"anchors": [(1,), (1, 2)]}, f"anchors: [(1,), (1, 2)]; {TIMES}"),
        (
            {"anchors": [(1.001, 2), (1, 1)]},
            "anchors: positions 1 and 2 both at 1 s; expected one",
        ),
        (
            {"anchors": [(1.004, 2), 1.002, (1, 1)]},
            "anchors: positions 1 and 2 both at 1 s; expected one",
        ),
    ],
)
def test_hints_that_cannot_be_are_refused_before_any_folder_is_made(
    song: Path, options: dict[str, Any], tmp_path: Path, hints: dict[str, Any], message: str
) -> None:
    with pytest.raises(HintError) as refused:
        analyze(song, out_dir=tmp_path / "out", **hints, **options)
    assert str(refused.value) == message
    assert not (tmp_path / "out").exists()
    with pytest.raises(HintError):
        Analyzer(**{k: v for k, v in hints.items() if k != "anchors"}, **options)(
            song, anchors=hints.get("anchors")
        )


def test_anchors_that_the_song_does_not_have(
    song: Path, write_mix: Callable[[str], Path], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    analyzer = Analyzer(**options)
    assert analyzer(song, anchors=[4.99]).beats[-1] == 4.99
    for time in (4.996, 5, 7):
        with pytest.raises(HintError) as refused:
            analyzer(song, anchors=[time])
        assert str(refused.value) == f"anchors: {time} s; expected a time within the song, 0 to 4.99 s"
    with pytest.raises(
        HintError, match=r"anchors: no path goes through all 2 of them, the closest two 0\.1 s"
    ):
        analyzer(song, anchors=[1, 1.1])
    with pytest.raises(HintError, match="anchors: no path goes through all 2"):
        analyzer(song, anchors=[(1, 1), (1.5, 4)])
    # A mix is not separated first, which takes long.
    pytest.importorskip("demucs_infer", reason="demucs-infer is not installed (extra 'demucs')")
    monkeypatch.setattr(Session, "separate", lambda *arguments: pytest.fail("separated"))
    with pytest.raises(HintError, match=r"anchors: 2 s; expected a time within the song, 0 to 1\.99 s"):
        analyzer(write_mix("mix.wav"), anchors=[2])


def test_anchors_are_of_one_track(write_stems: Callable[..., Path], options: dict[str, Any]) -> None:
    songs = [write_stems("a"), write_stems("b")]
    with pytest.raises(HintError, match="anchors: given for 2 tracks; expected one, whose beats they are"):
        analyze(songs, anchors=[1.0], **options)
    [one] = analyze(songs[:1], anchors=[1.23], **options)
    assert 1.23 in one.beats
    with pytest.raises(BatchError, match="HintError: anchors: 9 s; expected a time within the song"):
        analyze(songs[:1], anchors=[9], **options)


def test_hints_on_the_command_line(
    song: Path, small_model: str, options: dict[str, Any], tmp_path: Path, command: Command
) -> None:
    hints = ["--min-bpm", "90", "--max-bpm", "200", "--beats-per-bar", "3,4", "--meter-weights", "0,1"]
    hints += ["--meter-change-prob", "0.01"]
    hints += ["--anchor", "1.23:2", "--anchor", "3"]
    run = ["analyze", song, "-m", small_model, "-d", "cpu", "--spec-backend", "numpy", "-o", tmp_path]
    status, text, _ = command(*run, "--json", "-a", *hints)
    assert status == 0
    [found] = json.loads(text)["results"]
    expected = analyze(
        song,
        min_bpm=90,
        max_bpm=200,
        meter_weights=[0, 1],
        meter_change_prob=0.01,
        anchors=[(1.23, 2), 3.0],
        **options,
    )
    assert [found["beats"], found["beat_positions"]] == [expected.beats, expected.beat_positions]
    assert {(1.23, 2)} < {*rows(expected)}
    # Decoded from the activations that were saved it is the same.
    status, printed, _ = command("decode", tmp_path / "song.activ.npz", "--threshold", "0", *hints)
    assert status == 0
    assert printed == "".join(f"{time:.2f}\t{position}\n" for time, position in rows(expected))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--anchor", "1:x"], 2, "argument --anchor: '1:x'; expected seconds, or seconds:position, such as"),
        (["--meter-weights", "1;2"], 2, "argument --meter-weights: '1;2'; expected numbers with commas"),
        (["--min-bpm", "300"], 2, "allin1-core: min_bpm: 300, max_bpm: 215; expected min_bpm below max_bpm"),
        (["--anchor", "-1"], 2, "allin1-core: anchors: [(-1.0, 0)]; expected times in seconds"),
    ],
)
def test_wrong_hints_on_the_command_line(
    song: Path, command: Command, arguments: list[str], status: int, message: str
) -> None:
    found, _, err = command("analyze", song, *arguments)
    assert found == status
    assert message in err
    assert "Traceback" not in err
