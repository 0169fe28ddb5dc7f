"""Files that are whole or not there, and the names of tracks: held while a process is at work, and no longer."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from allin1_core import analyze
from allin1_core.batch.names import claimed
from allin1_core.errors import OutputError
from allin1_core.files.writing import remove_abandoned, write_text, written_whole

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


@pytest.mark.parametrize("where", ["names.owner", "existing"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_names_are_given_back_when_a_run_is_interrupted(
    song: Path,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    error: type[BaseException],
) -> None:
    held: list[str] = []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        held.extend(path.name for path in (tmp_path / "out").iterdir())
        raise error("now")

    monkeypatch.setattr(f"allin1_core.batch.{where}", interrupted)
    with pytest.raises(BaseException, match="now"):
        analyze([song], out_dir=tmp_path / "out", **options)
    assert [name for name in held if name.endswith(".claim")]
    assert list((tmp_path / "out").glob(".*")) == []


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


def test_a_file_replaces_another_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write_half() -> None:
        with written_whole(path) as file:
            file.write(b"af")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        write_half()
    assert path.read_text() == "before"
    write_text(path, "after")
    assert path.read_text() == "after"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The superuser could: /dev/null would be a file from then on."""
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    monkeypatch.setattr(os, "replace", lambda *paths: pytest.fail(f"{paths[1]} was replaced"))
    for path in (link, Path("/dev/null"), Path("/dev/stdout")):
        with pytest.raises(
            OutputError, match=f"{path}: found a device; expected the path of a file to write"
        ):
            write_text(path, "text")
    assert [*tmp_path.iterdir()] == [link]


def test_files_get_ordinary_permissions(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    written = write_text(tmp_path / "written", "x")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_writing_that_the_system_stops_halfway(tmp_path: Path) -> None:
    """No mock: the process may write files of at most 1,000 bytes."""
    script = f"""
import resource, signal
from allin1_core.errors import OutputError
from allin1_core.plotting import new_figure
from allin1_core.files.writing import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_text({str(tmp_path / "small")!r}, "x" * 900)
try:
    write_text({str(tmp_path / "large")!r}, "x" * 100_000)
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "large: cannot be written (File too large); nothing was left behind" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["small"]
