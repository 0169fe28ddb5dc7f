"""A library: results and tables, failures, settings; what is done is not done again."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hard_use.libraries import rows

from allin1_core import Analyzer, __version__, analyze, load_result
from allin1_core.errors import BackendError, LibraryError, WeightsError
from allin1_core.files.reading import file_digest
from allin1_core.library import LibraryStatus, library_status, tables, worker
from allin1_core.library.places import Place
from allin1_core.library.sources import Shard
from allin1_core.results.result import AnalysisResult
from allin1_core.separation import track
from allin1_core.separation.track import Track

Command = Callable[..., tuple[int, str, str]]


def test_results_are_those_of_analyze_and_tables_hold_them(
    run_library: Callable[..., Any], library: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    status = run_library(library, tmp_path / "out", include_activations=True)
    assert (status.songs, status.done, status.failed, status.remaining) == (3, 3, 0, 0)
    analyze([*library.iterdir()], out_dir=tmp_path / "plain", include_activations=True, **options)
    files = sorted(path.name for path in (tmp_path / "plain").iterdir())
    assert files == [
        f"{name}{suffix}" for name in ("one", "three", "two") for suffix in (".activ.npz", ".json")
    ]
    for name in files:
        assert (tmp_path / "out/results" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    table = rows(tmp_path / "out")
    assert [Path(row["song"]).name for row in table] == ["one", "three", "two"]
    for row in table:
        result = load_result(tmp_path / "out/results" / f"{row['name']}.json")
        assert (row["bpm"], row["tempo"], row["beats"]) == (result.bpm, result.tempo, result.beats)
        assert row["positions"] == result.beat_positions
        assert row["sections"] == [vars(segment) for segment in result.segments]
        assert json.loads(row["provenance"]) == result.provenance
        assert len(row["sha256"]) == 64
    assert len({row["sha256"] for row in table}) == 3


def test_what_is_done_is_not_done_again(
    run_library: Callable[..., Any],
    library: Path,
    tmp_path: Path,
    analysed: list[str],
    write_stems: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    for part in ("2/2", "1/2"):
        run_library(library, out, shard=part)
    assert sorted(analysed) == ["one", "three", "two"]
    run_library(library, out)
    # The same songs in another order are the same source.
    run_library(sorted(library.iterdir(), reverse=True), out)
    assert len([*(out / "sources").iterdir()]) == 1
    assert len(analysed) == 3
    # Touched, but the same; then another song in its place; then a new one.
    os.utime(library / "one/bass.wav", (1, 1))
    run_library(library, out)
    assert len(analysed) == 3
    run_library(library, out)
    shutil.copy(library / "two/drums.wav", library / "one/drums.wav")
    write_stems("library/four")
    status = run_library(library, out)
    assert sorted(analysed[3:]) == ["four", "one"]
    assert (status.songs, status.done) == (4, 4)
    # Rows of before stay; the last one of a song counts.
    assert [Path(row["song"]).name for row in rows(out)] == ["four", "one", "one", "one", "three", "two"]
    # Rows that were lost with the process that had them are made of the results, whose audio is hashed once.
    shutil.rmtree(out / "songs")
    hashed: list[Path] = []
    monkeypatch.setattr(track, "file_digest", lambda path: hashed.append(path) or file_digest(path))
    run_library(library, out)
    assert len(analysed) == 5
    assert len(hashed) == len(set(hashed)) == 16
    assert [Path(row["song"]).name for row in rows(out)] == ["four", "one", "three", "two"]
    # Of rows without a record nothing says what they are made with.
    (out / "library.json").unlink()
    run_library(library, out)
    assert len(rows(out)) == 8


def test_a_song_of_another_source_leaves_the_result_of_its_name(
    run_library: Callable[..., Any],
    library: Path,
    tmp_path: Path,
    analysed: list[str],
) -> None:
    out, other = tmp_path / "out", tmp_path / "other/one"
    shutil.copytree(library / "two", other)
    for source in (library, other.parent, other.parent):
        run_library(source, out)
    assert len(analysed) == 4
    found = {row["song"]: row["name"] for row in rows(out)}
    assert found[str(library / "one")] == "one"
    assert found[str(other)].startswith("one-")
    for song, name in found.items():
        assert load_result(out / "results" / f"{name}.json").path == Path(song)
    # Without rows, and changed: still its own.
    shutil.rmtree(out / "songs")
    run_library(other.parent, out)
    assert len(analysed) == 4
    shutil.copy(other / "drums.wav", other / "vocals.wav")
    run_library(other.parent, out)
    assert len(analysed) == 5
    assert {row["name"] for row in rows(out)} == {found[str(other)]}


def test_status_counts_the_songs_of_the_last_source(
    run_library: Callable[..., Any], library: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    (library / "two/bass.wav").write_bytes(b"none")

    def counts(source: Path, **more: Any) -> tuple[int, ...]:
        run = run_library(source, out, **more)
        status = library_status(out)
        assert more or run == status
        return status.songs, status.done, status.failed, status.remaining, status.in_all

    assert counts(library) == (3, 2, 1, 0, 2)
    shutil.copytree(library / "one", tmp_path / "other/four")
    assert counts(tmp_path / "other") == (1, 1, 0, 0, 3)
    assert command("library", "status", out, "--quiet") == (0, "", "")
    assert command("library", "status", out)[1] == (
        "1 of 1 songs done, 0 failed, 0 remain\nwith other sources, 3 songs are done in this library\n"
    )
    assert counts(library / "two") == (1, 0, 1, 0, 3)
    # Songs remain, though the library has as many; then one is of both sources.
    shutil.copytree(library / "one", tmp_path / "other/five")
    shutil.copytree(library / "one", tmp_path / "other/six")
    parts = [counts(tmp_path / "other", shard=f"{part}/2") for part in (1, 2)]
    assert [(songs, done + remaining) for songs, done, _, remaining, _ in parts] == [(3, 3), (3, 3)]
    assert parts[1] == (3, 3, 0, 0, 5)
    # A failure of one shard is not another's.
    runs = {part: run_library(library, out, shard=part) for part in ("1/2", "2/2")}
    for part, run in runs.items():
        assert (run.failed, run.remaining) == (str(library / "two") in Shard.parse(part), 0)
    assert sum(run.songs for run in runs.values()) == 3
    both = tmp_path / "both.txt"
    both.write_text(f"{library / 'three'}\n{library / 'two'}\n{tmp_path / 'other/six'}\n")
    assert counts(both) == (3, 2, 1, 0, 5)


def test_each_of_two_sources_at_the_same_time_counts_its_own(
    run_library: Callable[..., Any],
    library: Path,
    write_stems: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, other = tmp_path / "out", write_stems("other/one")
    (library / "two/bass.wav").write_bytes(b"none")
    original, inner = Analyzer.analyze_track, list[LibraryStatus]()

    def analyze_track(self: Analyzer, track: Track, *arguments: Any, **options: Any) -> AnalysisResult:
        if track.path == library / "one":
            inner.append(run_library(other, out))
        return original(self, track, *arguments, **options)

    monkeypatch.setattr(Analyzer, "analyze_track", analyze_track)
    outer = run_library(library, out)
    assert (outer.songs, outer.done, outer.failures, outer.in_all) == (3, 2, {"AudioError": 1}, 3)
    [status] = inner
    assert (status.songs, status.done, status.failed, status.remaining) == (1, 1, 0, 0)
    assert library_status(out) == LibraryStatus(songs=1, done=1, failed=0, failures={}, in_all=3)
    # Nor has one of them the other's result, though both are called the same.
    found = {row["song"]: load_result(out / "results" / f"{row['name']}.json").path for row in rows(out)}
    assert found == {str(song): song for song in (library / "one", library / "three", other)}


def test_a_song_that_was_done_and_fails_as_it_is_now_has_failed(
    run_library: Callable[..., Any], library: Path, tmp_path: Path, command: Command
) -> None:
    out, whole = tmp_path / "out", (library / "two/bass.wav").read_bytes()
    run_library(library, out)
    (library / "two/bass.wav").write_bytes(b"none")
    for _ in range(2):
        status = run_library(library, out)
        assert status == library_status(out) == LibraryStatus(3, 2, 1, {"AudioError": 1}, in_all=2)
    (library / "two/bass.wav").write_bytes(whole)
    assert run_library(library, out) == library_status(out) == LibraryStatus(3, 3, 0, {}, in_all=3)


def test_a_song_with_too_long_a_name_for_its_result_fails_alone(
    run_library: Callable[..., Any], library: Path, tmp_path: Path
) -> None:
    (library / "two").rename(library / ("b" * 251))
    for _ in range(2):
        status = run_library(library, tmp_path / "out")
        assert (status.songs, status.done, status.failures) == (3, 2, {"OutputError": 1})
        assert "too long a name for a file (256 bytes" in rows(tmp_path / "out", "failures")[-1]["message"]


def test_threads_of_a_worker_share_its_analyzer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    class Slow:
        def __init__(self, **options: Any) -> None:
            time.sleep(0.1)
            made.append(self)

    monkeypatch.setattr(worker, "Analyzer", Slow)
    shared = worker.Worker(worker.Job(str(tmp_path), {}))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: shared._analyzer, range(2)))
    assert found == [*made, *made]


def test_a_failure_has_a_row_and_is_tried_again(
    run_library: Callable[..., Any], library: Path, tmp_path: Path, command: Command
) -> None:
    whole = (library / "two/bass.wav").read_bytes()
    (library / "two/bass.wav").write_bytes(whole[:2000])
    out = tmp_path / "out"
    status = run_library(library, out)
    assert (status.done, status.failed, status.failures) == (2, 1, {"AudioError": 1})
    [row] = rows(out, "failures")
    assert (row["song"], row["name"], row["error"]) == (str(library / "two"), "two", "AudioError")
    assert "two/bass.wav: truncated" in row["message"]
    assert command("library", "status", out)[:2] == (
        0,
        "2 of 3 songs done, 1 failed, 0 remain\n  1 AudioError\n",
    )
    (library / "two/bass.wav").write_bytes(whole)
    assert run_library(library, out) == library_status(out)
    assert (library_status(out).done, library_status(out).failed) == (3, 0)
    assert json.loads(command("library", "status", out, "--json")[1])["done"] == 3


def test_places_and_names_that_are_hidden_urls_or_no_text(
    run_library: Callable[..., Any],
    tmp_path: Path,
    write_stems: Callable[..., Path],
    analysed: list[str],
) -> None:
    name = os.fsdecode(b"song\xff")
    write_stems(".music/song").rename(tmp_path / ".music" / name)
    out = tmp_path / ".cache/out"
    for _ in range(2):
        status = run_library(f"file://{tmp_path}/.music", f"file://{out}")
        assert (status.songs, status.done) == (1, 1)
    assert len(analysed) == 1
    [row] = rows(out)
    assert row["song"] == f"{tmp_path}/.music/song\\xff"
    assert [path.name for path in (out / "results").iterdir()] == [f"{name}.json"]


def test_what_cannot_run_claims_no_place(
    run_library: Callable[..., Any], library: Path, tmp_path: Path
) -> None:
    for options, told in (
        ({"nn_backend": "none"}, "none"),
        ({"model": "absent.npz"}, r"absent\.npz: cannot be opened"),
        ({"model": "none", "engine": "ray"}, "weights 'none': unknown"),
        ({"weights_dir": tmp_path / "none", "engine": "ray"}, "weights_dir: no folder at"),
    ):
        with pytest.raises((BackendError, WeightsError), match=told):
            run_library(library, tmp_path / "out", **options)
        assert not (tmp_path / "out/library.json").exists()
    assert run_library(library, tmp_path / "out").done == 3


def test_a_mix_that_nothing_can_separate_claims_no_place(
    run_library: Callable[..., Any],
    library: Path,
    tmp_path: Path,
    analysed: list[str],
    write_mix: Callable[[str], Path],
) -> None:
    mix = write_mix("library/mix.wav")
    with pytest.raises(BackendError, match=f"{mix}: a mix, without ready stems: .* 'demucs-mlx'"):
        run_library(library, tmp_path / "out", demix_backend="demucs-mlx")
    assert analysed == []
    assert not (tmp_path / "out/library.json").exists()
    mix.unlink()
    assert run_library(library, tmp_path / "out", demix_backend="demucs-mlx").done == 3


def test_other_settings_are_refused(run_library: Callable[..., Any], library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_library(library, out)
    for other, told in (
        ({"max_bpm": 200.0}, "max_bpm 215.0, not 200.0"),
        ({"precision": "fast"}, 'not "fast"'),
        ({"precision": "fast", "min_bpm": 60.0, "max_bpm": 99.0}, "max_bpm .*; min_bpm .*; precision .*"),
    ):
        with pytest.raises(LibraryError, match=f"made with .*{told}; choose another --out"):
            run_library(library, out, **other)
    run_library(library, out, num_threads=1)
    of_before = (out / "library.json").read_text().replace(f'"{__version__}"', '"0.0.9"')
    (out / "library.json").write_text(of_before)
    with pytest.raises(LibraryError, match=r'allin1_core_version "0\.0\.9", not "'):
        run_library(library, out)


def test_a_resume_of_20000_songs_reads_the_manifest_alone(
    tmp_path: Path, run_library: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    songs = [f"s3://bucket/{index}.mp3" for index in range(20_000)]
    (tmp_path / "songs.txt").write_text("\n".join(songs))
    out = tmp_path / "out"
    run_library(["memory://none.wav"], out)
    place = Place(out)
    for start in range(0, len(songs), 1000):
        part = [
            {"song": song, "name": song[12:-4], "state": "", "beats": [0.5] * 4}
            for song in songs[start : start + 1000]
        ]
        tables.write_part(place, "songs", part)
    read: list[str] = []
    original = Place.read
    monkeypatch.setattr(Place, "read", lambda self, name: read.append(name) or original(self, name))
    # Nothing is analysed, or it would fail: there is no such bucket, nor a result.
    status = run_library(tmp_path / "songs.txt", out)
    assert (status.songs, status.done, status.failed) == (
        20_000,
        20_000,
        0,
    )  # the one of before is no longer a song
    assert [name for name in read if name.startswith("results")] == []
    assert len(read) < 10
    assert list((out / "results").iterdir()) == []
