"""What README.md and docs/usage.md show runs as it stands: Python, command line and make targets."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import allin1_core
from allin1_core import Stems
from allin1_core.audio.types import STEM_NAMES
from allin1_core.cli import main

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
USAGE = (ROOT / "docs/usage.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README + USAGE, flags=re.DOTALL | re.MULTILINE)


def commands(first_word: str) -> list[list[str]]:
    lines = (shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines())
    return [words for words in lines if words and words[0] == first_word]


@pytest.fixture
def music(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    with_small_models: None,
    write_mix: Callable[[str], Path],
    write_stems: Callable[..., Path],
) -> Path:
    """A folder with the files that the examples name; models are small ones where an example names none."""
    for name in ("song.wav", "a.wav", "b.wav"):
        write_mix(name)
    write_stems("stems/song")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_examples(music: Path, stems: np.ndarray) -> None:
    names: dict[str, Any] = {"samples": stems[:2, :22050].T, "sample_rate": 44100}
    names["known_beats"] = [0.1, 0.2, 0.3]
    names["frames"] = np.where(np.arange(400)[:, None] % 50 == 20, np.array([[0.6, 0.3]]), 0.02)
    names["reference_beats"] = np.arange(5.0, 8.0, 0.5)
    names["reference_intervals"], names["reference_labels"] = np.array([(0.0, 0.2), (0.2, 0.5)]), ["a", "b"]
    names["stream"] = np.where(np.arange(300) % 50 == 20, 0.9, 0.02)
    examples = blocks("python")
    assert len(examples) == 14
    for example in examples:
        exec(compile(example, "an example", "exec"), names)
    assert [Path(result.path).name for result in names["results"]] == ["a.wav", "b.wav"]
    assert sorted(path.name for path in (music / "results").iterdir()) == ["a.json", "b.json"]
    assert (names["status"].songs, names["status"].done) == (1, 1)
    assert (music / "labels/results/song.json").is_file()
    assert (music / "pages" / "a.html").stat().st_size > 50_000
    assert (music / "library.xml").read_text(encoding="utf-8").count("<TRACK ") == 2
    assert names["result"].segments[-1].end == 0.5
    hinted = names["hinted"]
    assert {(0.52, 1), (1.4, 3)} <= {*zip(hinted.beats, hinted.beat_positions, strict=True)}
    assert {stem: samples.shape for stem, samples in names["separated"].items()} == dict.fromkeys(
        STEM_NAMES, (88200, 2)
    )
    assert names["stems"].samples.shape == (4, 88200)
    assert names["spectrogram"].shape == (4, 500, 81)
    # The stages one by one give what they give together.
    whole = allin1_core.Analyzer()(Stems(stems))
    assert len(whole.beats) == 4
    assert [list(row) for row in names["beats"]] == [
        [time, position] for time, position in zip(whole.beats, whole.beat_positions, strict=True)
    ]
    assert names["segments"] == whole.segments
    assert names["beat_scores"]["F-measure"] == 0  # none of half a second is later than five
    assert 0 < names["section_scores"]["Pairwise F-measure"] <= 1
    assert names["track_beats"].last_beat == 2.7
    assert {*names["changing"].beat_positions} <= {1, 2, 3, 4}
    assert names["changing"].provenance["hints"] == {"beats_per_bar": [2, 3, 4], "meter_change_prob": 1e-3}
    assert len(names["sure"].confidences["beats"]) == len(names["sure"].beats) > 0
    assert [round(time, 2) for time, _ in names["reported"]] == [0.2, 0.7, 1.2, 1.7, 2.2, 2.7, 3.2, 3.7]
    assert names["bars"].tolist() == [[0.1, 2], [0.2, 3], [0.3, 1]]


@pytest.mark.full
def test_what_the_readme_shows_has_the_types_that_it_uses(tmp_path: Path) -> None:
    """`analyze` gave one result or a list, whichever it was asked for, so that no line of it passed."""
    examples = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "example.py").write_text("\n".join(examples), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "example.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout == "Success: no issues found in 1 source file\n"


def test_command_line_examples(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "song.wav", "--out-dir", "first", "--quiet", "--timings", "timings.jsonl"]) == 0
    for name in ("before.jsonl", "after.jsonl"):
        shutil.copy("timings.jsonl", name)
    examples = commands("allin1-core")
    assert [words[1] for words in examples] == [
        *("analyze", "view", "timings", "timings", "library", "doctor", "analyze", "analyze", "view")
    ]
    for words in examples:
        assert main(words[1:]) == 0, " ".join(words)
    results = {path.name for path in (music / "results").iterdir()}
    assert results == {f"song.{suffix}" for suffix in ("json", "html", "mid", "rpp", "rekordbox.xml")}
    assert (music / "pages" / "compared.html").stat().st_size > 50_000
    assert {0.52, 1.4} <= {*allin1_core.load_result(music / "hinted" / "song.json").beats}
    assert (music / "changing" / "song.json").exists()
    assert "spectrogram" in capsys.readouterr().out


def test_make_targets_exist() -> None:
    targets = set(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    named = set(re.findall(r"`make ([a-z-]+)", README)) | {words[1] for words in commands("make")}
    assert {"parity", "bench"} <= named <= targets


def test_extras_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = [extra for words in commands("pip") for extra in re.findall(r"\[(.*?)\]", words[-1])]
    extras = {extra for several in lists for extra in several.split(",")}
    assert {"torch", "demucs", "figures", "jams", "library"} <= extras
    for extra in extras:
        assert re.search(rf"^{extra} = \[", project, flags=re.MULTILINE), extra


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda p: p.name,
)
def test_links_and_paths_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:allin1_core|parity|bench|tests|docs)/[\w./]*)`", text)
    linked = re.findall(r"\]\(([^)#:]+)[)#]", text)
    missing = [path for path in named if not (ROOT / path).exists()]
    assert missing + [path for path in linked if not (page.parent / path).exists()] == []
