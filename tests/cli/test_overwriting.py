"""What is read is never written over: one error before anything is done, by whatever path or link it is named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timing_lines import record

from allin1_core import AnalysisResult, analyze
from allin1_core.errors import BatchError, OptionError
from allin1_core.library import analyze_library
from allin1_core.results.clicks import sonify
from allin1_core.results.exports import export
from allin1_core.results.figures import visualize
from allin1_core.results.page import write_page
from allin1_core.structure import Segment

Command = Callable[..., tuple[int, str, str]]


def made(path: Path) -> AnalysisResult:
    return AnalysisResult(path, 120, [0.5, 1.0], [0.5], [1, 2], [Segment(0.0, 2.0, "verse")])


def contents(folder: Path) -> dict[Path, bytes | Path]:
    return {
        path: path.readlink() if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if not path.is_dir()
    }


@pytest.mark.parametrize(
    ("arguments", "source"),
    [
        ("spectrogram song.wav -o song.wav", "song.wav"),
        ("spectrogram song.wav -o link.npy", "song.wav"),
        ("spectrogram link.npy -o sub/../song.wav", "link.npy"),
        ("spectrogram stems -o stems/bass.wav", "stems/bass.wav"),
        ("decode a.npy -o a.npy", "a.npy"),
        ("timings t.png", "t.png"),
        ("timings t.png --plot ./t.png", "t.png"),
        ("view r.json -o r.json", "r.json"),
        ("view r.html", "r.html"),
        ("view r.json --against r.html -o r.html", "r.html"),
        ("view r.json --audio song.wav -o song.wav", "song.wav"),
        ("view r.json -o song.wav", "song.wav"),
        ("analyze stems -o out --timings stems/bass.wav", "stems/bass.wav"),
        ("library songs.txt -o out --timings songs.txt", "songs.txt"),
        ("library songs.txt -o out --timings stems/drums.wav", "stems/drums.wav"),
    ],
)
def test_no_command_writes_over_what_it_reads(
    arguments: str,
    source: str,
    tmp_path: Path,
    write_stems: Callable[..., Path],
    write_mix: Callable[[str], Path],
    small_model: str,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_stems("stems")
    made(write_mix("song.wav")).save("r.json")
    Path("r.html").write_bytes(Path("r.json").read_bytes())
    Path("sub").mkdir()
    Path("link.npy").symlink_to("song.wav")
    np.save("a.npy", np.full((50, 2), 0.1, np.float32))
    record(tmp_path / "t.png")
    Path("songs.txt").write_text("stems\n")
    before = contents(tmp_path)
    given = arguments.split()
    if given[0] in ("analyze", "library"):
        given += ["--model", small_model, "--device", "cpu"]
    status, out, err = command(*given)
    assert (status, out) == (2, "")
    assert f"{source}, which would be overwritten; expected another place to write to\n" in err
    assert contents(tmp_path) == before


def test_no_function_writes_a_result_over_its_audio(tmp_path: Path, write_mix: Callable[[str], Path]) -> None:
    song = write_mix("song.wav").rename(tmp_path / "song.pdf")
    (tmp_path / "song.sonif.wav").symlink_to(song)
    (tmp_path / "result.embed.npy").symlink_to(song)  # which a result without embeddings removes
    (tmp_path / "hard").hardlink_to(song)
    before, result = contents(tmp_path), made(song)
    for write in (
        lambda: result.save(song),
        lambda: result.save(tmp_path / "result.json"),
        lambda: export(result, song, "beats"),
        lambda: visualize(result, tmp_path),
        lambda: sonify(result, tmp_path),
        lambda: sonify(made(Path("elsewhere")), tmp_path, name="song", audio=str(song)),
        lambda: write_page(result, tmp_path / "hard"),
    ):
        with pytest.raises(OptionError, match=f"found the input {song}, which would be overwritten"):
            write()
    assert contents(tmp_path) == before


def test_a_track_whose_files_are_another_track_fails_alone(
    tmp_path: Path,
    write_stems: Callable[..., Path],
    write_mix: Callable[[str], Path],
    options: dict[str, Any],
) -> None:
    """As where clicks were written beside the songs, and a pattern now takes them for songs."""
    songs = [write_mix("song.wav"), write_mix("song.sonif.wav")]
    for song in songs:
        write_stems(f"stems/{song.stem}")
    before = contents(tmp_path)
    with pytest.raises(
        BatchError, match=r"song.wav: OptionError: .*sonif.wav, which would be over"
    ) as caught:
        analyze(songs, sonify=tmp_path, stems_dir=tmp_path / "stems", **options)
    assert [result and result.path.name for result in caught.value.results] == [None, "song.sonif.wav"]
    after = contents(tmp_path)
    assert after.pop(tmp_path / "song.sonif.sonif.wav")
    assert after == before


def test_stems_are_kept_over_those_of_an_earlier_run_but_not_over_the_mix(
    tmp_path: Path, write_mix: Callable[[str], Path], separation_repository: Path, options: dict[str, Any]
) -> None:
    options |= {"demix_repository": separation_repository, "demix_model": "small", "keep_byproducts": True}
    options |= {"demix_dir": tmp_path / "demix", "spec_dir": tmp_path / "spec"}
    mix = write_mix("demix/small/drums/drums.wav")
    before = mix.read_bytes()
    with pytest.raises(OptionError, match=f"found the input {mix}, which would be overwritten"):
        analyze(mix, **options)
    assert mix.read_bytes() == before
    elsewhere = write_mix("song.wav")
    analyze(elsewhere, **options)
    kept = tmp_path / "demix/small/song"
    assert analyze(kept, **options).path == kept
    analyze(elsewhere, **options | {"demix_seed": 1})


def test_timings_are_not_added_to_a_song_of_a_library(
    tmp_path: Path, library: Path, options: dict[str, Any]
) -> None:
    before = contents(library)
    with pytest.raises(OptionError, match=r"one/bass.wav, which would be overwritten"):
        analyze_library(library, tmp_path / "out", timings_path=library / "one/bass.wav", **options)
    assert contents(library) == before
    assert not os.path.exists(tmp_path / "out")
