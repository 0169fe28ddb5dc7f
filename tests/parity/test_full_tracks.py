"""The comparison over a folder of the user's tracks, on a small one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.gate.cases import madmom_is_installed

Compare = Callable[..., tuple[int, str]]

pytestmark = pytest.mark.skipif(
    not madmom_is_installed(), reason="the oracle madmom has no wheel for this Python"
)


@pytest.fixture
def compare(
    tmp_path: Path, small_model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Compare:
    """Run the comparison on ``my music`` from the folder it lies in; its status and what it printed."""
    from parity.full import tracks as full_tracks

    monkeypatch.chdir(tmp_path)

    def run(*more: str) -> tuple[int, str]:
        kept = ["--work", "work", "--processes", "1"]
        status = full_tracks.main(["my music", "--model", small_model, "--reports", "reports", *kept, *more])
        return status, capsys.readouterr().out

    return run


def rows(tmp_path: Path) -> list[dict[str, Any]]:
    content = json.loads((tmp_path / "reports" / "accuracy_tracks_of_a_folder.json").read_text())
    found: list[dict[str, Any]] = content["rows"]
    return found


def test_a_folder_of_tracks_is_compared_and_reported(
    tmp_path: Path, small_model: str, write_stems: Callable[..., Path], compare: Compare
) -> None:
    write_stems("my music/one")
    write_stems("my music/two", suffix=".flac")
    assert compare()[0] == 0
    assert [row["track"] for row in rows(tmp_path)] == ["one", "two"]
    exact = {part["implementation"]: part for part in rows(tmp_path)[0]["spectrogram"]}
    assert exact["numpy-exact"]["largest"] == 0
    assert 0 < exact["fused-exact"]["largest"] <= 5e-7
    assert rows(tmp_path)[0]["network"]["largest"] <= 1e-5
    text = (tmp_path / "reports" / "accuracy.md").read_text()
    assert "| torch (computed by fused), exact on cpu |" in text
    assert "| torch, its own operations, exact |" in text
    assert "Within the declared bounds on 2 of 2 tracks (spectrogram) and 2 of 2 (network)" in text
    assert "the same beats, positions and sections on 2 of 2" in text
    assert f"Command: `python -m parity.full.tracks 'my music' --model {small_model}`. Measured" in text
    plot = tmp_path / "reports" / "accuracy_tracks_of_a_folder.png"
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_finished_tracks_are_not_compared_again(
    tmp_path: Path, write_stems: Callable[..., Path], stems: np.ndarray, compare: Compare, monkeypatch
) -> None:
    from parity.full import tracks as full_tracks
    from parity.full.track_agreement import Comparison

    compared = []
    right = Comparison.compare

    def counting(self: Comparison, path: Path) -> dict[str, Any]:
        compared.append(path.name)
        if path.name == "two" and compared.count("two") == 1:
            raise KeyboardInterrupt
        return right(self, path)

    monkeypatch.setattr(Comparison, "compare", counting)
    write_stems("my music/one", samples=stems[:, :50_000])
    write_stems("my music/two", samples=stems[::-1, :50_000])
    with pytest.raises(KeyboardInterrupt):
        compare()
    assert not (tmp_path / "reports").exists()
    assert compare()[0] == 0
    assert compared == ["one", "two", "two"]
    # By what it is, not by its name; and only as long as what made the row is the same.
    (tmp_path / "my music" / "one").rename(tmp_path / "my music" / "three")
    assert compare()[0] == 0
    assert compared == ["one", "two", "two"]
    assert [row["track"] for row in rows(tmp_path)] == ["three", "two"]
    monkeypatch.setattr(full_tracks, "source_digest", lambda: "another state of the code")
    assert compare()[0] == 0
    assert compared == ["one", "two", "two", "three", "two"]


def test_a_track_that_cannot_be_compared_fails_and_is_named(
    tmp_path: Path, write_stems: Callable[..., Path], stems: np.ndarray, compare: Compare
) -> None:
    write_stems("my music/good", samples=stems[:, :50_000])
    (write_stems("my music/bad") / "vocals.wav").unlink()
    (write_stems("my music/cut") / "bass.wav").write_bytes(b"RIFF")
    (tmp_path / "my music" / "artwork").mkdir()
    (tmp_path / "my music" / "artwork" / "cover.png").touch()
    status, printed = compare()
    assert status == 1
    assert "my music/artwork: no audio files in it; passed over" in printed
    assert "1 of 3 tracks agree\nbad: bad: no file for the stem vocals;" in printed
    text = (tmp_path / "reports" / "accuracy.md").read_text()
    assert "on 1 of 3 tracks (spectrogram) and 1 of 3 (network)" in text
    assert "2 of them could not be compared." in text
    assert "- **bad**: bad: no file for the stem vocals; found bass.wav, drums.wav, other.wav;" in text
    assert "- **cut**: cut/bass.wav: " in text
    assert "artwork" not in text
    # Repaired, it is compared; what was finished stays.
    for name in ("bad", "cut"):
        shutil.rmtree(tmp_path / "my music" / name)
    assert compare()[0] == 0


def test_a_folder_of_bad_tracks_alone_is_reported_too(
    tmp_path: Path, write_stems: Callable[..., Path], compare: Compare
) -> None:
    (write_stems("my music/bad") / "vocals.wav").unlink()
    assert compare()[0] == 1
    text = (tmp_path / "reports" / "accuracy.md").read_text()
    assert "on 0 of 1 tracks (spectrogram)" in text
    assert "- **bad**: bad: no file for the stem vocals" in text


@pytest.mark.full
def test_several_processes_find_the_same(
    tmp_path: Path, write_stems: Callable[..., Path], stems: np.ndarray, compare: Compare
) -> None:
    write_stems("my music/one", samples=stems[:, :50_000])
    write_stems("my music/two", samples=stems[::-1, :50_000])
    assert compare("--processes", "2", "--work", "other")[0] == 0
    found = rows(tmp_path)
    assert compare()[0] == 0
    for row, other in zip(found, rows(tmp_path), strict=True):
        assert row["spectrogram"] == other["spectrogram"]
        assert row["pipeline"] == other["pipeline"]
        assert row["track"] == other["track"]


def test_a_folder_without_tracks_is_refused(tmp_path: Path) -> None:
    from parity.full import tracks as full_tracks

    with pytest.raises(SystemExit, match="no folders of audio in it; expected one for each track"):
        full_tracks.main([str(tmp_path)])
