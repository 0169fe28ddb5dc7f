"""A library whose songs or results are behind URLs: on an S3 server, and on the web."""

from __future__ import annotations

import errno
import functools
import http.server
import json
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import fsspec
import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from hard_use.libraries import rows
from pyarrow import parquet

from allin1_core import analyze
from allin1_core.errors import LibraryError, OutputError


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
    bucket: Any, run_library: Callable[..., Any], library: Path, tmp_path: Path, analysed: list[str], s3: str
) -> None:
    bucket.put(str(library), "songs/music", recursive=True)
    bucket.pipe_file("songs/music/broken.wav", b"RIFF")
    status = run_library("s3://songs/music", "s3://songs/out", include_activations=True)
    assert (status.done, status.failures) == (3, {"AudioError": 1})
    run_library(library, tmp_path / "out", include_activations=True)
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
    run_library("s3://songs/music", "s3://songs/out", include_activations=True)
    assert analysed == ["broken"]
    bucket.rm("songs/out/songs", recursive=True)
    bucket.copy("songs/music/one/bass.wav", "songs/music/two/bass.wav")
    analysed.clear()
    status = run_library("s3://songs/music", "s3://songs/out", include_activations=True)
    assert sorted(analysed) == ["broken", "two"]
    assert (status.done, status.failed) == (3, 1)


def test_what_cannot_be_had_from_s3(
    bucket: Any, run_library: Callable[..., Any], library: Path, tmp_path: Path
) -> None:
    with pytest.raises(LibraryError, match="s3://none/music: cannot be listed"):
        run_library("s3://none/music", tmp_path / "out")
    with pytest.raises(OutputError, match=r"s3://none/out/library\.json: cannot be written"):
        run_library(library, "s3://none/out")
    status = run_library(["s3://songs/absent.wav", str(library / "one")], tmp_path / "out")
    assert (status.done, status.failed) == (1, 1)
    [row] = rows(tmp_path / "out", "failures")
    assert row["message"].startswith("s3://songs/absent.wav: cannot be fetched")
    run_library(library / "one", tmp_path / "plain")
    by_way_of_a_folder = (tmp_path / "out/results/one.json").read_bytes()
    assert by_way_of_a_folder == (tmp_path / "plain/results/one.json").read_bytes()
    assert urllib.parse.urlsplit(row["song"]).scheme == "s3"


def test_without_room_for_songs_on_their_way(
    run_library: Callable[..., Any], library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    files = fsspec.filesystem("memory")
    files.put(str(library), "/full", recursive=True)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", Mock(side_effect=full))
        with pytest.raises(OutputError, match=r"TMPDIR: holds no folder .No space"):
            run_library("memory://full", tmp_path / "out")
    mkdir = Path.mkdir

    def mkdir_or_full(self: Path, *arguments: Any, **options: Any) -> None:
        if self.name == "1":  # that of the second song
            raise full
        mkdir(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir_or_full)
    status = run_library("memory://full", tmp_path / "out")
    assert (status.done, status.failures) == (2, {"AudioError": 1})
    [row] = rows(tmp_path / "out", "failures")
    assert row["message"].startswith("memory:///full/three: cannot be fetched (No space left on device)")
    files.rm("/full", recursive=True)


class Closed(Exception):
    """What a file system raises, of no kind that fsspec knows."""


def test_a_folder_that_cannot_be_listed_is_a_failure(
    run_library: Callable[..., Any], library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, refused = fsspec.filesystem("memory"), ["/closed", "/denied"]
    listed = MemoryFileSystem.ls

    def ls(self: MemoryFileSystem, path: str, *arguments: Any, **options: Any) -> Any:
        if path.endswith(tuple(refused)):
            raise Closed("not\x1b to you") if path.endswith("/closed") else PermissionError(13, "Denied")
        return listed(self, path, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    monkeypatch.setattr(
        MemoryFileSystem, "find", AbstractFileSystem.find
    )  # as where a store has none of its own
    for name, folder in (("one", "open"), ("two", "closed/in"), ("three", "denied/.in")):
        files.put(str(library / name), f"/music/{folder}/{name}", recursive=True)
    status = run_library("memory://music", tmp_path / "out")
    assert (status.songs, status.done, status.failures) == (3, 1, {"AudioError": 2})
    closed, denied = rows(tmp_path / "out", "failures")
    assert closed["message"].startswith("memory:///music/closed: cannot be fetched (not\\x1b to you)")
    assert denied["message"].startswith("memory:///music/denied: cannot be fetched (Denied)")
    with pytest.raises(LibraryError, match=r"memory://music/closed: cannot be listed .not"):
        run_library("memory://music/closed", tmp_path / "out")
    # Its songs, hidden ones excepted, come in its place once it can be listed.
    refused.clear()
    status = run_library("memory://music", tmp_path / "out")
    assert (status.songs, status.done, status.failed, status.in_all) == (2, 2, 0, 2)
    done = [row["song"] for row in rows(tmp_path / "out")]
    assert done == ["memory:///music/closed/in/two", "memory:///music/open/one"]
    files.rm("/music", recursive=True)


def test_songs_of_the_web(
    run_library: Callable[..., Any],
    write_mix: Callable[..., Path],
    tmp_path: Path,
    options: dict[str, Any],
    separation_repository: Path,
) -> None:
    music = write_mix("web/a/song.wav", 1.0).parent.parent
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=music)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        (music / "songs.txt").write_text(f"{url}/a/song.wav?token=1\n{url}/absent.wav\n")
        small = {"demix_model": "small", "demix_repository": separation_repository}
        status = run_library(f"{url}/songs.txt", tmp_path / "out", **small)
        server.shutdown()
    assert (status.songs, status.done, status.failures) == (2, 1, {"AudioError": 1})
    found = json.loads((tmp_path / "out/results/song.json").read_bytes())
    assert found.pop("path") == f"{url}/a/song.wav?token=1"
    analyze(music / "a/song.wav", out_dir=tmp_path / "plain", **options, **small)
    expected = json.loads((tmp_path / "plain/song.json").read_bytes())
    assert expected.pop("path") == str(music / "a/song.wav")
    assert found == expected
