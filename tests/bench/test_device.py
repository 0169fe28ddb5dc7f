"""``make device``: its command, its report, and the gate's bars for a GPU."""

from __future__ import annotations

import copy
import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.device import __main__ as device
from bench.device import pipeline
from bench.device.report import cell, draw, render, targets
from bench.gate import device as gate
from bench.gate.bars import DeviceBar, DeviceBars, read_bars
from parity.reports.publish import dump_json

BARS = DeviceBars(
    (DeviceBar("network", "8 folds, quick, exact", 4.0), DeviceBar("separation", "ours", 30.0, "snr_db")), 1.3
)
PARTS: dict[str, Any] = {
    "parity": {
        "error": "",
        "rows": [
            {"name": "tests", "passed": 3, "failed": 0, "skipped": 1, "not reached": 0, "failures": []},
            {"name": "network, quick, exact, cuda", "difference": 1e-6, "held to": "<= 1e-4", "agrees": True},
        ],
    },
    "network": {
        "error": "",
        "rows": [
            {"name": "8 folds, torch, exact", "seconds": 0.246, "difference": 3e-7, "bound": 1e-4},
            {
                "name": "8 folds, quick, exact",
                "seconds": 0.041,
                "ratio": 6.0,
                "difference": 3e-6,
                "bound": 1e-4,
                "must_seconds": 0.06,
                "aim_seconds": 0.025,
            },
        ],
    },
    "separation": {"error": "", "rows": [{"name": "ours", "seconds": 0.3, "snr_db": 40.0}]},
}


def failures(
    parts: dict[str, Any], before: dict[str, Any] | None = None, *, brief: bool = False
) -> list[str]:
    """Rows and checks that fail, of a report as it comes back from its file."""
    parts = json.loads(dump_json(parts))
    verdicts = gate.judge_device(parts, before, BARS, brief=brief)
    return [f"{one.row} / {one.check}" for one in verdicts if one.passed is False]


def changed(part: str, index: int, **values: Any) -> dict[str, Any]:
    """The report with other values in one of its rows; a value None removes it."""
    parts = copy.deepcopy(PARTS)
    row = parts[part]["rows"][index]
    row.update(values)
    parts[part]["rows"][index] = {name: value for name, value in row.items() if value is not None}
    return parts


def test_what_holds_passes() -> None:
    assert failures(PARTS) == []
    assert failures(PARTS, PARTS) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, 1.01e-4, None])
def test_a_difference_that_is_too_large_or_no_number_fails(value: float | None) -> None:
    expected = ["network: 8 folds, torch, exact / difference"]
    assert failures(changed("network", 0, difference=value)) == expected
    assert failures(changed("network", 0, difference=value), brief=True) == expected


@pytest.mark.parametrize("value", [math.nan, 3.99, None])
def test_a_ratio_below_its_bar_fails(value: float | None) -> None:
    assert failures(changed("network", 1, ratio=value)) == ["network: 8 folds, quick, exact / ratio"]
    assert failures(changed("network", 1, ratio=value), brief=True) == []


def test_another_figure_below_its_bar_fails() -> None:
    assert failures(changed("separation", 0, snr_db=29.0)) == ["separation: ours / snr_db"]


@pytest.mark.parametrize(("module", "passed"), [("nowhere_to_be_found", None), ("json", False)])
def test_a_bar_of_what_is_not_installed_is_not_judged(module: str, passed: bool | None) -> None:
    bars = DeviceBars((DeviceBar("network", "8 folds, quick, fast", 4.0, module=module),), 1.3)
    (found,) = (one for one in gate.judge_device(PARTS, None, bars) if one.check == "ratio")
    assert (found.passed, found.required) == (passed, passed is not None)


def test_a_row_that_is_missing_fails() -> None:
    parts = copy.deepcopy(PARTS)
    parts["separation"]["rows"] = []
    assert failures(parts) == ["separation / rows", "separation: ours / snr_db"]
    del parts["separation"]  # not asked for
    assert failures(parts) == []


def test_a_part_that_failed_fails() -> None:
    parts = copy.deepcopy(PARTS)
    parts["network"] = {"rows": [], "error": "not done within 90 s"}
    assert failures(parts) == ["network / rows", "network: 8 folds, quick, exact / ratio"]


@pytest.mark.parametrize("counts", [{"failed": 1}, {"passed": 0}, {"not reached": 1}])
def test_tests_that_failed_or_did_not_run_fail(counts: dict[str, int]) -> None:
    assert failures(changed("parity", 0, **counts)) == ["parity: tests / tests"]


@pytest.mark.parametrize("value", [False, "yes", math.nan])
def test_a_comparison_that_does_not_agree_fails(value: Any) -> None:
    assert failures(changed("parity", 1, agrees=value)) == ["parity: network, quick, exact, cuda / agreement"]


@pytest.mark.parametrize("value", [4.6, math.nan])
def test_a_card_that_got_slower_fails(value: float) -> None:
    """By 1.3 times beside the committed report; a ratio of 4.7 is still within that."""
    found = failures(changed("network", 1, ratio=value), PARTS)
    assert found[-1] == "network: 8 folds, quick, exact / ratio beside the committed report of this card"
    assert failures(changed("network", 1, ratio=4.7), PARTS) == []
    without = copy.deepcopy(PARTS)
    without["network"]["rows"].pop()
    assert failures(without, PARTS)[-1] == found[-1]


def test_a_card_without_a_committed_report_is_not_compared() -> None:
    verdict = gate.judge_device(PARTS, None, BARS)[-1]
    assert (verdict.passed, verdict.required, verdict.measured) == (None, False, "there is none")


