"""Input that cannot be analysed, through the whole command: a clear error, an exit status, nothing half-written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from allin1_core import analyze
from allin1_core.backends import table
from allin1_core.errors import Allin1Error, BatchError, StemsError
from allin1_core.network import weights
from allin1_core.network.model import Model

Analyze = Callable[..., tuple[int, str, str]]
NO_AUDIO = b"words, not samples" * 50


@pytest.fixture
def run(small_model: str, tmp_path: Path, command: Analyze) -> Analyze:
    """Run ``allin1-core analyze`` with the small model; gives exit status, standard output and standard error."""
    options = ["--device", "cpu", "--spec-backend", "numpy", "-m", small_model, "-o", tmp_path / "out"]
    return lambda *arguments: command("analyze", *options, *arguments)


def assert_nothing_written(folder: Path) -> None:
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "/song: StemsError: no file for the stem bass; found drums.wav, other.wav, vocals.wav"),
        (NO_AUDIO, "bass.wav: not audio that FFmpeg can read"),
    ],
)
def test_stems_that_cannot_be_used(
    run: Analyze, song: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    (song / "bass.wav").unlink()
    if content is not None:
        (song / "bass.wav").write_bytes(content)
    status, out, err = run(song)
    assert status == 1
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize(
    ("option", "package"), [("--export=beats,jams", "jams"), ("--visualize", "matplotlib")]
)
def test_a_missing_package_is_found_before_any_work(
    run: Analyze, song: Path, tmp_path: Path, option: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each track was analysed first, and then failed."""
    monkeypatch.setattr("allin1_core.settings.module_exists", lambda name: name != package)
    monkeypatch.chdir(tmp_path)
    status, out, err = run(song, option)
    assert (status, out) == (2, "")
    assert re.match(rf"allin1-core: .* the package '{package}'; pip install 'allin1-core\[\w+\]'\n$", err)
    assert_nothing_written(tmp_path / "out")


def test_unwritable_output_is_found_before_any_work(run: Analyze, song: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, _, err = run(song, "--timings", tmp_path / "t.jsonl", "-o", tmp_path / "file" / "out")
    assert status == 1
    assert "cannot be used as an output folder" in err
    assert not (tmp_path / "t.jsonl").exists()


def test_full_disk(run: Analyze, song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    status, _, err = run(song, "--activ")
    assert status == 1
    assert "cannot be written (No space left on device); nothing was left behind" in err
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nn-backend", "tensorflow"], "network backend 'tensorflow': unknown; expected 'auto'"),
        (
            ["--spec-backend", "librosa"],
            "spectrogram backend 'librosa': unknown; expected 'auto', 'module:function' or one of",
        ),
        (["--spec-backend", "no_such_module:f"], "'no_such_module', which is not installed"),
        (["--demix-backend", "spleeter"], "separation backend 'spleeter': unknown"),
        (["--device", "tpu"], "device 'tpu': unknown; expected cpu, cuda"),
        (["--precision", "sloppy"], "precision 'sloppy': unknown; expected one of exact, fast"),
    ],
)
def test_backends_that_cannot_run(
    run: Analyze, write_mix: Callable[[str], Path], tmp_path: Path, options: list[str], message: str
) -> None:
    status, _, err = run(write_mix("song.wav"), *options)
    assert status == 2
    assert message in err
    assert_nothing_written(tmp_path / "out")


