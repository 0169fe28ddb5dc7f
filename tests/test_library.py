"""A library: its songs found, divided and named; results and tables; what is done is not done again; bad input."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from allin1_core import analyze, load_result
from allin1_core.analysis import Analyzer
from allin1_core.errors import BackendError, LibraryError, OutputError, WeightsError
from allin1_core.library import analyze_library, library_status, record, tables
from allin1_core.library.places import Place
from allin1_core.library.sources import Shard, find_songs

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def music(tmp_path: Path, write_mix: Callable[..., Path], write_stems: Callable[..., Path]) -> Path:
    """Two songs of one name, a folder of stems, and what is none."""
    write_mix("music/a/song.wav", 1.0)
    write_mix("music/b/Song.flac", 1.5)
    write_stems("music/c/stems")
    write_mix("music/.trash/hidden.wav", 0.5)
    (tmp_path / "music" / "notes.pdf").write_bytes(b"none")
    return tmp_path / "music"


@pytest.fixture
def library(tmp_path: Path, write_stems: Callable[..., Path], stems: np.ndarray) -> Path:
    """Three folders of stems."""
    for index, name in enumerate(("one", "two", "three")):
        write_stems(f"library/{name}", samples=np.roll(stems, index * 5000, axis=1)[:, :66150])
    return tmp_path / "library"


@pytest.fixture
def run(options: dict[str, Any]) -> Callable[..., Any]:
    """`analyze_library` with the small network."""
    return lambda source, out, **more: analyze_library(source, out, progress=False, **options | more)


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tracks that are analysed, each time."""
    names: list[str] = []
    original = Analyzer.analyze_track

    def analyze_track(self: Analyzer, track: Any, *arguments: Any, **keywords: Any) -> Any:
        names.append(track.name)
        return original(self, track, *arguments, **keywords)

    monkeypatch.setattr(Analyzer, "analyze_track", analyze_track)
    return names


def rows(out: Path, table: str = "songs") -> list[dict[str, Any]]:
    return sorted(parquet.read_table(out / table).to_pylist(), key=lambda row: row["song"])


def test_songs_of_a_folder_have_names_of_their_own(music: Path) -> None:
    (music / "again").symlink_to(music, target_is_directory=True)
    songs, number = find_songs(music)
    assert number == 3
    found = {song.location.removeprefix(f"{music}/"): song.name for song in songs}
    assert found["c/stems"] == "stems"
    assert found["a/song.wav"].startswith("song-")
    assert found["b/Song.flac"].startswith("Song-")
    assert {len(name) for name in found.values()} == {5, 21}
    assert all(song.state for song in songs)
    # The same in another order, and beside fewer songs.
    again, _ = find_songs([music / "b/Song.flac", music / "a/song.wav"])
    assert [song.name for song in again] == [found["b/Song.flac"], found["a/song.wav"]]


def test_lists_of_songs(music: Path, tmp_path: Path) -> None:
    expected = [str(music / "a/song.wav"), "https://host/b%20c.mp3?token=1", "s3://bucket/stems"]
    (tmp_path / "songs.txt").write_text("# mine\n" + "\n\n".join(expected) + "\n")
    parquet.write_table(pa.table({"where": expected, "number": [1, 2, 3]}), tmp_path / "songs.parquet")
    for songs, _ in (
        find_songs(tmp_path / "songs.txt"),
        find_songs(tmp_path / "songs.parquet", column="where"),
        find_songs(expected),
    ):
        assert [song.location for song in songs] == expected
        assert [song.name for song in songs] == ["song", "b%20c", "stems"]
        assert [bool(song.state) for song in songs] == [True, False, False]
    with pytest.raises(LibraryError, match="no column 'path'; found where, number"):
        find_songs(tmp_path / "songs.parquet")
    with pytest.raises(LibraryError, match="column 'number' has other values"):
        find_songs(tmp_path / "songs.parquet", column="number")


def test_shards_are_disjoint_complete_and_each_songs_own() -> None:
    locations = [f"s3://bucket/song{index}.mp3" for index in range(2000)]
    parts = [
        [song.location for song in find_songs(locations, shard=Shard.parse(f"{index}/7"))[0]]
        for index in range(1, 8)
    ]
    assert sorted(location for part in parts for location in part) == sorted(locations)
    assert max(map(len, parts)) < 1.2 * min(map(len, parts))
    fewer = find_songs(locations[::-3], shard=Shard.parse("3/7"))[0]
    assert {song.location for song in fewer} == {*locations[::-3]} & {*parts[2]}
    assert Shard.parse(None) == Shard(1, 1)


