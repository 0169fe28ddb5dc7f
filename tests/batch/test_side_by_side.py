"""Tracks of a list side by side: the files, order and failures of one after another, in bounded memory."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hard_use.libraries import contents, leftovers, write_library

from allin1_core import Analyzer, Audio, Stems, analyze, batch
from allin1_core.audio.reading import stated_seconds
from allin1_core.audio.types import STEM_NAMES
from allin1_core.batch.side_by_side import Room, StoppedError, number_of_jobs, run_side_by_side
from allin1_core.errors import AudioError, BackendError, BatchError, OptionError, WeightsError
from allin1_core.network.model import Model
from allin1_core.results.result import AnalysisResult
from allin1_core.separation import track
from allin1_core.separation.track import AudioFiles, Track, find_ready_stems
from allin1_core.session import Session
from allin1_core.settings import Settings
from allin1_core.threads import limited_cores, usable_cores

pytestmark = pytest.mark.timeout(120)


def outcome(paths: list[Any], folder: Path, **options: Any) -> tuple[list[str | None], list[str]]:
    """Results as JSON and failures in words, each in their order."""
    try:
        results: list[AnalysisResult | None] = analyze(paths, out_dir=folder / "struct", **options)
        failures = []
    except BatchError as error:
        results = error.results
        failures = [f"{path}: {type(each).__name__}: {each}" for path, each in error.failures]
    return [result and result.to_json() for result in results], failures


def test_files_order_and_failures_are_those_of_one_after_another(
    write_mix: Callable[..., Path],
    stems: np.ndarray,
    options: dict[str, Any],
    separation_repository: Path,
    tmp_path: Path,
) -> None:
    """Of stems, mixes, samples, names that come twice, a path that comes twice, and what cannot be read."""
    folders = write_library(tmp_path / "library", stems, 4, seconds=1.0)
    again = write_library(tmp_path / "other", stems[::-1], 2, seconds=0.7)
    (folders[1] / "drums.wav").write_bytes(b"RIFF no audio at all")
    mixes = [write_mix("mixes/long.wav", 1.5), write_mix("mixes/short.wav", 0.5)]
    paths = [mixes[0], *folders, tmp_path / "missing.wav", *again, mixes[1], folders[0]]
    paths += [Stems(stems[:, :50_000].copy()), Audio(stems[0, :30_000, np.newaxis], 44100)]
    options |= {
        "demix_model": "small",
        "demix_repository": separation_repository,
        "include_activations": True,
        "include_embeddings": True,
        "exports": ["beats", "audacity"],
        "keep_byproducts": True,
    }
    found = {}
    for jobs in (1, 3):
        folder = tmp_path / str(jobs)
        kept = {name: folder / name for name in ("demix_dir", "spec_dir")}
        done = outcome(paths, folder, jobs=jobs, **kept, **options)
        found[jobs] = (done, contents(folder))
        assert leftovers(folder) == []
    assert found[3] == found[1]
    (results, failures), files = found[3]
    assert [result is None for result in results] == [False, False, True] + 2 * [False] + [True] + 5 * [False]
    assert [line.partition(": ")[0] for line in failures] == [str(folders[1]), str(tmp_path / "missing.wav")]
    # The second track of a name is called otherwise, whichever ends first.
    names = [Path(name).stem for name in files if name.endswith(".json") and name.startswith("struct")]
    assert len(names) == 9
    assert sum(name.startswith("track0000-") for name in names) == 1


def watched(
    monkeypatch: pytest.MonkeyPatch, watch: Callable[[Track], contextlib.AbstractContextManager]
) -> None:
    """Have each track analysed inside of that context."""
    analyze_track = Analyzer.analyze_track

    def run(self: Analyzer, track: Track, *arguments: Any, **options: Any) -> AnalysisResult:
        with watch(track):
            return analyze_track(self, track, *arguments, **options)

    monkeypatch.setattr(Analyzer, "analyze_track", run)


@pytest.mark.parametrize(("jobs", "most"), [(1, 1), (3, 3), (99, 7)])
def test_so_many_tracks_are_in_flight_and_no_more(
    stems: np.ndarray,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    jobs: int,
    most: int,
) -> None:
    all_there, inside, peak, lock = threading.Barrier(most), set(), [], threading.Lock()

    @contextlib.contextmanager
    def watch(track: Track) -> Iterator[None]:
        with lock:
            inside.add(track.name)
            peak.append(len(inside))
        if int(track.name[-1]) < most:
            all_there.wait(30)
        yield
        inside.remove(track.name)

    watched(monkeypatch, watch)
    paths = write_library(tmp_path / "library", stems, 7, seconds=0.3)
    assert [result.path for result in analyze(paths, jobs=jobs, **options)] == paths
    assert max(peak) == most


def test_a_long_track_is_alone(
    stems: np.ndarray, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In flight is together no more than is allowed for each job: here 0.375 s, with three jobs 1.125 s."""
    monkeypatch.setattr(batch, "SECONDS_A_JOB", 0.375)
    lengths = [0.375, 0.375, 0.375, 3.0, 0.25, 0.75, 0.5, 0.125]
    paths = [
        write_library(tmp_path / f"{index}", stems, 1, length)[0] for index, length in enumerate(lengths)
    ]
    paths = [path.rename(path.parent / f"song{index}") for index, path in enumerate(paths)]
    inside: dict[str, float] = {}
    seen, lock = [], threading.Lock()

    @contextlib.contextmanager
    def watch(track: Track) -> Iterator[None]:
        with lock:
            inside[track.name] = lengths[int(track.name[-1])]
            seen.append(dict(inside))
        time.sleep(0.1)
        yield
        with lock:
            del inside[track.name]

    watched(monkeypatch, watch)
    assert len(analyze(paths, jobs=3, **options)) == len(paths)
    assert [each for each in seen if "song3" in each] == [{"song3": 3.0}]
    assert max(sum(each.values()) for each in seen if "song3" not in each) <= 1.125