def test_backend_that_is_not_installed(
    run: Analyze, write_mix: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = ("torch", "demucs_infer", "demucs_mlx")
    monkeypatch.setattr(table, "module_exists", lambda name: name not in absent)
    status, _, err = run(write_mix("song.wav"), "--nn-backend", "torch")
    assert status == 2
    assert "network backend 'torch' needs 'torch', which is not installed" in err
    assert "pip install 'allin1-core[torch]'" in err
    status, _, err = run(write_mix("song.wav"))
    assert status == 2
    missing = "separation: no backend is installed for device 'cpu'; pip install 'allin1-core[demucs]'\n"
    assert err.endswith(f"song.wav: a mix, without ready stems: {missing}")


def test_a_mix_that_nothing_can_separate_is_refused_before_any_track(
    run: Analyze,
    song: Path,
    write_mix: Callable[[str], Path],
    tmp_path: Path,
    analysed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mix = write_mix("mix.wav")
    told = f"{mix}: a mix, without ready stems: separation"
    options = ["--demix-backend", "demucs-mlx"]
    status, _, err = run(song, tmp_path / "absent.wav", mix, *options)
    assert (status, analysed) == (2, [])
    assert f"{told} backend 'demucs-mlx'" in err
    monkeypatch.setattr(table, "module_exists", lambda name: name not in ("demucs_infer", "demucs_mlx"))
    status, _, err = run(song, mix)
    assert (status, analysed) == (2, [])
    assert f"{told}: no backend is installed" in err
    assert_nothing_written(tmp_path / "out")
    assert run(song)[0] == 0


def test_failures_are_listed_and_the_others_done(
    run: Analyze, write_stems: Callable[..., Path], tmp_path: Path
) -> None:
    good, bad, last = (write_stems(name) for name in "abc")
    (bad / "bass.wav").write_bytes(NO_AUDIO)
    status, out, err = run(good, bad, last)
    assert status == 1
    assert [line.split(":")[0] for line in out.splitlines()] == [str(good), str(last)]
    assert "1 of 3 tracks failed:" in err
    assert f"{bad}: AudioError: {bad / 'bass.wav'}: not audio" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "c.json"]
    status, out, _ = run(good, bad, "--json")
    assert status == 1
    report = json.loads(out)
    assert [result["path"] for result in report["results"]] == [str(good)]
    assert [(failure["error"], failure["path"]) for failure in report["failures"]] == [
        ("AudioError", str(bad))
    ]
    # Nor does it matter that it was the only one.
    status, out, _ = run(bad, "--json")
    assert status == 1
    assert json.loads(out) == {"results": [], "failures": report["failures"]}


def test_a_failure_of_the_whole_run_as_json(run: Analyze, song: Path, tmp_path: Path) -> None:
    status, out, err = run(song, "--json", "-m", "harmonix-fold9")
    assert status == 1
    [failure] = json.loads(out)["failures"]
    assert (failure["path"], failure["error"]) == (None, "WeightsError")
    assert failure["message"].startswith("weights 'harmonix-fold9': unknown; expected 'harmonix-all'")
    assert err == f"allin1-core: {failure['message']}\n"
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("option", ["-q", "--json", "--debug"])
def test_an_unexpected_exception_is_one_line_for_each_track(
    run: Analyze, write_stems: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, number: int, option: str
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(Model, "__call__", fail)
    folders = [write_stems(f"song{index}") for index in range(number)]
    status, out, err = run(*folders, option)
    assert status == 1
    lines = [f"{number} of {number} tracks failed:"]
    lines += [f"  {folder}: RuntimeError: first line\\nsecond line" for folder in folders]
    assert [line for line in err.splitlines() if line in lines] == lines
    if option == "--debug":
        assert err.count("Traceback (most recent call last)") == number
        assert err.count("in fail\n") == number
    else:
        assert err.splitlines() == lines
    if option == "--json":
        assert [failure["path"] for failure in json.loads(out)["failures"]] == list(map(str, folders))


def test_a_single_path_raises_its_own_error_and_a_list_one_of_all(
    write_stems: Callable[..., Path], options: dict[str, Any]
) -> None:
    bad, good = write_stems("bad"), write_stems("good")
    (bad / "bass.wav").unlink()
    with pytest.raises(StemsError, match="no file for the stem bass"):
        analyze(bad, **options)
    message = r"^1 of 2 tracks failed, the others are done:\n  .*/bad: StemsError: "
    with pytest.raises(BatchError, match=message) as caught:
        analyze([bad, good], **options)
    assert [path for path, _ in caught.value.failures] == [bad]
    assert [result and result.path for result in caught.value.results] == [None, good]
    with pytest.raises(BatchError, match=r"^1 of 1 tracks failed:\n  .*/bad: StemsError: "):
        analyze([bad], **options)


@pytest.mark.usefixtures("separation_repository")
@pytest.mark.parametrize(
    ("name", "stems_dir", "message"),
    [
        ("typo.wav", None, "cannot be opened"),
        ("empty", None, "no file for the stem"),
        ("typo.wav", ".", "typo: no such folder"),
    ],
)
def test_nothing_is_loaded_for_a_track_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stems_dir: str | None, message: str
) -> None:
    loaded: list[object] = []
    monkeypatch.setattr(weights, "load_checkpoints", lambda *arguments, **_: loaded.append(arguments))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Allin1Error, match=message):
        analyze(name, stems_dir=stems_dir, device="cpu")
    assert loaded == []


_WEIGHTS_THAT_NEVER_COME = """
import sys, threading
from allin1_core.cli import main
from allin1_core.network import weights
loading = threading.Event()
def load(*arguments, **keywords):
    loading.set()
    threading.Event().wait()
weights.load_checkpoints = load
status = main(sys.argv[1:])
assert loading.is_set()
sys.exit(status)
"""


def test_a_run_that_failed_does_not_wait_for_weights(song: Path) -> None:
    (song / "bass.wav").write_bytes(NO_AUDIO)
    # The limit only ends the test: a process that waits for the weights would never end.
    child = subprocess.run(
        [sys.executable, "-c", _WEIGHTS_THAT_NEVER_COME, "analyze", str(song), "-d", "cpu"],
        cwd=song.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == 1
    assert "bass.wav: not audio" in child.stderr
    assert "Traceback" not in child.stderr
