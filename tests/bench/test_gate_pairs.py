"""The gate's comparison with the base commit: what is compared, how sure a verdict is, and what replays make of it."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from bench.gate import base, judge, pairs, simulate
from bench.gate.bars import read_bars
from bench.gate.report import write_section
from bench.gate.sequential import ALPHA, BETA, LOOKS, LOSS, TOLERATED, decide, slowdown
from bench.gate.speed import ALPHA as BARS_ALPHA
from bench.measure import tree as measured_tree
from bench.measure.tree import COUNTED, ROWS


@pytest.mark.parametrize("number", LOOKS)
def test_a_verdict_is_wrong_no_more_often_than_its_share(number: int) -> None:
    """By the number of pairs on the wrong side, at the first that is enough for it."""

    def enough(wrong: float, right: float, verdict: bool) -> int:
        values = [[wrong] * k + [right] * (number - k) for k in range(number + 1)]
        return next(k for k in range(number + 1) if decide(values[k], len(ROWS))[2] is verdict)

    slower = enough(TOLERATED * 1.1, 0.9, False)
    assert (
        binom.sf(slower - 1, number, 0.5)
        <= ALPHA / (len(ROWS) * len(LOOKS))
        < binom.sf(slower - 2, number, 0.5)
    )
    as_fast = enough(1.0, LOSS, True)
    assert binom.sf(as_fast - 1, number, 0.5) <= BETA / len(LOOKS) < binom.sf(as_fast - 2, number, 0.5)


def test_the_first_look_wants_all_pairs_and_what_is_tolerated_is_no_loss() -> None:
    assert decide([1.02] * 16, len(ROWS)) == (1.02, 1.02, False)
    assert decide([TOLERATED] * 16, len(ROWS))[2] is True
    assert decide([1.2] * 15 + [0.9], len(ROWS))[2] is None
    assert decide([1.06, 0.99] * 8, len(ROWS)) == (0.99, 1.06, None)
    # Too few to be sure of anything.
    assert decide([3.0] * 5, len(ROWS)) == (0.0, math.inf, None)
    # 16 pairs of one side have probability 2^-16: less than an eighth of a fourth of ALPHA, more than a ninth.
    assert [decide([3.0] * 16, rows)[0] for rows in (8, 9)] == [3.0, 0.0]
    # Of an unchanged tree at most 1 run in 1,000 fails.
    assert ALPHA + BARS_ALPHA == 0.001


def test_the_slowdown_of_a_pair_favours_neither_side() -> None:
    one, other = [1.0, 2.0, 4.0, 3.0], [1.0, 1.0, 1.0, 2.0]
    assert slowdown(one, other) == pytest.approx(math.sqrt(2.0 * 1.5))
    assert slowdown(other, one) * slowdown(one, other) == pytest.approx(1)
    for wrong in (math.nan, math.inf, 0.0, -1.0):
        with pytest.raises(ValueError, match="expected as many of each, positive and finite"):
            slowdown([1.0, wrong], [1.0, 1.0])
    with pytest.raises(ValueError, match="as many of each"):
        slowdown([1.0], [1.0, 1.0])


def test_pairs_are_taken_until_every_row_is_clear() -> None:
    asked: list[tuple[str, ...]] = []
    slow = {"slow": 1.05, "same": 1.0}

    def next_pair(number: int, wanted: Sequence[str]) -> dict[str, float]:
        asked.append(tuple(wanted))
        open_row = {"open": 1.06 if number % 2 else 0.99}
        return {row: value for row, value in (slow | open_row).items() if not wanted or row in wanted}

    decisions = pairs.judge_pairs(next_pair)
    assert {row: (one.passed, one.pairs) for row, one in decisions.items()} == {
        "slow": (False, 16),
        "same": (True, 16),
        "open": (None, 80),
    }
    assert [len(set(names)) for names in asked] == [0] + [3] * 15 + [1] * 64


def test_the_table_says_what_is_slower_and_what_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def time_pair(tree: Path, base: Path, number: int, wanted: Sequence[str] = ()) -> pairs.Times:
        doubtful = 1.1 if number % 2 else 0.95
        seconds = {"a": 1.06, "b": 1.0, "c": doubtful}
        return {row: ([seconds[row]], [1.0]) for row in wanted or seconds}

    monkeypatch.setattr(pairs, "time_pair", time_pair)
    verdicts = pairs.check_times(Path("tree"), Path("base"), lambda _: None)
    assert [(one.row, one.passed, one.measured) for one in verdicts] == [
        ("a", False, "1.060-1.060x in 16 pairs"),
        ("b", True, "1.000-1.000x in 16 pairs"),
        ("c", None, "0.950-1.100x in 80 pairs: cannot tell"),
    ]
    assert not verdicts[2].required


def test_either_tree_begins_half_of_the_pairs_and_the_times_keep_their_sides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[Path] = []

    class Process:
        def __init__(self, folder: Path) -> None:
            self.folder = folder
            begun.append(folder)

        def __enter__(self) -> Process:
            return self

        def __exit__(self, *_: object) -> None: ...

        def rows(self) -> dict[str, str]:
            return {"both": "digest", f"{self.folder} alone": "digest"}

        def seconds(self, row: str) -> float:
            return 2.0 if self.folder == Path("tree") else 1.0

    monkeypatch.setattr(pairs, "Tree", Process)
    for number in range(100):
        times = pairs.time_pair(Path("tree"), Path("base"), number)
        assert times == {"both": ([2.0] * pairs.ROUNDS, [1.0] * pairs.ROUNDS)}
    assert 40 <= begun[::2].count(Path("tree")) <= 60


def test_a_tree_that_computes_more_takes_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pair of real processes."""
    tree, other = base.lay_out(None, tmp_path)
    assert base.is_the_same(tree, other)
    sections = tree / "allin1_core" / "structure" / "__init__.py"
    slow = """
_once = sections


def sections(*inputs):
    for _ in range(40):
        _once(*inputs)
    return _once(*inputs)
"""
    sections.write_text(sections.read_text(encoding="utf-8") + slow, encoding="utf-8")
    assert not base.is_the_same(tree, other)
    monkeypatch.setattr(pairs, "ROUNDS", 3)
    times = pairs.time_pair(tree, other, 0)
    assert list(times) == list(ROWS)
    assert {len(side) for sides in times.values() for side in sides} == {3}
    assert slowdown(*times["structure/numpy/exact"]) > 1.5