def test_room_that_was_given_back_is_there_to_the_last_bit() -> None:
    """Sums of lengths are rounded; were what is left of them compared, a track that needs all would wait for ever."""
    room = Room(1.2)
    with room.taken(0.4), room.taken(0.2):
        pass
    let_in = threading.Event()

    def take_all() -> None:
        with room.taken(5.0):
            let_in.set()

    threading.Thread(target=take_all, daemon=True).start()
    assert let_in.wait(10)
    exactly = Room(1.0)
    with exactly.taken(0.5):
        second = threading.Thread(target=exactly.taken(0.5).__enter__, daemon=True)
        second.start()
        second.join(10)
        assert not second.is_alive()


def test_what_fails_every_track_is_raised_for_the_foremost_and_ends_the_list(
    stems: np.ndarray, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, begun = threading.Barrier(2), []

    @contextlib.contextmanager
    def watch(track: Track) -> Iterator[None]:
        begun.append(track.name)
        if track.name in ("track0001", "track0002"):
            both.wait(30)
            if track.name == "track0002":
                raise BackendError("of track 2")
            time.sleep(0.3)  # the later one is first
            raise WeightsError("of track 1")
        yield

    watched(monkeypatch, watch)
    paths = write_library(tmp_path / "library", stems, 9, seconds=0.3)
    with pytest.raises(WeightsError, match="of track 1"):
        analyze(paths, out_dir=tmp_path / "out", jobs=3, **options)
    assert {"track0000", "track0001", "track0002"} <= set(begun)
    assert len(begun) < len(paths)
    assert "track0000.json" in contents(tmp_path / "out")
    assert leftovers(tmp_path / "out") == []


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("_interruptible")
def test_what_runs_is_told_of_an_interruption() -> None:
    stopping, both, told = threading.Event(), threading.Barrier(2), []

    def run(index: int, item: str, begun: Callable[[], None]) -> None:
        begun()
        both.wait(30)
        if item == "b":
            time.sleep(0.2)  # a signal just before the calling thread begins to wait would not end its wait
            os.kill(os.getpid(), signal.SIGINT)
        told.append(stopping.wait(10))
        raise StoppedError

    with pytest.raises(KeyboardInterrupt):
        run_side_by_side("abc", 2, run, stopping)
    assert told == [True, True]


@pytest.mark.usefixtures("_interruptible")
def test_an_interruption_leaves_whole_files_and_no_thread(
    stems: np.ndarray, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, which is the calling thread's: no track runs in it that might end with a lock of the others."""
    paths = write_library(tmp_path / "library", stems, 6, seconds=0.5)
    analyze(paths, out_dir=tmp_path / "undisturbed", jobs=1, **options)
    interrupted, first, call = threading.Event(), threading.Lock(), Model.__call__

    def run(self: Model, *arguments: Any, **keywords: Any) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        if first.acquire(blocking=False):
            interrupted.set()
            os.kill(os.getpid(), signal.SIGINT)
        interrupted.wait(30)
        time.sleep(0.2)
        return call(self, *arguments, **keywords)

    monkeypatch.setattr(Model, "__call__", run)
    with pytest.raises(KeyboardInterrupt):
        analyze(paths, out_dir=tmp_path / "out", jobs=3, **options)
    assert interrupted.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("track_")]
    expected, found = contents(tmp_path / "undisturbed"), contents(tmp_path / "out")
    assert len(found) < len(expected)
    assert {name: expected[name] for name in found} == found
    assert leftovers(tmp_path / "out") == []
    monkeypatch.undo()
    assert len(analyze(paths, out_dir=tmp_path / "out", **options)) == len(paths)
    assert contents(tmp_path / "out") == expected


def test_each_is_begun_after_the_ones_before_and_the_foremost_error_is_raised() -> None:
    begun_in_order, ended, all_three = [], [], threading.Event()

    def run(index: int, item: str, begun: Callable[[], None]) -> None:
        time.sleep(0.005 * (index % 3))
        begun_in_order.append(item)
        begun()
        if item in "gh":
            all_three.wait(30)
            raise AudioError(item)
        if item == "i":
            all_three.set()
            time.sleep(0.5)  # the others fail meanwhile
        else:
            time.sleep(0.01 * (3 - index % 3))
        ended.append(item)

    with pytest.raises(AudioError, match=r"^g$"):
        run_side_by_side("abcdefghijklmnopqrstuvwxyz", 3, run, threading.Event())
    assert "".join(begun_in_order) == "abcdefghi"
    assert sorted(ended) == [*"abcdefi"]


def test_what_was_stopped_raises_nothing_of_its_own() -> None:
    def run(index: int, item: int, begun: Callable[[], None]) -> None:
        raise StoppedError

    run_side_by_side(range(3), 2, run, threading.Event())


def test_jobs_are_those_asked_for_or_one_for_each_core(small_model: str) -> None:
    def jobs(num_tracks: int = 1000, **settings: Any) -> int:
        return number_of_jobs(Session(Settings(model=small_model, device="cpu", **settings)), num_tracks)

    assert jobs() == min(usable_cores(), 16)
    assert jobs(num_tracks=1) == 1
    assert jobs(num_tracks=0) == 1
    assert jobs(jobs=40) == 40
    assert jobs(jobs=40, num_tracks=7) == 7
    assert jobs(num_threads=1) == 1
    assert jobs(num_threads=1, jobs=3) == 3
    with limited_cores(1):
        assert jobs() == jobs(jobs=3) == 1
    for number in (0, -1):
        with pytest.raises(OptionError, match=f"jobs: {number}; expected at least 1"):
            Settings(jobs=number)


def test_mlx_keeps_to_one_thread(small_model: str) -> None:
    pytest.importorskip("mlx.core")
    assert number_of_jobs(Session(Settings(model=small_model, device="mlx")), 5) == 1
    asked_for_two = Session(Settings(model=small_model, device="mlx", jobs=2))
    with pytest.raises(BackendError, match="jobs: 2; expected 1, because MLX's arrays belong to the thread"):
        number_of_jobs(asked_for_two, 5)


def test_tracks_are_hashed_at_the_same_time_and_their_stems_too(
    stems: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_library(tmp_path, stems, 2, seconds=0.5)
    all_at_once, digest = threading.Barrier(8), track.file_digest

    def together(path: Path) -> str:
        all_at_once.wait(30)
        return digest(path)

    monkeypatch.setattr(track, "file_digest", together)
    found: dict[int, dict[str, str]] = {}

    def run(index: int, path: Path, begun: Callable[[], None]) -> None:
        begun()
        found[index] = AudioFiles(Track.of(path), None).digests

    monkeypatch.setattr("allin1_core.threads.at_most_usable", lambda most: most or 4)
    run_side_by_side(paths, 2, run, threading.Event())
    for index, path in enumerate(paths):
        files = {f"{stem}.wav": (path / f"{stem}.wav").read_bytes() for stem in STEM_NAMES}
        assert found[index] == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def test_the_length_that_a_header_states(stems: np.ndarray, song: Path, tmp_path: Path) -> None:
    for suffix in ("wav", "flac", "mp3", "ogg"):
        soundfile.write(tmp_path / f"a.{suffix}", stems[1], 44100)
        assert stated_seconds(tmp_path / f"a.{suffix}") == pytest.approx(5.0, abs=0.1)
    (tmp_path / "none.wav").write_bytes(b"no audio")
    assert stated_seconds(tmp_path / "none.wav") == stated_seconds(tmp_path / "missing.wav") == 0.0
    assert stated_seconds("/proc/self/mem") == 0.0  # a file whose first byte cannot be read
    content = io.BytesIO((tmp_path / "a.flac").read_bytes())
    for given in (song, tmp_path / "a.wav", Stems(stems), Audio(stems[0][:, np.newaxis], 44100), content):
        track = Track.of(given)
        assert track.stated_seconds(find_ready_stems(track, None)) == pytest.approx(5.0, abs=0.1)


def test_the_length_of_a_file_of_libsndfile_needs_no_ffmpeg(
    stems: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for suffix in ("flac", "wav", "aiff"):
        soundfile.write(tmp_path / f"a.{suffix}", stems[1], 44100)
        assert stated_seconds(tmp_path / f"a.{suffix}") == len(stems[1]) / 44100
    (tmp_path / "none.flac").write_bytes(b"fLaC and no more")
    assert stated_seconds(tmp_path / "none.flac") == 0.0
