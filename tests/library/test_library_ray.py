"""A library through Ray: a song that kills its worker fails alone; errors of all songs, and of the cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from hard_use.libraries import write_library
from pyarrow import parquet

from allin1_core.errors import LibraryError, WeightsError
from allin1_core.library import analyze_library, ray_engine
from allin1_core.library.sources import Song
from allin1_core.library.worker import Job, Worker


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Ray with two cores, for all tests here; it lasts longer than to start it."""
    # A short path, because sockets lie there.
    folder = tempfile.mkdtemp(prefix="ray-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEATHS", f"{folder}/deaths")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
        ray.init(
            num_cpus=2, include_dashboard=False, _temp_dir=folder, log_to_driver=False, logging_level="ERROR"
        )
        yield
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("machines", "asked", "use_cards", "shares"),
    [
        ([{"CPU": 2.0}], None, True, (2, 1, 0)),
        ([{"CPU": 2.0}], 4, True, (4, 0.5, 0)),
        ([{"CPU": 16.0}, {"CPU": 8.0}], 2, True, (2, 8, 0)),
        ([{"CPU": 16.0, "GPU": 2.0}], None, True, (2, 8, 1)),
        ([{"CPU": 16.0, "GPU": 2.0}], None, False, (16, 1, 0)),
        # A machine without a card does not make the share of cores larger than those beside a card.
        ([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 64.0}], None, True, (1, 8, 1)),
        # Three on two cards: room for two on each.
        ([{"CPU": 16.0, "GPU": 2.0}], 3, True, (3, 4, 0.5)),
        # Two heads without a core for a worker.
        ([{"CPU": 16.0}, {"CPU": 0.0}, {"memory": 1e9}], 2, True, (2, 8, 0)),
    ],
)
def test_what_each_worker_has(
    machines: list[dict[str, float]], asked: int | None, use_cards: bool, shares: tuple[int, float, float]
) -> None:
    assert ray_engine._share(machines, asked, use_cards=use_cards) == shares


def test_machines_without_a_core_for_a_worker_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LibraryError, match="no machine of the cluster has a core for a worker"):
        ray_engine._share([{"memory": 1e9}], None, use_cards=True)
    cluster = Cluster()
    run = ray_engine._Run(cluster, Job("/out", {"device": "cpu"}), 1)
    run._check_machines()
    for left in ({"memory": 1e9}, {"CPU": 1.0}):  # the worker has two
        cluster.resources = left
        with pytest.raises(
            LibraryError, match="no machine of the cluster is left for workers; what is done is"
        ):
            run._check_machines()
    # Also while it waits for one.
    waits = iter([([], [])] * 2)
    monkeypatch.setattr(cluster, "wait", lambda *_, **__: next(waits))
    with pytest.raises(LibraryError, match="no machine of the cluster is left for workers"):
        [*run.rows([Song("/0.wav", "0")])]


@pytest.mark.parametrize(("asked", "expected"), [(None, 2), (1, 1)])
def test_a_worker_has_a_thread_for_each_of_its_cores(asked: int | None, expected: int) -> None:
    run = ray_engine._Run(Cluster(), Job("/out", {"device": "cpu", "num_threads": asked}), 1)
    assert run._job.options["num_threads"] == expected


def test_a_worker_that_sees_another_place_under_the_path_is_told(tmp_path: Path, small_model: str) -> None:
    worker = Worker(Job(str(tmp_path), {"device": "cpu", "model": small_model}))
    with pytest.raises(
        LibraryError, match=f"machine .*: {tmp_path}: no library is there; .* must see it there"
    ):
        worker.load()
    (tmp_path / "library.json").write_text("{}")
    worker.load()
    options = {"device": "cpu", "model": small_model, "weights_dir": str(tmp_path / "none")}
    with pytest.raises(WeightsError, match="weights_dir: no folder at"):
        Worker(Job(str(tmp_path), options)).load()


