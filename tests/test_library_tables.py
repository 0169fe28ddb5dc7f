"""The tables of a library: which outcome of a song counts, and how many parts a run leaves."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from allin1_core.library import tables
from allin1_core.library.places import Place


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
