"""The harness for hostile files notices what it is there to notice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hard_use.reader_process import Reading, faults, read_hostile_files


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
    timeout = 300.0
    if reader == "hang":  # a process that hangs is told by what one that does not takes here
        start = time.perf_counter()
        read_hostile_files("hard_use.misbehaving:well", paths, memory=200 << 20)
        timeout = 3 * (time.perf_counter() - start)
    readings = read_hostile_files(f"hard_use.misbehaving:{reader}", paths, memory=200 << 20, timeout=timeout)
    wrong = faults(readings, memory=50 << 20)
    assert [path for path in wrong if str(paths[1]) in path] == wrong
    assert len(wrong) == bool(fault)
    assert not fault or any(part in "".join(wrong) for part in fault.split("|"))


def test_a_file_that_takes_too_long_is_noticed_on_a_fast_and_on_a_slow_machine() -> None:
    for hashing in (0.01, 0.1):
        quick, slow = (Reading("a", "read", "", times * hashing, 0, hashing) for times in (399, 401))
        assert quick.fault(memory=1) == ""
        assert slow.fault(memory=1).startswith("'a': took ")
