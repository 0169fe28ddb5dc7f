"""The history of the measurements: its lines, what is refused, and the comment for a pull request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from history_lines import (
    DESK,
    FURTHER,
    ROWS,
    SERVER,
    VERDICTS,
    bench_line,
    parity_line,
    write_gate,
    write_history,
)
from test_parity_report import parity_record
from test_report import bench_record

from bench.gate.speed import Verdict
from bench.report.summary import history_content
from parity.agreement import compare
from parity.environment import machine_key
from parity.reports import history, page
from parity.reports.records import Outcome


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of one commit, that the history takes for this one."""
    folder = tmp_path / "clone"
    (folder / "reports").mkdir(parents=True)
    (folder / "code.py").write_text("1\n", encoding="utf-8")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.setattr(history, "_ROOT", folder)
    return folder


def test_a_run_adds_a_line_and_the_pages(clone: Path) -> None:
    reports, record = clone / "reports", bench_record()
    page.add(reports, "bench", history_content([record]))
    (clone / "code.py").write_text("2\n", encoding="utf-8")
    page.add(reports, "parity", history.parity_content([parity_record()], Outcome(2, ("t",), ("s",))))
    first, second = history.read(reports)
    head = ["git", "-C", str(clone), "rev-parse", "HEAD"]
    assert first["commit"] == subprocess.run(head, capture_output=True, text=True, check=True).stdout[:12]
    # The line itself, in the folder of the reports, is no change.
    assert (first["uncommitted"], second["uncommitted"]) == (False, True)
    assert first["machine"] == second["machine"] == machine_key()
    assert record.ratio is not None
    figures = [float(f"{value:.4g}") for value in (record.ratio.median, record.ratio.low, record.ratio.high)]
    assert first["rows"] == {"spectrogram/torch/cpu/exact/2 threads": ["madmom 0.17", *figures, 7]}
    assert first["headline"][record.key] == ["max 3.6e-07", 0.4, 196]
    assert second["tests"] == [2, 1, 1]
    assert {path.name for path in reports.iterdir()} == {"history.jsonl", "index.html", "comment.md"}


def test_runs_with_instructions_left_out_stand_beside_the_others(tmp_path: Path) -> None:
    below = tmp_path / "without_avx512"
    below.mkdir()
    for folder, machine, number in ((tmp_path, SERVER, 1), (below, DESK, 2), (tmp_path, SERVER, 3)):
        text = json.dumps(bench_line(machine, "aaaaaaa00000", number))
        with (folder / history.NAME).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
    assert [line["machine"] for line in history.read(tmp_path)] == [SERVER, DESK, SERVER]
    assert [line["machine"] for line in history.read(below)] == [DESK]


def test_outside_a_clone_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    history.append(tmp_path, "bench", {"headline": {}, "rows": {}})
    [line] = history.read(tmp_path)
    assert (line["commit"], line["uncommitted"]) == ("unknown", True)


def test_ours_are_recorded_and_no_ratio_of_what_does_not_agree() -> None:
    records = [
        bench_record(stage="decoder", agrees=False),
        bench_record(role="peer", backend="other"),
        bench_record(reference="", reference_seconds=[], backend="numpy"),
    ]
    assert history_content(records)["rows"] == {
        "decoder/torch/cpu/exact/2 threads": ["madmom 0.17", None, None, None, 0]
    }


def test_a_line_of_forty_rows_is_short(tmp_path: Path) -> None:
    records = [bench_record(3 + number / 7, variant=f"[3, 4], variant {number:02}") for number in range(40)]
    history.append(tmp_path, "bench", history_content(records))
    assert len((tmp_path / history.NAME).read_bytes()) < 5000


def test_the_worst_of_each_stage_backend_and_precision() -> None:
    apart = [0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 256, 257, 2**16, 2**16 + 1, 2**32, 2**32 + 1]
    ones = np.ones(len(apart) + 1)
    found = np.append((ones[1:].view(np.int64) + apart).view(np.float64), np.nan)
    records = [
        parity_record(
            stage="spectrogram", measures={"max_difference": 2.5e-7, "max_ulp": 3.0, "ulp_counts": [7, 2, 1]}
        ),
        parity_record(
            stage="spectrogram",
            passed=False,
            measures=compare(found, ones).measures(),
        ),
        parity_record(stage="spectrogram", precision="fast", measures={"max_difference": np.nan}),
        parity_record(stage="decoder", backend="cython", measures={"log_probability_difference": 0.0}),
        parity_record(stage="pipeline", backend="mlx + mlx", device="mlx", measures={"beats": 3}),
        parity_record(stage="network", device="cuda", measures={"max_difference": 1e-6}),
    ]
    rows = history.parity_content(records, Outcome(1, (), ()))["rows"]
    # 0, 1, 2, to 4, 8, 16, 256, 65,536, 2**32, 2**64, not finite; beside the 7, 2, 1 of the first.
    together = [8, 3, 2, 2, 2, 2, 2, 2, 2, 1, 1]
    assert rows["spectrogram/torch/exact"] == [2, 1, np.inf, np.inf, together]
    assert rows["spectrogram/torch/fast"] == [1, 0, None, None, []]
    assert rows["decoder/cython/exact"] == [1, 0, 0.0, None, []]
    assert rows["pipeline/mlx + mlx/exact"] == [1, 0, None, None, []]
    assert rows["network/torch on cuda/exact"] == [1, 0, 1e-6, None, []]
    assert len(history.ULP_LABELS) == 11


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ("\n", r"no JSON object \(''\)"),
        ("<<<<<<< HEAD\n", r"no JSON object \('<<<<<<< HEAD'\)"),
        ("[]\n", r"no JSON object \(\[\]\)"),
        (bench_line(DESK, "a", 1, kind="other"), "kind is 'other'"),
        (bench_line(DESK, "a", 1, commit=None), "commit is None"),
        (bench_line(DESK, "a", 1, uncommitted="no"), "uncommitted is 'no'"),
        (bench_line(DESK, "a", 1, rows=None), "rows is None"),
        (bench_line(DESK, "a", 1, headline=[]), r"headline is \[\]"),
        (parity_line(DESK, "a", 1) | {"tests": 3}, "tests is 3"),
        (bench_line(DESK, "a", 1, rows={"x": ["madmom", 1.0, 1.0, 1.0]}), r"row 'x' is \['madmom', 1.0"),
        (bench_line(DESK, "a", 1, rows={"x": ["madmom", "1", 1.0, 1.0, 7]}), r"row 'x' is \['madmom', '1'"),
    ],
)
def test_a_malformed_line_is_refused(broken: Any, found: str, tmp_path: Path) -> None:
    write_history(tmp_path, [bench_line(DESK, "a", 1), broken])
    with pytest.raises(ValueError, match=rf"history\.jsonl, line 2: {found}.*; take it from git again"):
        page.write(tmp_path)
    assert not (tmp_path / "index.html").exists()


