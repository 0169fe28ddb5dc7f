"""A library through Ray: a song that kills its worker fails alone; errors of all songs, and of the cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from hard_use.libraries import write_library
from pyarrow import parquet

from allin1_core.errors import WeightsError
from allin1_core.library import analyze_library, ray_engine


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
    ],
)
def test_what_each_worker_has(
    machines: list[dict[str, float]], asked: int | None, use_cards: bool, shares: tuple[int, float, float]
) -> None:
    assert ray_engine._share(machines, asked, use_cards=use_cards) == shares


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