def test_what_is_timed_and_counted_computes_what_it_is_called() -> None:
    found = {name: make()() for name, make in COUNTED.items()}
    assert found["spectrogram/fused/exact"].shape == found["spectrogram/fused/fast"].shape == (4, 400, 81)
    assert found["spectrogram/numpy/exact"].shape == (4, 100, 81)
    assert found["network/fused/exact"].beat.shape == (200,)
    for row, seconds in (("decoder/cython/exact", 15), ("decoder/cython/online", 5)):
        assert len(found[row]) >= seconds  # no slower than a beat a second
    assert len(found["structure/numpy/exact"]) > 1


def test_a_process_that_imports_another_tree_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/another")
    with pytest.raises(RuntimeError, match="allin1_core was imported; expected /another/allin1_core"):
        measured_tree.main([])


def test_a_tree_that_cannot_run_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tree, other = base.lay_out(None, tmp_path)
    (tree / "allin1_core" / "structure" / "__init__.py").write_text(
        "raise OSError('broken')", encoding="utf-8"
    )
    with pytest.raises(RuntimeError, match=r"tree: its process ended with 1"):
        pairs.time_pair(tree, other, 0)
    assert "OSError: broken" in capfd.readouterr().err


def test_other_inputs_are_an_error(tmp_path: Path) -> None:
    tree, other = base.lay_out(None, tmp_path)
    inputs = tree / "parity" / "inputs" / "activations.py"
    text = inputs.read_text(encoding="utf-8")
    inputs.write_text(text.replace("60 / 104", "60 / 105"), encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"^decoder/cython/exact: other inputs than the base's"):
        pairs.time_pair(tree, other, 0)


