"""Names taken and files being made by several processes: held while one of them is at work, and no longer."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from allin1_core import analyze
from allin1_core.batch import names
from allin1_core.batch.names import claimed
from allin1_core.files.writing import remove_abandoned, written_whole
from allin1_core.settings import Outputs

_HOLD_A_NAME = """
import sys
from pathlib import Path
from allin1_core.batch.names import claimed
with claimed(Path(sys.argv[1]), "song", Path("/a/song.wav")) as is_ours:
    print(is_ours, flush=True)
    sys.stdin.read()
"""
_WRITE_A_FILE = """
import sys
from pathlib import Path
from allin1_core.files.writing import written_whole
with written_whole(Path(sys.argv[1]) / "song.json"):
    print("open", flush=True)
    sys.stdin.read()
"""


def start(code: str, folder: Path, expected: str) -> subprocess.Popen[str]:
    """A process that has got as far as to print `expected`, and goes on when its input ends."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == f"{expected}\n"
    return child


def is_free_for(path: str, folder: Path) -> bool:
    with claimed(folder, "song", Path(path)) as is_ours:
        return is_ours


def test_a_name_is_held_until_the_last_process_at_work_on_its_track_is_done(tmp_path: Path) -> None:
    child = start(_HOLD_A_NAME, tmp_path, "True")
    assert is_free_for("/a/song.wav", tmp_path)
    # This process has taken the name and given it back; the other one is still at work.
    assert not is_free_for("/b/song.wav", tmp_path)
    with claimed(tmp_path, "SONG", Path("/a/song.wav")) as is_ours:
        assert is_ours
        child.communicate("")
        assert not is_free_for("/b/song.wav", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert is_free_for("/b/song.wav", tmp_path)


def test_a_name_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    child = start(_HOLD_A_NAME, tmp_path, "True")
    child.kill()
    child.communicate()
    [left] = tmp_path.iterdir()
    with claimed(tmp_path, "song", Path("/b/song.wav")) as is_ours:
        assert is_ours
        assert left.read_bytes() == b"/b/song.wav"
        remove_abandoned(tmp_path)
        assert not is_free_for("/a/song.wav", tmp_path)
    assert list(tmp_path.iterdir()) == []
    left.write_bytes(b"/a/song.wav")
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["naming", "analysing"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_names_are_given_back_when_a_run_is_interrupted(
    write_stems: Callable[..., Path],
    small_model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    error: type[BaseException],
) -> None:
    first, second = write_stems("x/song"), write_stems("y/other")
    out, owner, held = tmp_path / "out", names.owner, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        held.extend(path.name for path in out.iterdir())
        raise error("now")

    def owner_of_the_first(name: str, outputs: Outputs) -> Path | None:
        return interrupted() if name == "other" else owner(name, outputs)

    if when == "naming":
        monkeypatch.setattr(names, "owner", owner_of_the_first)
    else:
        monkeypatch.setattr("allin1_core.batch.existing", interrupted)
    with pytest.raises(BaseException, match="now"):
        analyze([first, second], out_dir=out, model=small_model, device="cpu")
    assert [name for name in held if name.endswith(".claim")]
    assert list(out.glob(".*")) == []


def test_a_file_being_made_is_not_abandoned_whatever_its_process_is_called_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another container the number of a process at work is that of none, or of another one."""

    def no_such_process(process: int, signal: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", no_such_process)
    with written_whole(tmp_path / "song.json") as file:
        file.write(b"whole")
        remove_abandoned(tmp_path)
    assert (tmp_path / "song.json").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["song.json"]


def test_a_file_of_a_process_that_was_killed_is_removed_and_that_of_one_at_work_is_not(
    tmp_path: Path,
) -> None:
    at_work, killed = (start(_WRITE_A_FILE, tmp_path, "open") for _ in range(2))
    killed.kill()
    killed.communicate()
    assert len(list(tmp_path.glob(".*.part"))) == 2
    remove_abandoned(tmp_path)
    assert len(list(tmp_path.glob(".*.part"))) == 1
    at_work.communicate("")
    assert at_work.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["song.json"]


def test_a_file_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, seen = fcntl.flock, []

    def lock_late(file: Any, operation: int) -> None:
        if not seen:
            seen.extend(tmp_path.iterdir())
            remove_abandoned(tmp_path)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with written_whole(tmp_path / "song.json") as file:
        file.write(b"whole")
    assert len(seen) == 1
    assert not seen[0].exists()
    assert (tmp_path / "song.json").read_bytes() == b"whole"


def test_without_locks_nothing_is_held_and_nothing_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start(_WRITE_A_FILE, tmp_path, "open")
    child.kill()
    child.communicate()

    def no_locks(file: Any, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with claimed(tmp_path, "song", Path("/a/song.wav")) as is_ours:
        assert is_ours
        assert is_free_for("/b/song.wav", tmp_path)
    with written_whole(tmp_path / "song.json") as file:
        file.write(b"whole")
    remove_abandoned(tmp_path)
    assert (tmp_path / "song.json").read_bytes() == b"whole"
    assert len(list(tmp_path.iterdir())) == 2
