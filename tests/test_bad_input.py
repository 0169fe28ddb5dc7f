"""Input that cannot be analysed, through the whole command: a clear error, an exit status, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from allin1_core import analyze
from allin1_core.backends import table
from allin1_core.cli import main
from allin1_core.errors import Allin1Error, BatchError, StemsError
from allin1_core.network import weights
from allin1_core.network.model import Model

Analyze = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(small_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Analyze:
    """Run ``allin1-core analyze`` with the small model; gives exit status, standard output and standard error."""

    def call(
        *arguments: str | Path, model: str = small_model, out: Path | None = None
    ) -> tuple[int, str, str]:
        options = [
            "--device",
            "cpu",
            "--spec-backend",
            "numpy",
            "-m",
            model,
            "-o",
            str(out or tmp_path / "out"),
        ]
        status = main(["analyze", *map(str, arguments), *options])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def assert_nothing_written(folder: Path) -> None:
    assert not folder.exists() or list(folder.iterdir()) == []


def _break_bass(case: str, folder: Path) -> None:
    bass = folder / "bass.wav"
    if case == "missing stem":
        bass.unlink()
    elif case == "empty":
        bass.write_bytes(b"")
    elif case == "truncated":
        bass.write_bytes(bass.read_bytes()[:100_000])
    elif case == "text renamed to wav":
        bass.write_text("this is no music\n" * 10)
    elif case == "zero length":
        soundfile.write(bass, np.empty(0, np.int16), 44100)
    elif case == "NaN samples":
        soundfile.write(bass, np.full(220500, np.nan, np.float32), 44100, subtype="FLOAT")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing stem", "song: no file for the stem bass; found drums.wav, other.wav, vocals.wav"),
        ("empty", "bass.wav: the file is empty (0 bytes)"),
        ("truncated", "bass.wav: truncated; the header promises"),
        ("text renamed to wav", "bass.wav: not audio that FFmpeg can read"),
        ("zero length", "bass.wav: the file holds no samples"),
        ("NaN samples", "bass.wav: 220500 samples are NaN or infinite, the first at sample 0"),
    ],
)
def test_stems_that_cannot_be_used(
    run: Analyze, write_stems: Callable[..., Path], tmp_path: Path, case: str, message: str
) -> None:
    folder = write_stems("song")
    _break_bass(case, folder)
    status, out, err = run(folder)
    assert status == 1
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be opened (No such file or directory)"),
        (b"", "the file is empty (0 bytes)"),
        (b"words, not samples" * 50, "not audio that FFmpeg can read"),
    ],
)
def test_mixes_that_cannot_be_used(
    run: Analyze, tmp_path: Path, content: bytes | None, message: str, separation_repository: Path
) -> None:
    path = tmp_path / "song.wav"
    if content is not None:
        path.write_bytes(content)
    status, _, err = run(path, "--demix-model", "small", "--demix-repository", separation_repository)
    assert status == 1
    assert f"song.wav: {message}" in err
    assert_nothing_written(tmp_path / "out")


def test_mixed_rates_are_no_error(
    run: Analyze, write_stems: Callable[..., Path], stems: np.ndarray, tmp_path: Path
) -> None:
    folder = write_stems("song")
    soundfile.write(folder / "bass.wav", stems[0, ::2], 22050)
    assert run(folder)[0] == 0
    assert (tmp_path / "out" / "song.json").is_file()


def test_unwritable_output_is_found_before_any_work(
    run: Analyze, write_stems: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    status, _, err = run(
        write_stems("song"), "--timings", tmp_path / "t.jsonl", out=tmp_path / "file" / "out"
    )
    assert status == 1
    assert "cannot be used as an output folder" in err
    assert not (tmp_path / "t.jsonl").exists()


def test_full_disk(
    run: Analyze, write_stems: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    status, _, err = run(write_stems("song"), "--activ")
    assert status == 1
    assert "cannot be written (No space left on device); nothing was left behind" in err
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nn-backend", "tensorflow"], "network backend 'tensorflow': unknown; expected 'auto'"),
        (["--spec-backend", "librosa"], "spectrogram backend 'librosa': unknown; expected 'auto'"),
        (["--spec-backend", "no_such_module:f"], "'no_such_module', which is not installed"),
        (["--demix-backend", "spleeter"], "separation backend 'spleeter': unknown"),
        (["--device", "tpu"], "device 'tpu': unknown; expected cpu, cuda"),
        (["--precision", "sloppy"], "precision 'sloppy': unknown; expected one of exact, fast"),
    ],
)
def test_backends_that_cannot_run(
    run: Analyze, write_mix: Callable[[str], Path], tmp_path: Path, options: list[str], message: str
) -> None:
    # The fixture's own options come last, so these are given to the command without them.
    status = main_with(tmp_path, write_mix("song.wav"), options)
    assert status[0] == 2
    assert message in status[1]
    assert_nothing_written(tmp_path / "out")


def main_with(tmp_path: Path, path: Path, options: list[str]) -> tuple[int, str]:
    import contextlib
    import io

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        status = main(["analyze", str(path), "-o", str(tmp_path / "out"), *options])
    return status, errors.getvalue()


def test_backend_that_is_not_installed(
    tmp_path: Path, write_mix: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(
        table, "module_exists", lambda name: name not in ("torch", "demucs_infer", "demucs_mlx")
    )
    status, err = main_with(tmp_path, write_mix("song.wav"), ["--nn-backend", "torch"])
    assert status == 2
    assert "network backend 'torch' needs 'torch', which is not installed" in err
    assert "pip install 'allin1-core[torch]'" in err
    status, err = main_with(tmp_path, write_mix("song.wav"), [])
    assert status == 2
    assert "separation: no backend is installed" in err


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("harmonix-fold9", "weights 'harmonix-fold9': unknown; expected 'harmonix-all'"),
        ("nothing.npz", "nothing.npz"),
    ],
)
def test_weights_that_are_not_there(
    run: Analyze, write_stems: Callable[..., Path], tmp_path: Path, model: str, message: str
) -> None:
    status, _, err = run(write_stems("song"), model=model)
    assert status == 1
    assert message in err
    assert_nothing_written(tmp_path / "out")


def test_wrong_weights(
    run: Analyze, write_stems: Callable[..., Path], tmp_path: Path, small_model: str
) -> None:
    arrays = dict(np.load(small_model))
    arrays.pop("norm.weight")
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, **arrays)
    wrong.with_suffix(".yaml").write_text(Path(small_model).with_suffix(".yaml").read_text())
    status, _, err = run(write_stems("song"), model=str(wrong))
    assert status == 1
    assert "wrong.npz" in err
    assert "norm.weight" in err
    assert_nothing_written(tmp_path / "out")


def test_failures_are_listed_and_the_others_done(
    run: Analyze, write_stems: Callable[..., Path], tmp_path: Path
) -> None:
    good, bad = write_stems("a"), write_stems("b")
    _break_bass("text renamed to wav", bad)
    status, out, err = run(good, bad, write_stems("c"))
    assert status == 1
    assert [line.split(":")[0] for line in out.splitlines()] == [str(good), str(tmp_path / "c")]
    assert "1 of 3 tracks failed:" in err
    assert f"{bad}: AudioError: {bad / 'bass.wav'}: not audio" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "c.json"]


def test_failures_as_json(run: Analyze, write_stems: Callable[..., Path]) -> None:
    good, bad = write_stems("a"), write_stems("b")
    _break_bass("missing stem", bad)
    status, out, _ = run(good, bad, "--json")
    assert status == 1
    report = json.loads(out)
    assert [result["path"] for result in report["results"]] == [str(good)]
    assert report["failures"][0]["error"] == "StemsError"
    assert report["failures"][0]["path"] == str(bad)
    # Nor does it matter that it was the only one.
    status, out, _ = run(bad, "--json")
    assert status == 1
    assert json.loads(out) == {"results": [], "failures": report["failures"]}


def test_a_failure_of_the_whole_run_as_json(run: Analyze, write_stems: Callable[..., Path]) -> None:
    status, out, err = run(write_stems("a"), "--json", model="harmonix-fold9")
    assert status == 1
    [failure] = json.loads(out)["failures"]
    assert (failure["path"], failure["error"]) == (None, "WeightsError")
    assert err == f"allin1-core: {failure['message']}\n"


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("option", ["-q", "--json", "--debug"])
def test_an_unexpected_exception_is_one_line_for_each_track(
    run: Analyze,
    write_stems: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    option: str,
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
    write_stems: Callable[..., Path], small_model: str
) -> None:
    folder = write_stems("song")
    _break_bass("missing stem", folder)
    with pytest.raises(StemsError, match="no file for the stem bass"):
        analyze(folder, model=small_model, device="cpu")
    with pytest.raises(BatchError, match=r"^1 of 1 tracks failed:\n  .*/song: StemsError: ") as caught:
        analyze([folder], model=small_model, device="cpu")
    assert caught.value.results == [None]


@pytest.mark.parametrize("kind", ["mix", "folder", "stems_dir"])
def test_nothing_is_loaded_for_a_track_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separation_repository: Path, kind: str
) -> None:
    def load(*arguments: object, **keywords: object) -> None:
        loaded.append(arguments)

    loaded: list[object] = []
    monkeypatch.setattr(weights, "load_checkpoints", load)
    (tmp_path / "empty").mkdir()
    given = {
        "mix": (tmp_path / "typo.wav", None, "cannot be opened"),
        "folder": (tmp_path / "empty", None, "no file for the stem"),
        "stems_dir": (tmp_path / "typo.wav", tmp_path, "typo: no such folder"),
    }
    path, stems_dir, message = given[kind]
    with pytest.raises(Allin1Error, match=message):
        analyze(path, stems_dir=stems_dir, device="cpu")
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


def test_a_run_that_failed_does_not_wait_for_weights(write_stems: Callable[..., Path]) -> None:
    folder = write_stems("song")
    _break_bass("text renamed to wav", folder)
    # The limit only ends the test: a process that waits for the weights would never end.
    child = subprocess.run(
        [sys.executable, "-c", _WEIGHTS_THAT_NEVER_COME, "analyze", str(folder), "-d", "cpu"],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == 1
    assert "bass.wav: not audio" in child.stderr
    assert "Traceback" not in child.stderr