def test_the_bars_of_the_file() -> None:
    bars = read_bars().device
    assert bars.max_loss > 1
    assert {bar.part for bar in bars.rows} <= set(device._PARTS)
    assert all(bar.at_least > 0 for bar in bars.rows)


def test_a_misspelt_bar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    text = Path(gate.__file__).with_name("gate.toml").read_text(encoding="utf-8")
    path.write_text(text.replace("max_loss", "max_los"), encoding="utf-8")
    with pytest.raises(ValueError, match="max_los"):
        read_bars(path)


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def test_the_baseline_is_what_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "device-card.json"
    path.parent.mkdir()
    assert gate.baseline(path) is None
    path.write_text('{"parts": {"network": {"rows": []}}}', encoding="utf-8")
    assert gate.baseline(path) == {"network": {"rows": []}}
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "nothing")
    assert gate.baseline(path) is None  # measured, and not committed
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "a report")
    path.write_text('{"parts": {"network": {"rows": [1]}}}', encoding="utf-8")
    assert gate.baseline(path) == {"network": {"rows": []}}


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_baseline_that_is_no_report_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "reports" / "device-card.json"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"device-card\.json: .*; expected a report of `make device`"):
        gate.baseline(path)


def content(parts: dict[str, Any]) -> dict[str, Any]:
    verdicts = [vars(verdict) for verdict in gate.judge_device(parts, None, BARS)]
    facts = {"card": "a card", "driver": "1", "created": "today", "commit": "abc", "seconds": 9.0}
    machine = {"cpu": "a processor", "cores": 16, "python": "3.12.0"}
    return {**facts, "machine": machine, "versions": {"torch": "2.11.0"}, "parts": parts, "gate": verdicts}


def test_the_report_says_what_was_reached() -> None:
    text = render(content(PARTS), {"network": "stages.png"})
    assert (
        "**Not all parts ran:** without spectrogram, stems, mix, library. All bars of the others hold."
        in text
    )
    others = {
        part: {"rows": [{"name": "a row", "seconds": 1.0}], "error": ""}
        for part in ("spectrogram", "stems", "mix", "library")
    }
    assert "**All parts ran, and all bars hold.**" in render(content({**PARTS, **others}), {})
    assert "| network: 8 folds, quick, exact | must | 60 ms | 41 ms | met |" in text
    assert "| network: 8 folds, quick, exact | aim | 25 ms | 41 ms | **missed** |" in text
    assert "| ours | 300 ms | 40 dB |" in text
    assert re.search(r"\| every ratio \|.*\| not judged \|\n", text)
    assert "![Stages over time](stages.png)" in text
    unknown = changed("network", 1, seconds=math.nan)
    assert [row["met"] for row in targets(json.loads(dump_json(unknown)))] == [False, False]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("seconds", 0.0134, "13.4 ms"),
        ("first_seconds", 1.04, "1.04 s"),
        ("seconds_nn", 0.0134, "13.4 ms"),
        ("share", 0.914, "91%"),
        ("busy", 0.934, "93%"),
        ("ratio", 19.14, "19.1x"),
        ("memory_gb", 0.8671, "0.867 GB"),
        ("snr_db", 53.96, "54 dB"),
        ("snr_db", None, "-"),
        ("difference", 1.1e-5, "1.1e-05"),
        ("cores at work", 11.72, "11.7"),
        ("agrees", True, "yes"),
        ("beats moved", "1 of 350", "1 of 350"),
        ("rounds", 7, "7"),
    ],
)
def test_figures_have_their_units(name: str, value: object, shown: str) -> None:
    assert cell(name, value) == shown


def test_the_report_says_what_failed() -> None:
    parts = changed("parity", 0, failed=1, failures=["parity/test_network.py::test_x[triton-exact]"])
    parts["network"] = {"rows": [], "error": "not done within 90 s"}
    text = render(content(parts), {})
    assert "**3 failed:** parity: tests, tests; network, rows; network: 8 folds, quick, exact, ratio." in text
    assert "- **failed:** `parity/test_network.py::test_x[triton-exact]`" in text
    assert "**Failed:** not done within 90 s" in text


def test_rows_of_the_pipeline(tmp_path: Path) -> None:
    rows = pipeline.rows(device="cpu", seconds=1.5, rounds=1)
    for precision in ("exact", "fast"):
        name = f"stems to JSON, {precision}"
        (whole,) = (row for row in rows if row["name"] == name)
        stages = [row for row in rows if str(row["name"]).startswith(f"{name}: ")]
        names = [str(row["name"]).rpartition(": ")[2] for row in stages]
        assert {"audio_read", "nn", "metrical_dbn", "save"} <= {line["stage"] for line in whole["timings"]}
        assert {"audio_read", "nn"} <= set(names)
        assert (names[-1], "postprocess" in names) == ("all else", False)  # which has others in it
        assert all(row["share"] >= 0.005 for row in stages[:-1])
        assert sum(row["seconds"] for row in stages) == pytest.approx(whole["seconds"])
        assert sum(row["share"] for row in stages) == pytest.approx(1)

    parts = {"stems": {"error": "", "rows": rows}}
    assert draw(content(parts), "device-card", tmp_path) == {"stems": "device-card-stems.png"}
    assert (tmp_path / "device-card-stems.png").stat().st_size > 1000
    top = render(content(parts), {}).partition("## ")[0]
    assert "| stems to JSON, exact | " in top
    assert "nn" not in top