def test_results_are_those_of_analyze_and_tables_hold_them(
    run: Callable[..., Any], library: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    status = run(library, tmp_path / "out", include_activations=True)
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
    run: Callable[..., Any],
    library: Path,
    tmp_path: Path,
    analysed: list[str],
    write_stems: Callable[..., Path],
) -> None:
    out = tmp_path / "out"
    for part in ("2/2", "1/2"):
        run(library, out, shard=part)
    assert sorted(analysed) == ["one", "three", "two"]
    run(library, out)
    assert len(analysed) == 3
    # Touched, but the same; then another song in its place; then a new one.
    os.utime(library / "one/bass.wav", (1, 1))
    run(library, out)
    assert len(analysed) == 3
    run(library, out)
    shutil.copy(library / "two/drums.wav", library / "one/drums.wav")
    write_stems("library/four")
    status = run(library, out)
    assert sorted(analysed[3:]) == ["four", "one"]
    assert (status.songs, status.done) == (4, 4)
    # Rows of before stay; the last one of a song counts.
    assert [Path(row["song"]).name for row in rows(out)] == ["four", "one", "one", "one", "three", "two"]
    # Rows that were lost with the process that had them are made of the results.
    shutil.rmtree(out / "songs")
    run(library, out)
    assert len(analysed) == 5
    assert [Path(row["song"]).name for row in rows(out)] == ["four", "one", "three", "two"]


def test_a_failure_has_a_row_and_is_tried_again(
    run: Callable[..., Any], library: Path, tmp_path: Path, command: Command
) -> None:
    whole = (library / "two/bass.wav").read_bytes()
    (library / "two/bass.wav").write_bytes(whole[:2000])
    out = tmp_path / "out"
    status = run(library, out)
    assert (status.done, status.failed, status.failures) == (2, 1, {"AudioError": 1})
    [row] = rows(out, "failures")
    assert (row["song"], row["name"], row["error"]) == (str(library / "two"), "two", "AudioError")
    assert "two/bass.wav: truncated" in row["message"]
    assert command("library", "status", out)[:2] == (
        0,
        "2 of 3 songs done, 1 failed, 0 remain\n  1 AudioError\n",
    )
    (library / "two/bass.wav").write_bytes(whole)
    assert run(library, out) == library_status(out)
    assert (library_status(out).done, library_status(out).failed) == (3, 0)
    assert json.loads(command("library", "status", out, "--json")[1])["done"] == 3


def test_places_and_names_that_are_hidden_urls_or_no_text(
    run: Callable[..., Any],
    tmp_path: Path,
    write_stems: Callable[..., Path],
    analysed: list[str],
) -> None:
    name = os.fsdecode(b"song\xff")
    write_stems(".music/song").rename(tmp_path / ".music" / name)
    out = tmp_path / ".cache/out"
    for _ in range(2):
        status = run(f"file://{tmp_path}/.music", f"file://{out}")
        assert (status.songs, status.done) == (1, 1)
    assert len(analysed) == 1
    [row] = rows(out)
    assert row["song"] == f"{tmp_path}/.music/song\\xff"
    assert [path.name for path in (out / "results").iterdir()] == [f"{name}.json"]


def test_what_cannot_run_claims_no_place(run: Callable[..., Any], library: Path, tmp_path: Path) -> None:
    for options, told in (
        ({"nn_backend": "none"}, "none"),
        ({"model": "absent.npz"}, r"absent\.npz: cannot be opened"),
    ):
        with pytest.raises((BackendError, WeightsError), match=told):
            run(library, tmp_path / "out", **options)
    assert run(library, tmp_path / "out").done == 3


