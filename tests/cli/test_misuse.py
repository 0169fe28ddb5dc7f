"""Misuse of the command: one line on standard error, exit status 2; and its help."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from timing_lines import record

from allin1_core.cli import main
from allin1_core.errors import AudioError, BatchError
from allin1_core.library.places import errors_as

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", ["", "analyze", "library", "view"])
def test_help_fits_a_terminal_of_80_columns(
    name: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Examples and notes were lines of 120, which a terminal breaks within words."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = command(*filter(None, [name]), "--help")[1].splitlines()
    assert [line for line in lines if len(line) > 80 and not line.startswith(f"  allin1-core {name} ")] == []
    assert f"  allin1-core {name}" in "\n".join(lines)
    if not name:
        at = lines.index("start here:")
        assert [line[:14] for line in lines[at + 1 : at + 9]] == 7 * ["  allin1-core "] + [""]


def test_bar_lengths_that_are_no_numbers(command: Command) -> None:
    status, _, err = command("decode", "a.npy", "--beats-per-bar", "three")
    assert status == 2
    assert "argument --beats-per-bar: 'three'; expected whole numbers with commas, such as 3,4" in err


def test_timings_of_the_wrong_number_of_files(command: Command) -> None:
    for files, message in [
        (("a.jsonl", "b.jsonl"), "expected one, or 'compare BEFORE AFTER'"),
        (("compare", "a.jsonl"), "expected two, BEFORE and AFTER"),
        (
            ("a.jsonl", "--expect", "e.toml"),
            "--expect: given with a single file; expected with compare alone",
        ),
        (
            ("compare", "a.jsonl", "b.jsonl", "--run", "3f"),
            "--run: given with compare; expected with a single file",
        ),
    ]:
        status, _, err = command("timings", *files)
        assert status == 2
        assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "allin1-core: error: the following arguments are required: COMMAND; see 'allin1-core --help'"),
        ("analyze", "allin1-core analyze: error: the following arguments are required: PATH; see "),
        (
            "analyze a.wav --outdir b",
            "analyze: error: unrecognized arguments: --outdir b; see 'allin1-core analyze -",
        ),
        ("analyze a.wav --min-bpm fast", "argument --min-bpm: invalid float value: 'fast'"),
        ("analyze a.wav --min-bpm 200 --max-bpm 100", "expected min_bpm below max_bpm"),
        ("analyze a.wav --beats-per-bar 0", "beats_per_bar: [0]; expected bar lengths"),
        ("analyze a.wav --anchor 0:99", "position in the bar, 1 to 4"),
        ("analyze a.wav b.wav --anchor 1", "anchors: given for 2 tracks; expected one"),
        ("analyze a.wav --export wav", "exports: wav unknown; expected of beats"),
        ("analyze a.wav --overwrite viz", "overwrite: viz unknown; expected all"),
        ("analyze a.wav --array-dir a", "array_dir: given without arrays"),
        ("analyze none*.wav --export wav", "exports: wav unknown"),
        ("analyze a.wav --weights-dir=", "weights_dir: found ''; expected a folder"),
        ("library . --out out --shard 0/4", "shard: '0/4'; expected PART/PARTS from 1/1"),
        ("library . --out out --timings=", "timings_path: found ''; expected a file"),
        (
            "analyze a.wav --device gpu",
            "device 'gpu': unknown; expected cpu, cuda, cuda:N, mps or mlx. Leave it ",
        ),
        ("analyze a.wav --jobs 0", "jobs: 0; expected at least 1. Leave it out for one for each core"),
        ("doctor --device gpu", "device 'gpu': unknown"),
        ("doctor --weights-dir=", "argument --weights-dir: found ''; expected a path"),
        ("view a.json --out=", "argument -o/--out: found ''; expected a path"),
        ("spectrogram a.wav --out=", "argument -o/--out: found ''; expected a path"),
        ("decode a.npy --out=", "argument -o/--out: found ''; expected a path"),
        ("timings a.jsonl --plot=", "argument --plot: found ''; expected a path"),
        ("decode a.npy --beats-per-bar 0", "beats_per_bar"),
        ("decode a.npy --fps -1", "fps"),
        ("decode a.npy --anchor 0:9", "anchors: [(0.0, 9)]; expected times in seconds"),
        ("decode a.npy --anchor 9", "anchors: 9 s; expected a time within the song, 0 to 0.49 s"),
        ("decode a.npy --min-bpm 300", "min_bpm"),
        ("decode a.npy --backend nope", "decoder backend 'nope': unknown"),
    ],
)
def test_what_is_misused_is_told_in_a_line_and_exits_with_2(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.full((50, 2), 0.1, np.float32))
    status, out, err = command(*arguments.split())
    assert (status, out) == (2, "")
    assert message in err
    assert err.startswith("allin1-core")
    assert err.count("\n") == 1


@pytest.mark.parametrize("misuse", ["--export=wav", "--device=gpu", "--beats-per-bar=0"])
def test_what_is_misused_is_told_as_json_too(misuse: str, command: Command) -> None:
    status, out, err = command("analyze", "a.wav", "--json", misuse)
    report = json.loads(out)
    assert status == 2
    assert report["results"] == []
    [failure] = report["failures"]
    assert failure["path"] is None
    assert err == f"allin1-core: {failure['message']}\n"


def test_a_folder_of_weights_that_is_not_there_or_cannot_be_read_is_told(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doctor took it for one without weights, or ended in a traceback."""
    told = "allin1-core: {}: no folder at {!r} ({}); correct it or leave it out\n".format
    of_none = told("weights_dir", "none", "No such file or directory")
    assert command("doctor", "--weights-dir", "none") == (1, "", of_none)
    monkeypatch.setenv("ALLIN1_WEIGHTS_DIR", __file__)
    assert command("doctor") == (1, "", told("ALLIN1_WEIGHTS_DIR", __file__, "Not a directory"))
    monkeypatch.setattr(os, "scandir", denied := Mock(side_effect=PermissionError(errno.EACCES, "Denied")))
    assert command("doctor", "--weights-dir", tmp_path) == (
        1,
        "",
        told("weights_dir", str(tmp_path), "Denied"),
    )
    denied.assert_called_once_with(tmp_path)


