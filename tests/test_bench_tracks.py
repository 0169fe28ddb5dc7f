"""What the benchmarks run on, with the shared reference material and without, and what they run with."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from allin1_core.threads import usable_cores
from bench.measure import load
from bench.measure.memory import peak_memory_bytes
from parity import environment as machine
from parity import material as tracks


@pytest.fixture
def fresh() -> Iterator[None]:
    tracks.default_track.cache_clear()
    yield
    tracks.default_track.cache_clear()


def test_with_the_shared_folder_it_is_the_track_of_the_published_figures(shared: Path) -> None:
    track = tracks.default_track()
    assert track.name == "keep_on_rolling"
    assert track.seconds == pytest.approx(195.5, abs=0.05)
    assert track.stems.dtype == np.int16
    assert track.stems.shape[0] == 4
    assert not track.stems.flags.writeable


@pytest.mark.usefixtures("fresh")
def test_without_it_stempegs_song_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "shared_folder", lambda: None)
    track = tracks.default_track()
    assert track.name == "falcon69_repeated"
    assert track.seconds == pytest.approx(194.8)
    assert track.stems.shape == (4, round(194.8 * 44100))
    once = tracks.stempeg_track().stems
    assert np.array_equal(track.stems[:, : once.shape[1]], once)
    assert np.array_equal(track.stems[:, once.shape[1] : once.shape[1] + 1000], once[:, :1000])
    assert "stempeg" not in sys.modules
    assert "stempeg 0.2.6" in track.source


def test_stempegs_stems_are_in_our_order(shared: Path) -> None:
    """The shared folder has the same six seconds as FLAC, decoded by another decoder."""
    from parity.material import read_stems

    ours, theirs = tracks.stempeg_track().stems, read_stems("falcon69")
    assert ours.shape == theirs.shape
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 2


def test_cutting_and_repeating() -> None:
    track = tracks.Track("t", np.arange(8, dtype=np.int16).reshape(4, 2), "test")
    assert track.lasting(1 / 44100).stems.tolist() == [[0], [2], [4], [6]]
    assert track.lasting(5 / 44100).stems[1].tolist() == [2, 3, 2, 3, 2]


@pytest.mark.usefixtures("fresh")
def test_without_either_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(tracks, "shared_folder", lambda: None)
    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(FileNotFoundError, match=r"pip install 'allin1-core\[bench\]'"):
        tracks.default_track()


def test_peak_memory_counts_what_the_call_needs_and_not_its_input() -> None:
    large = np.ones(2**24)  # 128 MiB
    assert peak_memory_bytes(np.sum, large) < 8 * 2**20
    copied = peak_memory_bytes(np.copy, large)
    assert copied == pytest.approx(2**27, rel=0.05)


def test_threads_are_pinned_and_released() -> None:
    import torch

    before = torch.get_num_threads()
    cores = usable_cores()
    with load.pinned_threads(1) as threads:
        assert threads == 1
        assert torch.get_num_threads() == 1
        assert usable_cores() == 1
    assert torch.get_num_threads() == before
    assert usable_cores() == cores
    with pytest.raises(ValueError, match="threads: 0; expected at least 1"), load.pinned_threads(0):
        pass


def test_the_digest_follows_the_sources() -> None:
    assert machine.source_digest() == machine.source_digest()
    assert len(machine.source_digest()) == 64


def test_own_work_is_no_load_of_others() -> None:
    with load.OtherLoad() as others:
        sum(range(3_000_000))
    assert 0 <= others.cores <= machine.usable_cores() + 0.1
