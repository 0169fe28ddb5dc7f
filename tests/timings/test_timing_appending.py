"""Lines of timings in a file that several processes share: whole, and never over those of others."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from allin1_core.errors import OutputError
from allin1_core.timings.recorder import Timings
from allin1_core.timings.schema import read_timings


def test_unwritable_timings(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"t\.jsonl: timings cannot be written \(File exists\); choose"):
        Timings(tmp_path / "file" / "t.jsonl")


def take_half(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None], of: bytes = b"") -> None:
    """Let the disk be full after a half of the next line that has `of` in it; `meanwhile` runs after that half."""
    write, halves = os.write, []

    def full(descriptor: int, content: bytes) -> int:
        if halves and halves[0].endswith(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if halves or of not in content:
            return write(descriptor, content)
        halves.append(content)
        written = write(descriptor, content[: len(content) // 2])
        meanwhile()
        return written

    monkeypatch.setattr(os, "write", full)


def test_lines_of_others_stay_when_there_is_no_room_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other does not wait for our lock: its line is whole, and ours stays a half before it."""
    path = tmp_path / "t.jsonl"
    timings = Timings(path)

    def other_appends() -> None:
        with path.open("ab") as file:
            file.write(b"other\n")

    take_half(monkeypatch, other_appends)
    with (
        pytest.raises(OutputError, match=r"timings cannot be written .No space left on device.; free space"),
        timings.stage("save"),
    ):
        pass
    assert path.read_bytes().endswith(b"other\n")


def test_those_who_append_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.jsonl"
    ours, other = Timings(path), Timings(path)

    def append() -> None:
        with other.stage("nn", track="other"):
            pass

    thread = threading.Thread(target=append)

    def other_tries() -> None:
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "the other did not wait"

    take_half(monkeypatch, other_tries, of=b'"track": "ours"')
    with pytest.raises(OutputError, match="No space left"), ours.stage("save", track="ours"):
        pass
    thread.join()
    assert [line.track for line in read_timings(path)] == ["other"]


def test_without_locks_a_half_is_left_rather_than_anothers_line_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    path = tmp_path / "t.jsonl"
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with Timings(path).stage("save"):
        pass
    assert len(read_timings(path)) == 1
    before = path.read_bytes()
    take_half(monkeypatch, lambda: None)
    with pytest.raises(OutputError, match="No space left"), Timings(path).stage("save"):
        pass
    assert path.read_bytes().startswith(before)
    assert len(path.read_bytes()) > len(before)


def test_the_stages_own_error_is_raised_though_its_line_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    timings = Timings(path)
    path.unlink()
    path.mkdir()

    def fail() -> None:
        with timings.stage("nn"):
            raise ZeroDivisionError("by zero")

    with pytest.raises(ZeroDivisionError, match="by zero"):
        fail()
    assert timings.records[0].error == "ZeroDivisionError: by zero"
    with pytest.raises(OutputError, match="timings cannot be written"), timings.stage("nn"):
        pass


@pytest.mark.parametrize("fails", [False, True])
def test_lines_kept_together_are_written_when_the_block_ends(tmp_path: Path, fails: bool) -> None:
    """Those of this thread; another's are written at once."""
    path = tmp_path / "t.jsonl"
    timings = Timings(path)

    def stage(name: str) -> None:
        with timings.stage(name):
            pass

    with contextlib.suppress(KeyError), timings.lines_together():
        stage("spectrogram")
        stage("nn")
        assert path.read_bytes() == b""
        other = threading.Thread(target=stage, args=("audio_read",))
        other.start()
        other.join()
        assert [line.stage for line in read_timings(path)] == ["audio_read"]
        if fails:
            raise KeyError
    assert [line.stage for line in read_timings(path)] == ["audio_read", "spectrogram", "nn"]
    stage("save")
    assert [line.stage for line in read_timings(path)][3:] == ["save"]


def test_what_failed_is_raised_before_lines_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timings = Timings(tmp_path / "t.jsonl")
    take_half(monkeypatch, lambda: None)
    with pytest.raises(KeyError), timings.lines_together(), timings.stage("nn"):
        raise KeyError
    take_half(monkeypatch, lambda: None)
    with pytest.raises(OutputError, match="No space left"), timings.lines_together(), timings.stage("nn"):
        pass