def test_a_folder_of_arrays_that_is_not_there_is_told(command: Command) -> None:
    """The page was without activations."""
    told = "allin1-core: array_dir: no folder at 'none'; correct it or leave it out\n"
    assert command("view", "a.json", "--array-dir", "none") == (1, "", told)


def test_a_file_that_is_no_json_is_told_with_what_to_do(tmp_path: Path, command: Command) -> None:
    path = tmp_path / "a.json"
    path.write_text("{")
    told = f"allin1-core: {path}: cannot be read as JSON, 1 bytes ("
    status, _, err = command("view", path)
    assert status == 1
    assert err.startswith(told)
    assert err.endswith("); the file is damaged or of another kind: make it again\n")


def test_songs_that_failed_are_told_though_quiet(tmp_path: Path, small_model: str, command: Command) -> None:
    (tmp_path / "a.wav").write_text("none")
    out = tmp_path / "out"
    told = f"allin1-core: 1 of 1 songs failed; the table {out}/failures says why\n"
    assert command("library", tmp_path, "--out", out, "-q", "-m", small_model) == (1, "", told)


def test_timings_without_lines_say_why_there_may_be_none(tmp_path: Path, command: Command) -> None:
    (tmp_path / "t.jsonl").touch()
    status, _, err = command("timings", tmp_path / "t.jsonl")
    assert status == 1
    assert (
        "t.jsonl: holds no lines; expected those of 'analyze --timings'. A result that was there is read"
        in err
    )


def test_errors_do_not_go_to_standard_output_where_standard_error_is_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["view", "missing.json"]) == 1
    assert capsys.readouterr().out == ""


def test_an_error_that_is_none_of_standard_output_is_not_taken_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("allin1_core.cli.view.run", fail)
    with pytest.raises(OSError, match="Input/output error"):
        main(["view", "a.json"])


_INTERRUPTED = """
import sys
class Interruption:
    def find_spec(self, name, *_):
        if name == "numpy":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interruption())
from allin1_core.cli import main
sys.exit(main(["doctor"]))
"""


def test_an_interruption_while_modules_are_imported_is_a_line() -> None:
    """It was a traceback."""
    child = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, check=False)
    told = "allin1-core: interrupted; tracks that are done are kept, run again to go on\n"
    assert (child.returncode, child.stdout, child.stderr) == (130, "", told)


def test_a_figure_of_no_format_is_refused(tmp_path: Path, command: Command) -> None:
    """It was a traceback."""
    arguments = ["timings", record(tmp_path / "t.jsonl", runs=1), "--plot"]
    status, _, err = command(*arguments, tmp_path / "plot.xyz")
    assert status == 1
    assert "plot.xyz: no format of figures; expected a name that ends with ." in err
    assert ", .pdf, .pgf, .png, " in err
    assert command(*arguments, tmp_path / "plot.PNG")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plot.PNG", "t.jsonl"]


def test_an_error_of_several_tracks_reaches_another_process() -> None:
    error = BatchError([(Path("a.wav"), AudioError("a.wav: empty"))], [None])
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "1 of 1 tracks failed:\n  a.wav: AudioError: empty"
    assert copy.results == [None]
    assert [(path, type(one)) for path, one in copy.failures] == [(Path("a.wav"), AudioError)]


def test_an_error_without_a_message_is_told_by_its_class() -> None:
    message = r"s3://x: cannot be fetched \(TimeoutError\); wait"
    with (
        pytest.raises(AudioError, match=message),
        errors_as("s3://x", AudioError, "cannot be fetched", "wait"),
    ):
        raise TimeoutError
