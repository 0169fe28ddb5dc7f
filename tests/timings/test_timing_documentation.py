"""What docs/timings.md shows of a comparison runs as it stands, and names what there is."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from timing_lines import record

from allin1_core.timings import causes, verdicts
from allin1_core.timings.comparison import compare

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "timings.md").read_text(encoding="utf-8")
COMPARING = TEXT[TEXT.index("## Comparing two runs") :]

Command = Callable[..., tuple[int, str, str]]


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```", COMPARING, flags=re.DOTALL | re.MULTILINE)
    return str(found)


@pytest.mark.usefixtures("with_small_models")
def test_the_example_of_a_comparison(
    write_mix: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
) -> None:
    write_mix("song.wav")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "expectations.toml").write_text(block("toml"), encoding="utf-8")
    *analyses, comparison = [shlex.split(line)[1:] for line in block("sh").splitlines()]
    assert [words[0] for words in analyses] == ["analyze", "analyze"]
    for words in analyses:
        assert command(*words, "--quiet")[0] == 0
    status, report, _ = command(*comparison)
    assert status == 0
    assert "| component | before ms | after ms | saved ms | speed-up | expected | status |" in report
    [row] = [line for line in report.splitlines() if line.startswith("| spectrogram |")]
    assert "2.5-100x, fused" in row
    assert "not comparable" not in report
    assert re.findall(r"^- \*\*.*?\*\* \((\w+)\)", report, flags=re.MULTILINE) == []


def test_a_comparison_as_json(tmp_path: Path, command: Command) -> None:
    before, after = record(tmp_path / "a.jsonl"), record(tmp_path / "b.jsonl", scale={"nn": 2.0})
    status, out, _ = command("timings", "compare", before, after, "--json")
    report = json.loads(out)
    found = {row["stage"]: row["status"] for row in report["components"]}
    assert (status, report["before"], found["nn"]) == (1, str(before), "regressed")


def test_a_stage_that_came_or_went_falls_short_only_of_what_was_expected(tmp_path: Path) -> None:
    one = record(tmp_path / "one.jsonl", runs=1)
    less = record(tmp_path / "less.jsonl", runs=1, edit=lambda line: [] if line.stage == "save" else line)
    expected = tmp_path / "expectations.toml"
    gain = "speedup = [2.0, 3.0]\n"
    stages = ("[stage.save]", "[stage.demix]", '[stage.nn]\nbackend = ["fused"]')
    expected.write_text("\n".join(f"{stage}\n{gain}" for stage in stages), encoding="utf-8")

    def found(*files: Path) -> dict[str, tuple[str, list[str]]]:
        parts = compare(*files).components
        return {part.stage: (part.status, [cause.text for cause in part.causes]) for part in parts}

    assert found(one, less)["save"] == ("as expected", ["recorded only before"])
    assert found(less, one)["save"] == ("as expected", ["recorded only after"])
    rows = found(one, less, expected)
    assert rows["save"] == ("not comparable", ["recorded only before"])
    assert rows["demix"] == ("not comparable", ["expected, but recorded in neither run"])
    assert rows["nn"] == ("cannot tell", [])  # what was expected ran, but once


def test_a_file_that_cannot_be_used_is_an_error_without_a_table(tmp_path: Path, command: Command) -> None:
    path = tmp_path / "no.jsonl"
    status, out, err = command("timings", "compare", path, path)
    assert (status, out) == (1, "")
    assert str(path) in err


def test_every_status_and_cause_is_explained() -> None:
    rows = {
        name
        for line in COMPARING.splitlines()
        for name in re.findall(r"`([\w ]+)`", line.split("|")[1] if line.startswith("|") else "")
    }
    statuses = {
        value
        for name, value in vars(verdicts).items()
        if name.isupper() and isinstance(value, str) and not name.startswith("_")
    }
    kinds = set(re.findall(r"``(\w+)``", str(causes.Cause.__doc__).partition("stage :")[0]))
    assert len(kinds) >= 12
    assert rows == statuses | kinds
    assert f"less than {verdicts.SHORTEST * 1000:g} ms in both runs" in COMPARING
