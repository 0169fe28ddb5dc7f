"""The songs of a library: found, divided and named; and bad input, one clear error each."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hard_use.libraries import rows
from pyarrow import parquet

from allin1_core.analysis import check_files
from allin1_core.errors import BackendError, LibraryError, OptionError, OutputError, WeightsError
from allin1_core.library import _with_whole_paths, analyze_library, record
from allin1_core.library.places import Place
from allin1_core.library.sources import Shard, find_songs
from allin1_core.settings import Settings

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


def test_songs_of_a_folder_have_names_of_their_own(music: Path) -> None:
    (music / "again").symlink_to(music, target_is_directory=True)
    songs, locations = find_songs(music)
    assert sorted(locations) == sorted(song.location for song in songs)
    assert len(songs) == 3
    found = {song.location.removeprefix(f"{music}/"): song.name for song in songs}
    assert found["c/stems"] == "stems"
    assert found["a/song.wav"].startswith("song-")
    assert found["b/Song.flac"].startswith("Song-")
    assert {len(name) for name in found.values()} == {5, 21}
    assert all(song.state for song in songs)
    # The same in another order, and beside fewer songs.
    again, _ = find_songs([music / "b/Song.flac", music / "a/song.wav"])
    assert [song.name for song in again] == [found["b/Song.flac"], found["a/song.wav"]]


def test_a_folder_that_two_names_lead_to_goes_by_the_first_of_them(tmp_path: Path) -> None:
    """In whatever order the disk lists them: other machines call the songs the same."""
    for index in range(8):
        (tmp_path / f"z{index}").mkdir()
        (tmp_path / f"z{index}" / "song.wav").touch()
        (tmp_path / f"a{index}").symlink_to(tmp_path / f"z{index}")
    songs, _ = find_songs(tmp_path)
    assert [song.location for song in songs] == [f"{tmp_path}/a{index}/song.wav" for index in range(8)]


def test_stems_of_which_one_is_missing_are_no_songs(
    run_library: Callable[..., Any], library: Path, tmp_path: Path
) -> None:
    (library / "one/bass.wav").unlink()
    (library / "two/Bass.flac").touch()
    for name in ("bass", "drums", "other"):
        (library / f"three/{name}.wav").unlink()
    songs, _ = find_songs(library)
    assert [song.location.removeprefix(f"{library}/") for song in songs] == ["one", "three/vocals.wav", "two"]
    status = run_library([library / "one", library / "two"], tmp_path / "out")
    assert status.failures == {"StemsError": 2}


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


def test_a_list_may_name_what_looks_like_a_comment_or_two_lines(tmp_path: Path) -> None:
    expected = [str(tmp_path / name) for name in ("#1 Hit.wav", "next\x85line.wav")]
    for name in expected:
        Path(name).touch()
    (tmp_path / "songs.txt").write_text("# No song.wav\n" + "\r\n".join(expected) + "\n# none", newline="")
    with contextlib.chdir(tmp_path):
        (tmp_path / "relative.txt").write_text("#1 Hit.wav\n#2 Hit.wav\n")
        assert [song.location for song in find_songs("relative.txt")[0]] == expected[:1]
    assert [song.location for song in find_songs(tmp_path / "songs.txt")[0]] == expected


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
        ("", {}, "source: found ''; expected a folder, list or song"),
        (["library/one", ""], {}, "source: found '' among the songs"),
        ("library", {"timings_path": ""}, "timings_path: found ''; expected a file"),
        ("library", {"out": ""}, "out: found ''; expected a folder or URL; '.' for the working folder"),
        ("library", {"engine": "ray", "num_workers": 0}, "num_workers: 0; expected at least 1"),
    ],
)
def test_bad_input_is_one_clear_error(
    source: str | list[str],
    more: dict[str, Any],
    told: str,
    run_library: Callable[..., Any],
    library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    for name in ("bytes.txt", "bytes.parquet"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    monkeypatch.chdir(tmp_path)
    with pytest.raises((LibraryError, OptionError, OutputError, BackendError), match=told) as caught:
        run_library(source, **{"out": "out"} | more)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out/library.json").exists()


def test_a_folder_without_rights(
    run_library: Callable[..., Any],
    library: Path,
    tmp_path: Path,
    command: Command,
    monkeypatch: Any,
    options: dict[str, Any],
) -> None:
    out = tmp_path / "out"
    arguments = ["-d", "cpu", "-m", options["model"], "--spec-backend", options["spec_backend"]]

    def refuse(original: Callable[[Any], Any], path: Any) -> Any:
        if str(path) == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    with monkeypatch.context() as patched:
        for name in ("scandir", "listdir"):  # the superuser may read everything
            patched.setattr(os, name, functools.partial(refuse, getattr(os, name)))
        refused = str(library / "two")
        status, printed, _ = command("library", library, "--out", out, *arguments)
        assert (status, printed) == (1, "2 of 3 songs done, 1 failed, 0 remain\n  1 StemsError\n")
        [row] = rows(out, "failures")
        assert row["song"] == refused
        assert row["message"].startswith(f"{refused}: cannot be read (Permission denied)")
        refused = str(library)
        with pytest.raises(LibraryError, match=r"library: cannot be read .Permission denied"):
            run_library(library, out)
    # Its songs come in its place once it can be read.
    (library / "two").rename(tmp_path / "stems")
    (library / "two").mkdir()
    (tmp_path / "stems").rename(library / "two/inside")
    done = run_library(library, out)
    assert (done.songs, done.done, done.failed, done.in_all) == (3, 3, 0, 3)


@pytest.mark.parametrize(
    ("package", "extra", "engine"), [("pyarrow", "library", "local"), ("ray", "ray", "ray")]
)
def test_without_the_extra(
    package: str,
    extra: str,
    engine: str,
    run_library: Callable[..., Any],
    library: Path,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(BackendError, match=rf"not installed; pip install 'allin1-core\[{extra}\]'"):
        run_library(library, tmp_path / "out", engine=engine)


def test_without_a_cluster_at_the_address(
    run_library: Callable[..., Any], library: Path, tmp_path: Path
) -> None:
    with pytest.raises(LibraryError, match=r"address: '127.0.0.1:9': no Ray cluster .*Connection refused"):
        run_library(library, tmp_path / "out", engine="ray", address="127.0.0.1:9")


def test_the_command_says_what_is_missing(command: Command, tmp_path: Path) -> None:
    for arguments, expected, told in (
        (["music"], 2, "out: not given"),
        (["status"], 2, "status: of nothing"),
        (["status", ""], 2, "out: found ''; expected a folder or URL"),
        (["status", tmp_path], 1, "no library is there"),
        (["music", "more", "--out", "out"], 2, "more: a second source"),
    ):
        status, _, errors = command("library", *arguments)
        assert status == expected
        assert told in errors


def test_the_command_has_the_defaults_of_the_function(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recorded(*paths: str, **options: object) -> None:
        given.update(options)
        raise LibraryError(f"recorded: {paths}")

    given: dict[str, object] = {}
    expected = {name: one.default for name, one in inspect.signature(analyze_library).parameters.items()}
    expected |= {field.name: field.default for field in dataclasses.fields(Settings)}
    monkeypatch.setattr("allin1_core.library.analyze_library", recorded)
    status, _, err = command("library", "songs", "--out", "labels")
    assert (status, err) == (1, "allin1-core: recorded: ('songs', 'labels')\n")
    assert given == {name: expected[name] for name in given}
    assert {"engine", "column", "shard", "device", "min_bpm", "jobs"} <= given.keys()


def test_anchors_are_of_one_song_not_of_a_library(command: Command) -> None:
    """The option was there, and what it said was dropped."""
    status, _, errors = command("library", "music", "--out", "out", "--anchor", "1.4")
    assert status == 2
    assert "unrecognized arguments: --anchor" in errors  # from Python 3.14 on without its value


def test_a_repository_without_the_separation_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"expected the separation model own\.safetensors .*; found models none"
    ):
        check_files(Settings(demix_model="own", demix_repository=tmp_path))


def test_what_a_place_cannot_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "library.json").mkdir()
    with pytest.raises(
        OutputError, match=r"library\.json: cannot be read \(Is a directory\); check the place"
    ):
        Place(tmp_path).read("library.json")
    assert Place(tmp_path).read("absent") is None


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "library.json").write_text("[]")
    with pytest.raises(LibraryError, match="found list; expected an object"):
        record.read(Place(tmp_path))
    for name, reading in (("library.json", record.read), ("runs/run-1.json", record.last_run)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{")
        with pytest.raises(LibraryError, match=rf"{name}: not JSON"):
            reading(Place(tmp_path))


def test_of_two_that_claim_a_place_at_the_same_time_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(1) as pool:
        others: list[Future[bool]] = []
        write = Place.write

        def write_beside_another(self: Place, name: str, content: bytes) -> None:
            monkeypatch.undo()
            others.append(pool.submit(record.claim, Place(tmp_path), {"precision": "fast"}))
            wait(others, timeout=0.5)  # it is waiting, or has read that nothing is there
            write(self, name, content)

        monkeypatch.setattr(Place, "write", write_beside_another)
        assert not record.claim(Place(tmp_path), {"precision": "exact"})
        with pytest.raises(LibraryError, match='made with precision "exact", not "fast"'):
            others[0].result()


def test_a_folder_of_a_published_models_name_is_not_that_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("harmonix-all", "harmonix-fold3", "own.npz"):
        Path(name).touch()
        model = _with_whole_paths(Settings(model=name))["model"]
        assert model == (str(tmp_path / name) if name == "own.npz" else name)
