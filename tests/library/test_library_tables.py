"""The tables of a library: which outcome of a song counts, how many parts a run leaves, and what one that is ended."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hard_use.libraries import rows

from allin1_core import Analyzer
from allin1_core.errors import OutputError
from allin1_core.library import tables
from allin1_core.library.places import Place
from allin1_core.results.result import AnalysisResult
from allin1_core.separation.track import Track


def test_a_failure_counts_that_is_later_and_of_another_state(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (tmp_path / "songs").mkdir()
    (tmp_path / "failures").mkdir()

    def row(song: str, state: str, second: int, **more: str) -> dict[str, Any]:
        return {
            "song": song,
            "state": state,
            "finished": datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC),
            **more,
        }

    tables.write_part(place, "songs", [row(song, "a", 5) for song in ("same", "later", "before", "whole")])
    failed = [row("same", "a", 9), row("later", "b", 9), row("before", "b", 1), row("never", "a", 1)]
    tables.write_part(place, "failures", [{**one, "error": "AudioError"} for one in failed])
    outcomes = {"same": None, "later": "AudioError", "before": None, "whole": None, "never": "AudioError"}
    assert tables.read_outcomes(place) == outcomes


def test_a_file_in_the_place_of_a_table_is_not_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "failures").mkdir()
    (tmp_path / "songs").write_text("no table")
    with pytest.raises(OutputError, match=r"songs: cannot be listed \(found a file; expected a folder\)"):
        tables.done_songs(Place(tmp_path))


def test_a_run_of_a_day_leaves_few_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, parts = [0.0], list[tuple[float, int]]()
    monkeypatch.setattr(tables.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(tables, "write_part", lambda place, table, rows: parts.append((now[0], len(rows))))
    writer = tables.TableWriter(Place(tmp_path))
    for second in range(0, 86400, 10):
        now[0] = second
        writer.add({"song": str(second)})
    writer.close()
    assert [when for when, _ in parts[:3]] == [120, 250, 380]  # and the next row begins another
    assert sum(rows for _, rows in parts) == 8640
    assert len(parts) < 110
    for second in range(2500):
        now[0] = 86400 + 0.01 * second
        writer.add({"song": str(second)})
    writer.close()
    assert [rows for _, rows in parts[-3:]] == [1000, 1000, 500]


def test_the_end_of_a_job_leaves_the_rows_of_what_is_done(
    library: Path,
    tmp_path: Path,
    small_model: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    command: Callable[..., tuple[int, str, str]],
) -> None:
    """SIGTERM, of a time limit or a container, killed it: rows of the last minutes were not written."""
    request.addfinalizer(functools.partial(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM)))
    analyze_track = Analyzer.analyze_track

    def end_at_the_second(self: Analyzer, track: Track, *arguments: Any, **keywords: Any) -> AnalysisResult:
        if track.name == "three":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        return analyze_track(self, track, *arguments, **keywords)

    monkeypatch.setattr(Analyzer, "analyze_track", end_at_the_second)
    arguments = ("library", library, "--out", tmp_path / "out", "-q", "-m", small_model, "-d", "cpu", "-j", 1)
    assert command(*arguments) == (
        143,
        "",
        "allin1-core: interrupted; tracks that are done are kept, run again to go on\n",
    )
    assert [row["name"] for row in rows(tmp_path / "out")] == ["one"]