def test_a_session_adds_its_line_and_ends_with_what_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / history.NAME
    path.write_text("broken\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "parity/meta_tests/test_oracles.py",
        "--parity-report",
        tmp_path,
    ]
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert f"{path}, line 1: no JSON object ('broken'); expected what" in found.stderr
    assert "Traceback" not in found.stdout + found.stderr
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[1])["tests"][1] == 0


def test_without_a_line_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"history\.jsonl: no line; expected those that `make bench`"):
        page.write(tmp_path)
    write_history(tmp_path, [])
    with pytest.raises(ValueError, match=r"history\.jsonl: no line"):
        page.write(tmp_path)


def test_the_comment_compares_with_the_newest_run_of_another_commit_here(tmp_path: Path) -> None:
    before, after = bench_line(DESK, "aaa", 1), bench_line(DESK, "bbb", 4)
    for row, cells in zip(ROWS, ([10, 9, 11], [20, 18, 22], [7, 7, 7]), strict=True):
        before["rows"][row][1:4] = cells
    for row, cells in zip(ROWS, ([8, 7, 8.9], [21, 19, 23], [7, 7, 7]), strict=True):
        after["rows"][row][1:4] = cells
    before["rows"][ROWS[2]][4] = 1
    after["rows"][FURTHER] = ["madmom 0.17", 99, 98, 99, 9]
    before["rows"]["library/ray"] = ["local", 2, 1, 3, 9]
    worse = parity_line(DESK, "bbb", 6)
    worse["rows"]["spectrogram/fused/exact"][3] = 888
    worse["rows"].pop("pipeline/fused/exact")
    lines = [
        before,
        bench_line(DESK, "ddd", 2, uncommitted=True),
        bench_line(SERVER, "eee", 3),
        after,
        parity_line(DESK, "aaa", 5),
        worse,
    ]
    write_history(tmp_path, lines[::-1])
    write_gate(tmp_path, VERDICTS)
    page.write(tmp_path)
    assert (tmp_path / "comment.md").read_text(encoding="utf-8").splitlines() == [
        "**What changed**, on A desk, 2 cores, AVX2 (more in `reports/index.html`)",
        "- speed at bbb beside aaa, as median (interval):",
        f"  - {ROWS[0]}: 10x (9-11) → 8x (7-8.9): **slower**",
        f"  - {ROWS[1]}: 20x (18-22) → 21x (19-23): intervals overlap",
        f"  - {ROWS[2]}: 7x (one round) → 7x (7-7): too few rounds to tell",
        f"  - of 4 rows, 1 slower ({ROWS[0]}), 1 faster ({FURTHER}), 1 gone (library/ray)",
        "- accuracy at bbb: 4,534 tests passed, 0 failed, 3 skipped; 210 comparisons, 1 outside their bounds; beside "
        "aaa, 1 further from the oracle (spectrogram/fused/exact), 0 closer to it, 1 gone (pipeline/fused/exact)",
        "- gate: 1 of 3 rows hold, 1 failed (decoder/cython)",
    ]


def test_changes_that_are_not_committed_are_compared_with_their_own_commit() -> None:
    clean, changed = bench_line(DESK, "aaa", 1), bench_line(DESK, "aaa", 2, uncommitted=True)
    assert page.base([clean, changed]) is clean
    assert page.base([clean, clean]) is None
    assert page.comment([clean], None)[1] == (
        "- speed at aaa: no run of another commit on this machine to compare with"
    )


def test_a_gate_of_another_form_is_refused(tmp_path: Path) -> None:
    write_history(tmp_path, [bench_line(DESK, "a", 1)])
    write_gate(tmp_path, [Verdict("a  row", "check", "1", "2", True)])
    with pytest.raises(ValueError, match=r"gate\.md: a row with 6 cells"):
        page.write(tmp_path)