def git(folder: Path, *arguments: str) -> str:
    names = [f"GIT_{role}_{field}" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")]
    environment = {**os.environ, **dict.fromkeys(names, "test")}
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with a package, and a baseline that came with its second commit of three."""
    root = tmp_path / "clone"
    for name in ("allin1_core/stage.py", "allin1_core/kernel.pyx", "parity/inputs.py", "setup.py"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
    flags = "[[tool.setuptools.ext-modules]]\nname = 'kernel'\n"
    (root / "pyproject.toml").write_text(flags, encoding="utf-8")
    (root / "allin1_core" / "kernel.so").write_bytes(b"built")
    (root / ".gitignore").write_text("*.so\n/build/\n", encoding="utf-8")
    git(tmp_path, "init", "--quiet", str(root))
    for name in ("one", "baseline.json", "three"):
        (root / name).write_text(name, encoding="utf-8")
        git(root, "add", ".")
        git(root, "commit", "--quiet", "--message", name)
    monkeypatch.setattr(base, "ROOT", root)
    monkeypatch.setattr(base, "BASELINE", root / "baseline.json")
    return root


def test_the_base_is_the_commit_that_the_baseline_came_with(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert base.base_commit() == git(repository, "rev-parse", "HEAD~1")
    (repository / "baseline.json").write_text("accepted just now", encoding="utf-8")
    assert base.base_commit() == "HEAD"
    monkeypatch.setattr(base, "BASELINE", repository / "none.json")
    with pytest.raises(base.BaseMissingError, match=r"no commit has none\.json"):
        base.base_commit()
    git(tmp_path, "clone", "--quiet", "--depth", "1", repository.as_uri(), "shallow")
    monkeypatch.setattr(base, "ROOT", tmp_path / "shallow")
    with pytest.raises(base.BaseMissingError, match="the clone is shallow: git fetch --unshallow"):
        base.base_commit()
    monkeypatch.setattr(base, "ROOT", tmp_path)
    with pytest.raises(base.BaseMissingError, match=r"git rev-parse: .*not a git repository"):
        base.base_commit()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(base.BaseMissingError, match="git is not installed"):
        base.base_commit()


def test_a_base_with_the_same_kernels_is_not_built_again(repository: Path, tmp_path: Path) -> None:
    tree, other = base.lay_out("HEAD", tmp_path / "out")
    assert len(str(tree)) == len(str(other))
    assert (other / "allin1_core" / "kernel.so").read_bytes() == b"built"
    assert base.is_the_same(tree, other)
    (repository / "allin1_core" / "stage.py").write_text("changed = 1", encoding="utf-8")
    tree, other = base.lay_out("HEAD", tmp_path / "out")
    assert not base.is_the_same(tree, other)
    assert (other / "allin1_core" / "stage.py").read_text(encoding="utf-8") == ""
    with pytest.raises(base.BaseMissingError, match="git archive: "):
        base.lay_out("nothing", tmp_path / "out")


def test_a_base_that_cannot_be_built_is_required_and_not_judged(repository: Path) -> None:
    """Its kernels differ, and its pyproject.toml says nothing that can be built."""
    (repository / "allin1_core" / "kernel.pyx").write_text("changed = 1", encoding="utf-8")
    [verdict] = judge.judge_beside_base(read_bars(), "HEAD", lambda _: None)
    assert (verdict.passed, verdict.required) == (None, True)
    assert verdict.measured.startswith("HEAD cannot be built: ")
    shutil.rmtree(repository / ".git")
    [verdict] = judge.judge_beside_base(read_bars(), "HEAD", lambda _: None)
    assert (verdict.passed, verdict.required) == (None, False)


def test_the_same_sources_hold_without_a_measurement(repository: Path) -> None:
    [verdict] = judge.judge_beside_base(read_bars(), "HEAD", lambda _: None)
    assert (verdict.passed, verdict.measured) == (True, "the sources are those of HEAD")
    assert (repository / "build" / "gate" / "base" / "baseline.json").exists()


def recording(path: Path, spread: float) -> Path:
    """Pairs whose processes differ by so much, in spells: those of a seeded clock."""
    generator = np.random.default_rng(1)
    made = []
    for number in range(200):
        busy = 1.5 if number // 10 % 2 else 1.0
        sides = generator.lognormal(0, spread / math.sqrt(2), 2) * busy
        made.append({"row": [(side * generator.lognormal(0, 0.01, 11)).tolist() for side in sides]})
    content = {"pairs": made, "load": [1.0] * 200, "machine": "a machine", "ended": "noon"}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_replays_find_a_loss_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "gate.md"
    write_section("What was said", ["all well"], page)
    monkeypatch.setattr(simulate, "write_section", lambda *section: write_section(*section, page))
    monkeypatch.setattr(simulate, "UNCHANGED", 200)
    monkeypatch.setattr(simulate, "LOSSES", 100)
    assert simulate.main([str(recording(tmp_path / "quiet.json", 0.015))]) == 0
    text = page.read_text(encoding="utf-8")
    assert "all well" in text
    assert "0 of 200 replays had a row that was called slower, and 0 of " in text
    [row] = [line for line in text.splitlines() if line.startswith("| row | 1.")]
    unchanged, three, five, ten = (
        [int(count) for count in cell.split("/")] for cell in row.strip(" |").split("|")[2:]
    )
    assert unchanged[0] == 0
    assert five[0] >= 95
    assert ten == [100, 0, 0]
    assert sum(three) == 100
    content = json.loads((tmp_path / "quiet.json").read_text(encoding="utf-8"))
    slow, path = "decoder/cython/exact", tmp_path / "slow.json"
    for times, found in ((1.05, 8), (1.0, 0)):
        slower = [
            {slow: ([times * one for one in ours], theirs)}
            for ours, theirs in (pair["row"] for pair in content["pairs"])
        ]
        path.write_text(json.dumps(content | {"pairs": slower, "slow": slow}), encoding="utf-8")
        [line] = [line for line in simulate.simulate(path) if "takes 5% more time" in line]
        assert line.endswith(f"{found} of 8 real runs called that row slower, and 0 one of another kernel.")
    # A second time the section is replaced.
    simulate.main([str(tmp_path / "quiet.json")])
    assert page.read_text(encoding="utf-8") == text


def test_a_recording_is_pairs_of_the_tree_and_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[int] = []

    def time_pair(tree: Path, base: Path, number: int) -> pairs.Times:
        made.append(number)
        return {"row": ([1.0], [1.1])}

    monkeypatch.setattr(simulate, "lay_out", lambda *_: (Path("tree"), Path("base")))
    monkeypatch.setattr(simulate, "time_pair", time_pair)
    clock = iter([0.0, 1.0, 2.0, 61.0, 0.0, 1.0, 61.0])
    monkeypatch.setattr(simulate.time, "monotonic", lambda: next(clock))
    path = tmp_path / "recording.json"
    for number in (2, 3):
        simulate.main(["--record", str(path), "--minutes", "1"])
        assert len(json.loads(path.read_text(encoding="utf-8"))["pairs"]) == number
    assert made == [0, 1, 2]
    monkeypatch.setattr(simulate, "slow_down", lambda *_: None)
    with pytest.raises(SystemExit, match="2"):
        simulate.main(["--record", str(path), "--slow", "decoder/cython/exact"])
    assert "made with --slow None, not decoder/cython/exact; expected another file" in capsys.readouterr().err


@pytest.mark.parametrize("row", ["spectrogram/fused/exact", "network/fused/exact", "decoder/cython/exact"])
def test_a_kernel_that_was_slowed_gives_the_same_in_more_time(
    tmp_path: Path, row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twentieth more is what it gets; here it is six times as much, which three rounds of one pair show."""
    monkeypatch.setattr(pairs, "ROUNDS", 3)
    tree, base = simulate.lay_out(None, tmp_path / "laid out")
    simulate.slow_down(tree, row, 6.0)
    slowed = {name: simulate.slowdown(*sides) for name, sides in simulate.time_pair(tree, base, 0).items()}
    others = [value for name, value in slowed.items() if name.split("/")[:2] != row.split("/")[:2]]
    assert min(slowed[row] / other for other in others) > 2
