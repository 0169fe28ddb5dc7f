"""The page of the reports, in a browser: every figure that it shows is that of the record."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_page import Page, window
from history_lines import (
    COMMITS,
    DESK,
    MACHINES,
    ROWS,
    SERVER,
    VERDICTS,
    some_lines,
    write_gate,
    write_history,
)

from parity.reports import page

TIMINGS = [
    {"stage": stage, "parent": parent, "start": start, "duration": duration, "backend": "fused"}
    for stage, parent, start, duration in (
        ("nn", None, 0.5, 1.5), ("spectrogram", None, 0.25, 0.25), ("dbn", "postprocess", 2.0, 0.0216)
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A page of `some_lines`, a gate and a timed analysis, and the JSON in it."""
    folder = tmp_path_factory.mktemp("reports")
    write_history(folder, some_lines())
    write_gate(folder, VERDICTS)
    timed = {"variant": "stems to result", "audio_seconds": 195.5, "figures": {"timings": TIMINGS}}
    content = {"created": "today", "machine": {"cpu": "a </script> processor"}, "records": [timed]}
    (folder / "bench.json").write_text(json.dumps(content), encoding="utf-8")
    page.write(folder)
    text = (folder / "index.html").read_text(encoding="utf-8")
    # Nothing is loaded from elsewhere.
    assert not re.search(r"https?:|//\w+\.\w|\bsrc=|@import|url\(", text)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert data is not None
    return folder / "index.html", json.loads(data[1])


def test_the_page_holds_what_was_recorded(written: tuple[Path, dict[str, Any]]) -> None:
    data = written[1]
    assert [line["rows"][ROWS[0]] for line in data["lines"][:5]] == [
        line["rows"][ROWS[0]] for line in some_lines()[:5]
    ]
    assert data["lines"][3]["rows"][ROWS[1]][1] is None
    assert data["gate"]["words"] == "This machine, today. Sure."
    assert [row[-1] for row in data["gate"]["rows"]] == ["ok", "FAILED", "not judged"]
    assert [stage["stage"] for stage in data["waterfall"]["stages"]] == ["spectrogram", "nn", "dbn"]


@pytest.fixture(params=[1400, 390], ids=["wide", "phone"])
def opened(request: pytest.FixtureRequest, browser: Any, written: tuple[Path, Any]) -> Iterator[Page]:
    """The page in a window of each width."""
    with window(browser, request.param):
        yield Page(browser, written[0])


def hover(page: Page, selector: str) -> str:
    """What the tooltip says when the pointer is at the one element of a selector."""
    from selenium.webdriver import ActionChains

    [element] = page.find_all(selector)
    page.run("arguments[0].scrollIntoView({block: 'center'})", element)
    ActionChains(page.driver).move_to_element(element).perform()
    return page.tip()


def test_a_point_tells_its_ratio(opened: Page, written: tuple[Path, Any]) -> None:
    line = written[1]["lines"][2]
    reference, *figures, _ = line["rows"][ROWS[2]]
    text = hover(
        opened, f'.point[data-row="{ROWS[2]}"][data-machine="{DESK}"][data-commit="{line["commit"]}"]'
    )
    shown = re.match(r"([\d.]+)x \(([\d.]+)-([\d.]+)\) beside (.+)", text)
    assert shown is not None
    assert [float(value) for value in shown.groups()[:3]] == [float(f"{value:.3g}") for value in figures]
    assert shown[4] == reference
    assert f"commit {line['commit']}, {line['date']}" in text
    assert MACHINES[DESK] in text
    assert DESK in text.splitlines()


def test_points_by_machine_stage_and_row(opened: Page) -> None:
    def points(machine: str = "") -> int:
        return len(opened.find_all(f'.point[data-machine="{machine}"]' if machine else ".point"))

    # Three rows at three commits, and at two, where one has no number.
    assert (points(DESK), points(SERVER)) == (9, 5)
    assert [element.text for element in opened.find_all(".missing")] == [
        "not measured: bbbbbbb (A server, 64 cores, AVX-512)"
    ]
    opened.click("#all")
    assert (points(DESK), points(SERVER)) == (12, 7)
    opened.click("#machine0")
    assert (points(DESK), points(SERVER)) == (0, 7)
    opened.click('#stage option[value="spectrogram"]')
    assert points() == 4
    assert {element.get_attribute("data-row") for element in opened.find_all(".cell")} == {
        "spectrogram/fused/exact"
    }


def test_the_keyboard_shows_what_the_pointer_does(opened: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    [point] = opened.find_all(f'.point[data-row="{ROWS[0]}"][data-commit="{COMMITS[2]}"]')
    opened.run("arguments[0].focus()", point)
    [tip] = opened.find_all("#tip")
    assert f"commit {COMMITS[2]}, with uncommitted changes, 2026-01-05 10:00 UTC" in tip.text
    assert tip.text == point.get_attribute("aria-label")
    point.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()


def test_a_cell_tells_the_worst_difference_and_its_histogram(opened: Page) -> None:
    text = hover(opened, f'.cell[data-row="spectrogram/fused/exact"][data-machine="{DESK}"]')
    assert "worst: 887 ULP · 4.8e-7" in text
    assert "60 comparisons, 0 outside their bounds" in text
    assert text.splitlines()[-4:] == [
        "0 ULP: 900 (90 %)", "up to 1 ULP: 90 (9 %)", "up to 2 ULP: 9 (0.9 %)", "up to 256 ULP: 1 (0.1 %)"
    ]  # fmt: skip
    bars = opened.find_all(f'.cell[data-row="spectrogram/fused/exact"][data-machine="{DESK}"] rect')
    assert [float(bar.get_attribute("height")) > 0 for bar in bars] == [True] * 3 + [False] * 3 + [
        True,
        *[False] * 4,
    ]
    failed = hover(opened, f'.cell[data-row="decoder/cython/exact"][data-machine="{SERVER}"]')
    assert "worst: not finite\n150 comparisons, 1 outside their bounds" in failed
    assert failed.splitlines()[-1] == "not finite: 3 (2.94 %)"


def test_headline_stages_and_gate_are_shown(opened: Page) -> None:
    tables = [element.text for element in opened.find_all("table")]
    ratio = some_lines()[4]["rows"][ROWS[0]]
    assert f"{ratio[1]:.3g}x ({ratio[2]:.3g}-{ratio[3]:.3g})" in tables[0]
    assert tables[0].count("not measured") == 1
    assert "94.5 ms for 196 s of audio; bit-identical" in tables[0]
    assert tables[2].count("✓ ok") == tables[2].count("✗ failed") == tables[2].count("not judged") == 1
    bars = [
        (float(bar.get_attribute("x")), float(bar.get_attribute("width")))
        for bar in opened.find_all(".bar rect")
    ]
    (first, width), (second, longer), _ = bars
    assert second == pytest.approx(first + width)
    assert longer == pytest.approx(6 * width)
    assert (
        hover(opened, ".bar:nth-last-of-type(1)")
        == "dbn, part of postprocess: 21.6 ms\nfrom 2 s on\nby fused"
    )
