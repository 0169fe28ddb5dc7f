"""What tracks side by side share: cores, a device, the separation; and whose time is whose."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hard_use.libraries import contents, write_library

from allin1_core import Analyzer, analyze, batch, session
from allin1_core.network.model import Model
from allin1_core.separation.track import Track
from allin1_core.session import Session
from allin1_core.threads import cores_of_a_reader, limited_cores, usable_cores
from allin1_core.timings.schema import StageTiming, read_timings

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("nn_backend", ["fused", "torch"])
def test_tracks_share_the_cores(
    small_model: str, stems: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nn_backend: str
) -> None:
    """As many as there are cores start no threads of their own, unless one computes at a time; a lone track has all."""
    if nn_backend == "torch":
        pytest.importorskip("torch")
    started: list[str] = []
    start = threading.Thread.start
    monkeypatch.setattr(
        threading.Thread, "start", lambda thread: started.append(thread.name) or start(thread)
    )
    cores = min(usable_cores(), 4)
    paths = write_library(tmp_path / "library", stems, 2 * cores, seconds=0.5)
    analyzer = Analyzer(model=small_model, device="cpu", nn_backend=nn_backend)
    with limited_cores(cores):
        batch.run_batch(dict.fromkeys(paths), analyzer, batch.Outputs(), progress=False)
    tracks = {"model_load", *(f"track_{number}" for number in range(1, cores + 1))}
    pools = {name.rpartition("_")[0] for name in set(started) - tracks} - {"tqdm"}  # its monitor
    assert tracks <= set(started)
    assert pools == ({"stems", "log_spectrogram", "dbn"} if nn_backend == "torch" and cores > 1 else set())
    assert analyzer.session.model._network._num_threads == usable_cores()  # type: ignore[attr-defined]


def lines_of(path: Path, stage: str) -> list[StageTiming]:
    return sorted((line for line in read_timings(path) if line.stage == stage), key=lambda line: line.start)


@pytest.mark.parametrize("nn_backend", ["fused", "torch"])
def test_each_stage_is_timed_in_its_track_and_waiting_for_a_turn_is_none_of_it(
    stems: np.ndarray, small_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nn_backend: str
) -> None:
    """Compiled kernels run side by side; what torch computes is one track's at a time, as on a GPU."""
    if nn_backend == "torch":
        pytest.importorskip("torch")
    both, call = threading.Barrier(2), Model.__call__

    def slow(self: Model, *arguments: Any, **keywords: Any) -> Any:
        if nn_backend == "fused":
            both.wait(30)
        time.sleep(0.2)
        return call(self, *arguments, **keywords)

    monkeypatch.setattr(Model, "__call__", slow)
    paths, path = write_library(tmp_path / "library", stems, 2, seconds=0.5), tmp_path / "t.jsonl"
    analyze(paths, jobs=2, model=small_model, device="cpu", nn_backend=nn_backend, timings_path=path)
    one, other = lines_of(path, "nn")
    assert (other.start < one.end) == (nn_backend == "fused")
    assert {line.concurrent for line in read_timings(path)} == {2}
    assert {line.thread for line in read_timings(path)} <= {"track_1", "track_2", "model_load"}
    assert [line.parent for line in lines_of(path, "metrical_dbn")] == 2 * ["postprocess"]


def test_beside_a_device_so_many_are_read_as_keep_the_cores_busy(
    stems: np.ndarray, small_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here one; were all read at once, the device would wait for the first until all are nearly done."""
    pytest.importorskip("torch")
    monkeypatch.setattr(session, "_CORES_OF_A_READER", 10**6)
    read_stems, path = Track.read_stems, tmp_path / "t.jsonl"

    def slow(self: Track, *arguments: Any) -> Any:
        time.sleep(0.1)
        return read_stems(self, *arguments)

    monkeypatch.setattr(Track, "read_stems", slow)
    paths = write_library(tmp_path / "library", stems, 3, seconds=0.3)
    analyze(paths, jobs=3, model=small_model, device="cpu", nn_backend="torch", timings_path=path)
    lines = lines_of(path, "audio_read")
    assert len(lines) == 3
    for one, other in itertools.pairwise(lines):
        assert one.end <= other.start


@pytest.mark.parametrize("nn_backend", ["fused", "torch"])
def test_tracks_that_are_read_side_by_side_share_the_cores(
    stems: np.ndarray, small_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nn_backend: str
) -> None:
    """Also where one computes at a time; a lone track has all of them."""
    if nn_backend == "torch":
        pytest.importorskip("torch")
    read_stems, cores = Track.read_stems, list[int]()

    def seen(self: Track, *arguments: Any) -> Any:
        cores.append(cores_of_a_reader())
        return read_stems(self, *arguments)

    monkeypatch.setattr(Track, "read_stems", seen)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    paths = write_library(tmp_path / "library", stems, 3, seconds=0.3)
    for tracks in (paths[:1], paths):
        analyze(tracks, jobs=3, model=small_model, device="cpu", nn_backend=nn_backend)
    assert cores == [16, 5, 5, 5]


def test_mixes_are_separated_one_at_a_time(
    write_mix: Callable[..., Path],
    options: dict[str, Any],
    separation_repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    separate, path = Session.separate, tmp_path / "t.jsonl"

    def slow(self: Session, *arguments: Any) -> Any:
        time.sleep(0.1)
        return separate(self, *arguments)

    monkeypatch.setattr(Session, "separate", slow)
    mixes = [write_mix(f"{index}.wav", 0.3) for index in range(3)]
    separation = {"demix_model": "small", "demix_repository": separation_repository}
    analyze(mixes, jobs=3, timings_path=path, **separation, **options)
    lines = lines_of(path, "demix")
    assert len(lines) == 3
    for one, other in itertools.pairwise(lines):
        assert one.end <= other.start


def test_a_forked_child_finds_every_turn_free_and_analyses_a_list(
    stems: np.ndarray, small_model: str, tmp_path: Path
) -> None:
    """Of a parent that has analysed the list itself, and holds the device."""
    paths = write_library(tmp_path / "library", stems, 3, seconds=0.3)
    analyzer = Analyzer(model=small_model, device="cpu", jobs=2)

    def run(name: str) -> None:
        (tmp_path / name).mkdir()
        batch.run_batch(
            dict.fromkeys(paths), analyzer, batch.Outputs(out_dir=tmp_path / name), progress=False
        )

    run("parent")
    turns = (analyzer.session._device, analyzer.session._separation_lock)
    with turns[0], turns[1]:
        child = os.fork()
        if child == 0:
            with turns[0], turns[1]:
                run("child")
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert contents(tmp_path / "child") == contents(tmp_path / "parent")