def test_other_settings_are_refused(run: Callable[..., Any], library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(library, out)
    for other, told in (
        ({"max_bpm": 200.0}, "max_bpm 215.0, not 200.0"),
        ({"precision": "fast"}, 'not "fast"'),
    ):
        with pytest.raises(LibraryError, match=f"made with .*{told}; choose another --out"):
            run(library, out, **other)
    run(library, out, num_threads=1)
    of_before = (out / "library.json").read_text().replace('"0.1.0"', '"0.0.9"')
    (out / "library.json").write_text(of_before)
    with pytest.raises(LibraryError, match=r'allin1_core_version "0.0.9", not "0.1.0"'):
        run(library, out)


def test_a_resume_of_100000_songs_reads_the_manifest_alone(
    tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    songs = [f"s3://bucket/{index}.mp3" for index in range(100_000)]
    (tmp_path / "songs.txt").write_text("\n".join(songs))
    out = tmp_path / "out"
    run(["memory://none.wav"], out)
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
    status = run(tmp_path / "songs.txt", out)
    assert (status.songs, status.done, status.failed) == (100_000, 100_000, 1)
    assert [name for name in read if name.startswith("results")] == []
    assert len(read) < 10
    assert list((out / "results").iterdir()) == []


def test_a_run_of_a_day_leaves_few_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, parts = [0.0], list[tuple[float, int]]()
    monkeypatch.setattr(tables.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(tables, "write_part", lambda place, table, rows: parts.append((now[0], len(rows))))
    writer = tables.TableWriter(Place(tmp_path))
    for second in range(0, 86400, 10):
        now[0] = second
        writer.add({"song": str(second)})
    writer.close()
    assert [when for when, _ in parts[:3]] == [120, 250, 380]  # and the next row begins another
    assert sum(rows for _, rows in parts) == 8640
    assert len(parts) < 110
    for second in range(2500):
        now[0] = 86400 + 0.01 * second
        writer.add({"song": str(second)})
    writer.close()
    assert [rows for _, rows in parts[-3:]] == [1000, 1000, 500]


@pytest.mark.parametrize(
    ("source", "more", "told"),
    [
        ("absent", {}, "absent: not there; expected a folder of songs"),
        ("empty", {}, "empty: no songs; expected audio files"),
        ("empty.txt", {}, "empty.txt: no songs"),
        ("bytes.txt", {}, "bytes.txt: not UTF-8"),
        ("bytes.parquet", {}, "bytes.parquet: cannot be read as Parquet"),
        ("http://127.0.0.1:9/songs.txt", {}, "http://127.0.0.1:9/songs.txt: cannot be read"),
        ("http://127.0.0.1:9/songs/", {}, "http://127.0.0.1:9/songs/: cannot be listed"),
        ("memory://nowhere", {}, "memory://nowhere: cannot be listed .nothing is there"),
        ("what://songs/", {}, "what://songs/: cannot be used .Protocol not known: what"),
        ("library", {"shard": "0/4"}, "shard: '0/4'; expected PART/PARTS"),
        ("library", {"shard": "5/4"}, "shard: '5/4'"),
        ("library", {"shard": "a/b"}, "shard: 'a/b'"),
        ("library", {"out": "http://127.0.0.1:9/out"}, "cannot be written to; expected a folder"),
        ("library", {"out": "library/one/bass.wav"}, "cannot be used as an output folder"),
        ("library", {"engine": "dask"}, "engine: 'dask' unknown; expected local or ray"),
        ("library", {"num_workers": 2}, "'local' takes no address and no number of workers"),
        ("library", {"engine": "ray", "num_workers": 0}, "num_workers: 0; expected at least 1"),
    ],
)
def test_bad_input_is_one_clear_error(
    source: str,
    more: dict[str, Any],
    told: str,
    run: Callable[..., Any],
    library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    for name in ("bytes.txt", "bytes.parquet"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    monkeypatch.chdir(tmp_path)
    with pytest.raises((LibraryError, OutputError, BackendError), match=told) as caught:
        run(source, **{"out": "out"} | more)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out/library.json").exists()


def test_a_folder_without_rights(
    run: Callable[..., Any], library: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    scandir = os.scandir

    def refuse(path: Any) -> Any:  # the superuser may read everything
        if str(path).endswith("two"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(LibraryError, match=r"library/two: cannot be read .Permission denied"):
        run(library, tmp_path / "out")


@pytest.mark.parametrize(
    ("package", "extra", "engine"), [("pyarrow", "library", "local"), ("ray", "ray", "ray")]
)
def test_without_the_extra(
    package: str,
    extra: str,
    engine: str,
    run: Callable[..., Any],
    library: Path,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(BackendError, match=rf"not installed; pip install 'allin1-core\[{extra}\]'"):
        run(library, tmp_path / "out", engine=engine)


def test_without_a_cluster_at_the_address(run: Callable[..., Any], library: Path, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"address: '127.0.0.1:9': no Ray cluster .*Connection refused"):
        run(library, tmp_path / "out", engine="ray", address="127.0.0.1:9")


def test_the_command_says_what_is_missing(command: Command, tmp_path: Path) -> None:
    for arguments, told in (
        (["music"], "out: not given"),
        (["status"], "status: of nothing"),
        (["status", tmp_path], "no library is there"),
        (["music", "more", "--out", "out"], "more: a second source"),
    ):
        status, _, errors = command("library", *arguments)
        assert status == 1
        assert told in errors


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket of that server, which ``s3://`` leads to."""
    for name, value in (
        ("ACCESS_KEY_ID", "key"),
        ("SECRET_ACCESS_KEY", "secret"),
        ("DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    if not files.exists("songs"):
        files.mkdir("songs")
    yield files
    files.rm("songs", recursive=True)


def test_from_s3_to_s3(
    bucket: Any, run: Callable[..., Any], library: Path, tmp_path: Path, analysed: list[str], s3: str
) -> None:
    bucket.put(str(library), "songs/music", recursive=True)
    bucket.pipe_file("songs/music/broken.wav", b"RIFF")
    status = run("s3://songs/music", "s3://songs/out", include_activations=True)
    assert (status.done, status.failures) == (3, {"AudioError": 1})
    run(library, tmp_path / "out", include_activations=True)
    for name in ("one", "two", "three"):
        here = json.loads((tmp_path / "out/results" / f"{name}.json").read_bytes())
        there = json.loads(bucket.cat_file(f"songs/out/results/{name}.json"))
        assert there.pop("path") == f"s3://songs/music/{name}"
        assert here.pop("path") == str(library / name)
        assert there == here
        arrays = bucket.cat_file(f"songs/out/results/{name}.activ.npz")
        assert arrays == (tmp_path / "out/results" / f"{name}.activ.npz").read_bytes()
    table = parquet.read_table("songs/out/songs", filesystem=bucket)
    assert sorted(table["song"].to_pylist()) == [
        f"s3://songs/music/{name}" for name in ("one", "three", "two")
    ]
    [message] = parquet.read_table("songs/out/failures", filesystem=bucket)["message"].to_pylist()
    assert message.startswith("s3://songs/music/broken.wav: ")
    # Again: the table says what is done; without it the results do, and one that changed is made again.
    analysed.clear()
    run("s3://songs/music", "s3://songs/out", include_activations=True)
    assert analysed == ["broken"]
    bucket.rm("songs/out/songs", recursive=True)
    bucket.copy("songs/music/one/bass.wav", "songs/music/two/bass.wav")
    analysed.clear()
    status = run("s3://songs/music", "s3://songs/out", include_activations=True)
    assert sorted(analysed) == ["broken", "two"]
    assert (status.done, status.failed) == (3, 1)


def test_what_cannot_be_had_from_s3(
    bucket: Any, run: Callable[..., Any], library: Path, tmp_path: Path
) -> None:
    with pytest.raises(LibraryError, match="s3://none/music: cannot be listed"):
        run("s3://none/music", tmp_path / "out")
    with pytest.raises(OutputError, match=r"s3://none/out/library\.json: cannot be written"):
        run(library, "s3://none/out")
    status = run(["s3://songs/absent.wav", str(library / "one")], tmp_path / "out")
    assert (status.done, status.failed) == (1, 1)
    [row] = rows(tmp_path / "out", "failures")
    assert row["message"].startswith("s3://songs/absent.wav: cannot be fetched")
    run(library / "one", tmp_path / "plain")
    by_way_of_a_folder = (tmp_path / "out/results/one.json").read_bytes()
    assert by_way_of_a_folder == (tmp_path / "plain/results/one.json").read_bytes()
    assert urllib.parse.urlsplit(row["song"]).scheme == "s3"


def test_songs_of_the_web(
    run: Callable[..., Any], music: Path, tmp_path: Path, options: dict[str, Any], separation_repository: Path
) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=music)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        (music / "songs.txt").write_text(f"{url}/a/song.wav?token=1\n{url}/absent.wav\n")
        small = {"demix_model": "small", "demix_repository": separation_repository}
        status = run(f"{url}/songs.txt", tmp_path / "out", **small)
        server.shutdown()
    assert (status.songs, status.done, status.failures) == (2, 1, {"AudioError": 1})
    found = json.loads((tmp_path / "out/results/song.json").read_bytes())
    assert found.pop("path") == f"{url}/a/song.wav?token=1"
    analyze(music / "a/song.wav", out_dir=tmp_path / "plain", **options, **small)
    expected = json.loads((tmp_path / "plain/song.json").read_bytes())
    assert expected.pop("path") == str(music / "a/song.wav")
    assert found == expected


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "library.json").write_text("[]")
    with pytest.raises(LibraryError, match="found list; expected an object"):
        record.read(Place(tmp_path))
    (tmp_path / "library.json").write_text("{")
    with pytest.raises(LibraryError, match="not JSON"):
        record.read(Place(tmp_path))