class Cluster:
    """In place of Ray: a worker that works, one that dies at its first songs, and no room for another one."""

    exceptions = ray.exceptions

    def __init__(self) -> None:
        self.started: list[str] = []
        self.resources = {"CPU": 2.0}
        self.ended: dict[str, list[dict[str, str]]] = {}
        self.lost: list[dict[str, str]] = []
        self.waits = 0

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": self.resources}, {"Alive": False, "Resources": {"CPU": 64.0}}]

    def remote(self, _: object) -> Any:
        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=self._start))

    def _start(self, _: object) -> Any:
        name = f"worker{len(self.started)}"
        self.started.append(name)
        return SimpleNamespace(
            load=SimpleNamespace(remote=lambda: self._call(name, [])),
            run_all=SimpleNamespace(remote=lambda songs: self._call(name, songs)),
        )

    def _call(self, worker: str, songs: list[Song]) -> str:
        reference = f"{worker} {len(self.ended)}"
        self.ended[reference] = [{"song": song.location} for song in songs]
        return reference

    def wait(self, references: list[str], timeout: float) -> tuple[list[str], list[str]]:
        self.waits += 1
        assert self.waits < 100, "it waits for ever"
        workers = [name.split()[0] for name in references]
        for name, worker in zip(references, workers, strict=True):
            if any(row in self.lost for row in self.ended[name]):  # tried again: alone, if it kills once more
                assert (len(self.ended[name]), workers.count(worker)) == (1, 1)
        there = sorted(
            (name for name in references if name < "worker2"), key=lambda name: int(name.split()[1])
        )
        return there[:1], []

    def get(self, reference: str) -> Any:
        rows = self.ended[reference]
        if reference.startswith("worker1") and rows:
            self.lost += rows
            raise ray.exceptions.RayActorError
        return rows


def test_songs_of_a_lost_machine_go_to_a_worker_that_was_idle() -> None:
    songs = [Song(f"/{index:03d}.wav", f"{index}") for index in range(ray_engine._SONGS_A_CALL * 9)]
    cluster = Cluster()
    run = ray_engine._Run(cluster, Job("/out", {"device": "cpu"}), 2)
    assert sorted(row["song"] for row in run.rows(songs)) == [song.location for song in songs]
    assert cluster.started == ["worker0", "worker1", "worker2"]
    assert cluster.lost


def test_workers_that_die_before_they_have_songs_end_the_run() -> None:
    class Lost(Cluster):
        def wait(self, references: list[str], timeout: float) -> tuple[list[str], list[str]]:
            super().wait(references, timeout)
            return references[:1], []

        def get(self, reference: str) -> Any:
            raise ray.exceptions.RayActorError

    cluster = Lost()
    run = ray_engine._Run(cluster, Job("/out", {"device": "cpu"}), 2)
    with pytest.raises(LibraryError, match=r"workers die as they load \(.*\); give them more memory"):
        [*run.rows([Song("/0.wav", "0"), Song("/1.wav", "1")])]
    assert len(cluster.started) == 2 * 3 + 2


def test_a_song_that_kills_its_worker_fails_and_no_other(
    tmp_path: Path, stems: np.ndarray, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_library(tmp_path / "songs", stems, 12)
    [silent] = write_library(tmp_path / "silence", np.zeros_like(stems), 1)
    silent.rename(tmp_path / "songs/silent")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    options: dict[str, Any] = {"model": small_model, "device": "cpu", "progress": False}
    options["spec_backend"] = "deadly_backend:log_spectrogram"
    status = analyze_library(tmp_path / "songs", tmp_path / "ray", engine="ray", num_workers=2, **options)
    assert (status.songs, status.done, status.failures) == (13, 12, {"WorkerDied": 1})
    [row] = parquet.read_table(tmp_path / "ray/failures").to_pylist()
    assert row["song"] == str(tmp_path / "songs/silent")
    assert "its worker died 3 times" in row["message"]
    # Tried once with others, and twice alone.
    deaths = Path(ray._private.worker._global_node.get_temp_dir_path(), "deaths")
    assert deaths.read_text() == "died\n" * 3
    shutil.rmtree(tmp_path / "songs/silent")
    analyze_library(tmp_path / "songs", tmp_path / "local", **options)
    for path in (tmp_path / "local/results").iterdir():
        assert (tmp_path / "ray/results" / path.name).read_bytes() == path.read_bytes()
    assert len([*(tmp_path / "ray/results").iterdir()]) == 12


def test_what_fails_every_song_ends_the_run(tmp_path: Path, stems: np.ndarray) -> None:
    write_library(tmp_path / "songs", stems, 2)
    (tmp_path / "damaged.npz").write_bytes(b"none")
    with pytest.raises(WeightsError, match=r"damaged\.npz"):
        analyze_library(
            tmp_path / "songs",
            tmp_path / "out",
            engine="ray",
            model=str(tmp_path / "damaged.npz"),
            progress=False,
        )
