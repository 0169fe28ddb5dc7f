"""Paths as people give them, and the names that tracks' files get from them."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import Analyzer, analyze, load_result
from allin1_core.audio.writing import write_wav
from allin1_core.batch.names import with_hash
from allin1_core.errors import AudioError, OptionError, OutputError, StemsError
from allin1_core.files.writing import check_writable, remove, write_text
from allin1_core.separation.track import absolute
from allin1_core.timings.schema import read_timings

WriteStems = Callable[..., Path]
LONGEST = 255  # bytes of a name, on the file systems that tests run on


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_tracks_of_one_name_that_is_no_text_keep_their_own_files(
    write_stems: WriteStems, options: dict[str, Any], tmp_path: Path
) -> None:
    name, out = os.fsdecode(b"caf\xe9"), tmp_path / "out"
    given = {"x": name, "y": name, "z": name.upper()}
    first, second, third = (
        write_stems(f"{each}/plain").rename(tmp_path / each / given[each]) for each in given
    )
    written = {"out_dir": out, "visualize": tmp_path / "viz", "sonify": tmp_path / "sonif"}
    options |= {**written, "exports": ["jams"], "include_activations": True}
    results = analyze([first, second], timings_path=tmp_path / "t.jsonl", **options)
    assert [result.path for result in results] == [first, second]
    names = sorted((path.stem for path in out.glob("*.json")), key=len)
    assert names[0] == name
    assert names[1].startswith(f"{name}-")
    assert len(names[1]) == len(name) + len("-xxxxxxxx")
    assert [load_result(out / f"{each}.json").path for each in names] == [first, second]
    assert len(files_below(tmp_path / "viz")) == 4
    assert {line.track for line in read_timings(tmp_path / "t.jsonl")} == {None, *names}
    # In another call and another order the names are the same, and nothing is made again.
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    results = analyze([second, first, third], **options)
    assert [result.path for result in results] == [second, first, third]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    [added] = set(out.glob("*.json")) - set(stamps)
    assert load_result(added).path == third
    assert added.stem.startswith(f"{name.upper()}-")  # some file systems do not tell upper from lower case


def test_a_name_that_the_terminal_cannot_show(
    write_stems: WriteStems, small_model: str, tmp_path: Path
) -> None:
    folder = write_stems("ночь ☾ née")
    encoding = "latin-1"  # it has the letters of "né", and neither Cyrillic nor a moon
    arguments = [sys.executable, "-m", "allin1_core.cli", "analyze", str(folder), str(tmp_path / "né.wav")]
    child = subprocess.run(
        [*arguments, "-m", small_model, "-d", "cpu", "-o", str(tmp_path / "out")],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
        encoding=encoding,
        check=False,
    )
    assert child.returncode == 1
    shown = str(folder).encode(encoding, "backslashreplace").decode(encoding)
    assert child.stdout.startswith(f"{shown}: ")
    assert len(child.stdout.splitlines()) == 1
    assert "1 of 2 tracks failed" in child.stderr
    assert "Traceback" not in child.stderr
    assert load_result(tmp_path / "out" / f"{folder.name}.json").path == folder


def test_a_link_is_a_track_of_its_own_name(
    write_stems: WriteStems, write_mix: Callable[[str], Path], options: dict[str, Any], tmp_path: Path
) -> None:
    target, folder = write_mix("store/0001.wav"), write_stems("stems/song")
    (tmp_path / "songs").mkdir()
    link = tmp_path / "songs" / "song.wav"
    link.symlink_to(target)
    out = tmp_path / "out"
    result = analyze(link, out_dir=out, stems_dir=tmp_path / "stems", **options)
    assert result.path == link
    assert [path.name for path in out.iterdir()] == ["song.json"]
    assert result.provenance["stages"]["demix"] == {"backend": "stems", "reason": "ready stems were given"}
    assert result.beats == analyze(folder, **options).beats
    assert Analyzer(**options)(link, stems_dir=tmp_path / "stems").to_json() == result.to_json()
    # There are no stems called 0001, by which the target would be looked for.
    with pytest.raises(StemsError, match="0001: no such folder"):
        analyze(target, stems_dir=tmp_path / "stems", **options)
    linked_folder = tmp_path / "songs" / "alias"
    linked_folder.symlink_to(folder)
    assert [each.path for each in analyze([linked_folder, folder, linked_folder], **options)] == [
        linked_folder,
        folder,
    ]


def test_one_track_has_one_path_whatever_links_its_folder_is_reached_by(
    write_stems: WriteStems, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_stems("disk/songs/a")
    (tmp_path / "music").symlink_to(tmp_path / "disk" / "songs")
    monkeypatch.chdir(tmp_path / "music")
    ways = [folder, tmp_path / "music" / "a", tmp_path / "music" / ".." / "songs" / "a", "a", "../songs/a"]
    assert [result.path for result in analyze(ways, **options)] == [folder]
    monkeypatch.chdir(folder)
    assert [result.path for result in analyze([".", "../a"], **options)] == [folder]


@pytest.mark.parametrize(
    ("longest_suffix", "asked_for"),
    [
        (".json", {}),
        (".labels.txt", {"exports": ["audacity"]}),
        (".activ.npz", {"include_activations": True}),
        (".embed.npy", {"include_embeddings": True, "array_dir": "arrays"}),
        (".activations.pdf", {"visualize": "viz", "include_activations": True}),
        (".sonif.wav", {"sonify": "sonif"}),
        (".made_from.json", {"keep_byproducts": True}),
    ],
)
def test_a_name_too_long_for_one_of_the_files_is_refused_before_any_is_written(
    write_stems: WriteStems,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    longest_suffix: str,
    asked_for: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    longest = "é" * 10 + "x" * (LONGEST - 20 - len(longest_suffix))
    fits, too_long = write_stems(f"in/{longest}"), write_stems(f"in/{longest}y")
    result = analyze(fits, out_dir="out", **asked_for, **options)
    assert load_result(f"out/{longest}.json").beats == result.beats
    written = files_below(tmp_path)
    assert analyze(fits, out_dir="out", **asked_for, **options).beats == result.beats
    assert max(len(os.fsencode(Path(name).name)) for name in written) == LONGEST
    with pytest.raises(OutputError, match=r"too long a name for a file \(256 bytes.*nothing was written"):
        analyze(too_long, out_dir="out", **asked_for, **options)
    assert files_below(tmp_path) == written
    # Of two tracks of the name that fits, the second one's is cut to have room for a hash.
    again = tmp_path / "again" / longest
    again.parent.mkdir()
    again.symlink_to(fits)
    analyze([fits, again], out_dir="out", **asked_for, **options)
    cut = f"{longest[:220]}-{hashlib.sha256(os.fsencode(again)).hexdigest()[:8]}"
    assert [path.name for path in Path("out").glob("*.json") if path.stem != longest] == [f"{cut}.json"]


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("x" * 230, "x" * 230),
        ("x" * 231, "x" * 230),
        ("x" + "é" * 120, "x" + "é" * 114),
        ("𝄞" * 63, "𝄞" * 57),
        ("\udcff" * 240, "\udcff" * 230),
    ],
    ids=["fits", "one byte", "two bytes", "four bytes", "no text"],
)
def test_a_name_is_cut_between_characters_to_have_room_for_a_hash(name: str, cut: str) -> None:
    assert with_hash(name, "/a") == f"{cut}-{hashlib.sha256(b'/a').hexdigest()[:8]}"
    assert with_hash(name, "/a", 16).startswith(cut[: -8 // len(os.fsencode(cut[-1]))] + "-")


def test_a_pattern_below_a_folder_whose_name_looks_like_one(
    write_stems: WriteStems, options: dict[str, Any], tmp_path: Path
) -> None:
    for name in (
        "albums [2020]/a*/one",
        "albums [2020]/a*/two",
        "albums [2020]/ab/three",
        "albums 2/ab/four",
    ):
        write_stems(name)
    names = {
        "albums [2020]/a[*]/*": ["one", "two"],
        "albums [2020]/a*/*": ["one", "two"],
        "albums [2020]/*b/*": ["three"],
        "albums [12]/*/*": ["four"],
        "albums [2020]/**/t*": ["two", "three"],
    }
    for pattern, expected in names.items():
        assert [result.path.name for result in analyze(f"{tmp_path}/{pattern}", **options)] == expected, (
            pattern
        )
    with pytest.raises(AudioError, match=r"albums \[2020\]/z\*: no file matches this pattern"):
        analyze(tmp_path / "albums [2020]" / "z*", **options)
    with pytest.raises(OptionError, match="paths: found ''; expected a path"):  # it was the working folder
        analyze("", **options)


@pytest.mark.parametrize(
    "names", [["one.mp3", "two.mp3"], ["Bass one.mp3", "Bass two.mp3"], ["one.mp3", "my drums.mp3"]]
)
def test_a_folder_of_songs_is_refused_with_what_to_give_instead(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]], names: list[str]
) -> None:
    folder = tmp_path / "album [1]"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    status, _, err = command("analyze", folder, "-o", tmp_path / "out")
    assert status == 1
    assert f"To analyse each file as a song, give {folder}/*.mp3\n" in err


def test_a_folder_or_file_that_the_disk_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    (tmp_path / "a").touch()
    for method, call, message in (
        (
            "unlink",
            lambda: remove(tmp_path / "a"),
            r"a: cannot be removed \(Read-only file system\); delete it",
        ),
        (
            "touch",
            lambda: check_writable(tmp_path),
            r"cannot be written to \(Read-only file system\); choose an",
        ),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(Path, method, refuse)
            with pytest.raises(OutputError, match=message):
                call()
    with pytest.raises(AudioError, match=r"a\\x00b/song\.wav: cannot be opened \(.*null byte"):
        absolute(Path("a\0b/song.wav"))
    # Another process may have taken the probe for abandoned.
    monkeypatch.setattr(Path, "touch", lambda *_, **__: None)
    check_writable(tmp_path)


def test_a_file_is_whole_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(("synced", os.fstat(descriptor).st_size))
        fsync(descriptor)

    def renamed(*paths: Path) -> None:
        done.append(("renamed", os.stat(paths[0]).st_size))
        replace(*paths)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_text(tmp_path / "a", "text")
    assert done == [("synced", 4), ("renamed", 4)]


def test_a_wav_file_for_which_there_is_no_room_is_told_and_not_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It was a traceback of libsndfile's callback, and an assertion that failed without a word."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(
            OutputError, match=r"a\.wav: cannot be written \(File too large\); nothing was left"
        ):
            write_wav(tmp_path / "a.wav", np.zeros((1000, 2), np.float32), 44100, "PCM_16")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""
