"""The harness for hostile files notices what it is there to notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from hard_use.reader_process import faults, read_hostile_files


@pytest.mark.parametrize(
    ("reader", "fault"),
    [
        ("well", ""),
        ("crash", "process ended with -6"),
        ("hang", "hung"),
        ("hoard", "took 99 MB|took 100 MB"),
        ("hoard_everything", "MemoryError"),
        ("blame_nobody", "does not name the file"),
        ("stumble", "IndexError"),
    ],
)
def test_misbehaviour_is_noticed(tmp_path: Path, reader: str, fault: str) -> None:
    paths = [tmp_path / "good", tmp_path / "bad", tmp_path / "after"]
    readings = read_hostile_files(
        f"hard_use.misbehaving:{reader}", paths, memory=200 << 20, timeout=4 if reader == "hang" else 60
    )
    wrong = faults(readings, memory=50 << 20)
    assert [path for path in wrong if str(paths[1]) in path] == wrong
    assert len(wrong) == bool(fault)
    assert not fault or any(part in "".join(wrong) for part in fault.split("|"))
