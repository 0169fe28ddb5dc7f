"""The command: what each subcommand prints, writes and returns."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from allin1_core import __version__, analyze, backends
from allin1_core.cli import main
from allin1_core.dbn.metrical import decoder_input
from allin1_core.results.result import AnalysisResult, load_result
from allin1_core.self_test import probabilities
from allin1_core.spectrogram import log_spectrogram
from allin1_core.timings.schema import read_timings


@pytest.mark.parametrize("command", [[], ["analyze"], ["spectrogram"], ["decode"], ["timings"], ["doctor"]])
def test_help_teaches_by_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.count("allin1-core ") >= 3
    assert "examples:" in text or "start here:" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"allin1-core {__version__}\n"


def test_no_command_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_help_is_quick_and_loads_no_library() -> None:
    code = (
        "import sys; from allin1_core.cli import make_parser; make_parser().format_help(); "
        "print([name for name in ('torch', 'mlx', 'matplotlib', 'soundfile') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_analyze_writes_everything_asked_for(
    write_stems: Callable[..., Path], small_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write_stems("song"), tmp_path / "out"
    arguments = ["analyze", str(folder), "-m", small_model, "-d", "cpu", "--spec-backend", "numpy"]
    arguments += ["-o", str(out), "--activ", "--embed", "--array-dir", str(tmp_path / "arrays")]
    arguments += ["--export", "beats,audacity,jams", "--timings", str(tmp_path / "t.jsonl")]
    arguments += [
        "--visualize",
        "--viz-dir",
        str(tmp_path / "viz"),
        "--sonify",
        "--sonif-dir",
        str(tmp_path / "son"),
    ]
    assert main(arguments) == 0
    written = sorted(
        str(path.relative_to(tmp_path))
        for path in tmp_path.rglob("*")
        if path.is_file() and path.parent != folder
    )
    assert written == [
        "arrays/song.activ.npz",
        "arrays/song.embed.npy",
        "out/song.beats",
        "out/song.jams",
        "out/song.json",
        "out/song.labels.txt",
        "son/song.sonif.wav",
        "t.jsonl",
        "viz/song.activations.pdf",
        "viz/song.pdf",
    ]
    result = load_result(out / "song.json")
    summary = capsys.readouterr().out
    assert summary.startswith(f"{folder}: {result.bpm} BPM, {len(result.beats)} beats")
    assert [line.stage for line in read_timings(tmp_path / "t.jsonl")][-4:] == [
        "save",
        "export",
        "visualize",
        "sonify",
    ]
    # All of it is there, so the second run only reads; --json prints the same result.
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    expected = json.loads((out / "song.json").read_text())
    assert sorted(expected.pop("arrays_sha256")) == ["activations", "embeddings"]
    assert report == {"results": [expected], "failures": []}


def test_a_result_that_is_there_is_read_and_its_fitted_tempo_shown(
    write_stems: Callable[..., Path], small_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, segment = write_stems("song"), {"start": 0.0, "end": 5.0, "label": "intro"}
    fields = {"path": str(folder), "bpm": 120, "beats": [0.5], "downbeats": [0.5], "beat_positions": [1]}
    fields |= {"segments": [segment], "tempo": 119.9, "tempo_spread": 0.12}
    (tmp_path / "song.json").write_text(json.dumps(fields))
    assert main(["analyze", str(folder), "-m", small_model, "-o", str(tmp_path)]) == 0
    summary = "120 BPM (fitted 119.90, spread 0.12), 1 beats, 1 downbeats, 1 sections (intro)"
    assert capsys.readouterr().out == f"{folder}: {summary}\n"


def test_quiet_prints_nothing(
    write_stems: Callable[..., Path], small_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["analyze", str(write_stems("song")), "-m", small_model, "-o", str(tmp_path), "--quiet"]
    assert main([*arguments, "--spec-backend", "numpy"]) == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def help_of(option: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main(["analyze", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    return re.split(r" --[a-z]", text.split(f" {option} ")[1])[0]


BACKEND_OPTIONS = {"spectrogram": "spec_backend", "network": "nn_backend", "separation": "demix_backend"}


@pytest.mark.parametrize("stage", BACKEND_OPTIONS)
def test_the_help_names_every_backend_and_what_a_cpu_gets(
    stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    option = BACKEND_OPTIONS[stage]
    shown = help_of(f"--{option.replace('_', '-')}", capsys)
    documented = re.split(r"\n\w+ : ", (inspect.getdoc(analyze) or "").split(f"\n{option} : ")[1])[0]
    for row in backends.built_in(stage):
        assert f" {row.name}" in shown
        assert f"``{row.name}``" in documented
    chosen, _ = backends.choose(stage, device="cpu")
    assert f"on a CPU auto takes {chosen.name} first" in shown


def test_the_help_and_documentation_warn_of_separation_models_that_execute_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "can execute any code" in help_of("--demix-repository", capsys)
    assert "may execute any code" in (analyze.__doc__ or "")


def test_unknown_export_and_overwrite(
    write_stems: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(write_stems("song"))
    assert main(["analyze", folder, "-o", str(tmp_path / "o"), "--export", "midi"]) == 1
    assert "exports: midi unknown; expected of beats, audacity, jams" in capsys.readouterr().err
    assert main(["analyze", folder, "-o", str(tmp_path / "o"), "--overwrite", "viz"]) == 1
    assert "overwrite: viz unknown; expected all, or of json, demix, spec" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "paths", "remade"),
    [
        (["--overwrite", "song"], ["song"], "all"),
        (["--overw", "song"], ["song"], "all"),
        (["--overwrite", "s*"], ["s*"], "all"),
        (["--overwrite", "nowhere/song"], ["nowhere/song"], "all"),
        (["--overwrite", "typo.wav", "song"], ["typo.wav", "song"], "all"),
        (["song", "--overwrite"], ["song"], "all"),
        (["--overwrite", "-q", "song"], ["song"], "all"),
        (["--overwrite", "json", "song"], ["song"], "json"),
        (["--overwrite=json,demix", "song"], ["song"], "json,demix"),
        (["song", "--overwrite", "spec,json"], ["song"], "spec,json"),
        (["song", "--overwrite", "viz"], ["song"], "viz"),
        (["song"], ["song"], ""),
        (["--", "--overwrite", "song"], ["--overwrite", "song"], ""),
    ],
)
def test_overwrite_takes_what_it_knows_and_leaves_paths_alone(
    write_stems: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    paths: list[str],
    remade: str,
) -> None:
    def analyze(paths: list[str], **options: object) -> list[AnalysisResult]:
        called.append((paths, options["overwrite"]))
        return []

    called: list[object] = []
    monkeypatch.setattr("allin1_core.batch.analyze", analyze)
    write_stems("song")
    write_stems("json")  # a name of what is made again stays that
    monkeypatch.chdir(tmp_path)
    assert main(["analyze", *arguments]) == 0
    assert called == [(paths, remade)]


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "no_such_backend"])
def test_figures_are_drawn_whatever_backend_the_environment_names(
    write_stems: Callable[..., Path], small_model: str, tmp_path: Path, backend: str
) -> None:
    arguments = ["analyze", str(write_stems("song")), "-m", small_model, "-d", "cpu", "-v", "-q"]
    arguments += ["--viz-dir", str(tmp_path / "viz"), "-o", str(tmp_path / "out")]
    arguments += ["--timings", str(tmp_path / "t.jsonl")]
    for command in (arguments, ["timings", str(tmp_path / "t.jsonl")]):
        child = subprocess.run(
            [sys.executable, "-m", "allin1_core.cli", *command],
            env={**os.environ, "MPLBACKEND": backend},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (child.returncode, child.stderr) == (0, "")
    assert (tmp_path / "viz" / "song.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_a_caller_keeps_the_plotting_backend_of_the_environment() -> None:
    code = (
        "import os; from allin1_core.plotting import new_figure; new_figure(1, 1); import matplotlib; "
        "print(matplotlib.get_backend(), os.environ['MPLBACKEND'])"
    )
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MPLBACKEND": "svg"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout == "svg svg\n"


def test_spectrogram_of_stems_and_of_a_file(
    write_stems: Callable[..., Path], stems: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_stems("song")
    assert main(["spectrogram", str(folder), "-o", str(tmp_path / "s.npy"), "--backend", "numpy"]) == 0
    assert "float32 (4, 500, 81), numpy on cpu" in capsys.readouterr().out
    expected = log_spectrogram(stems, backend="numpy")
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), expected)
    arguments = [
        "spectrogram",
        str(folder / "drums.wav"),
        "-o",
        str(tmp_path / "d.npy"),
        "--backend",
        "numpy",
        "--json",
    ]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [500, 81]
    np.testing.assert_array_equal(np.load(tmp_path / "d.npy"), expected[1])


def test_decode_activations_of_either_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beat, downbeat = probabilities()
    np.savez(tmp_path / "a.activ.npz", beat=beat, downbeat=downbeat)
    np.save(tmp_path / "a.npy", decoder_input(beat, downbeat))
    assert main(["decode", str(tmp_path / "a.activ.npz")]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[:3] == ["0.07\t3", "0.57\t1", "1.07\t2"]
    assert main(["decode", str(tmp_path / "a.npy"), "-o", str(tmp_path / "a.beats")]) == 0
    assert (tmp_path / "a.beats").read_text() == printed
    assert (
        main(["decode", str(tmp_path / "a.npy"), "--beats-per-bar", "4", "--json", "--backend", "numpy"]) == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert max(report["beat_positions"]) == 4
    assert report["decoder"]["backend"] == "numpy"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", None, "cannot be opened"),
        ("a.npy", b"nothing", "a.npy"),
        ("a.npz", b"nothing", "a.npz"),
    ],
)
def test_activations_that_cannot_be_decoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["decode", str(tmp_path / name)]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("shape", [(5,), (5, 3)])
def test_activations_of_the_wrong_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: tuple[int, ...]
) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.float32))
    assert main(["decode", str(tmp_path / "a.npy")]) == 1
    assert "(T, 2)" in capsys.readouterr().err


def test_decoder_options_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", np.full((50, 2), 0.1, np.float32))
    for options in (
        ["--beats-per-bar", "0"],
        ["--beats-per-bar", "three"],
        ["--fps", "-1"],
        ["--min-bpm", "300"],
    ):
        assert main(["decode", str(tmp_path / "a.npy"), *options]) == 1, options
        assert "Traceback" not in capsys.readouterr().err


@pytest.fixture
def timings_file(write_stems: Callable[..., Path], small_model: str, tmp_path: Path) -> Path:
    path = tmp_path / "t.jsonl"
    arguments = ["analyze", str(write_stems("song")), "-m", small_model, "-o", str(tmp_path / "o"), "--quiet"]
    assert main([*arguments, "--spec-backend", "numpy", "--timings", str(path)]) == 0
    return path


def test_timings_are_shown_and_drawn(timings_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["timings", str(timings_file)]) == 0
    text = capsys.readouterr().out
    assert "1 tracks, 5.0 s of audio" in text
    assert "spectrogram" in text
    assert timings_file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert main(["timings", str(timings_file), "--json", "--no-plot"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(read_timings(timings_file))


def test_timings_of_a_run_compared_with_itself(
    timings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["timings", "compare", str(timings_file), str(timings_file)])
    assert "| component | before ms | after ms |" in capsys.readouterr().out


def test_timings_of_the_wrong_number_of_files(timings_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["timings", str(timings_file), str(timings_file)]) == 1
    assert "expected one, or 'compare BEFORE AFTER'" in capsys.readouterr().err
    assert main(["timings", "compare", str(timings_file)]) == 1
    assert "expected two, BEFORE and AFTER" in capsys.readouterr().err


def test_doctor_explains_choices_finds_weights_and_tests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "harmonix-fold3.npz").touch()
    assert main(["doctor", "--weights-dir", str(tmp_path), "--device", "cpu", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["stages"]["network"]["choice"]["reason"].startswith("auto: device 'cpu' was asked for")
    assert report["weights"]["harmonix-fold3"] == str(tmp_path / "harmonix-fold3.npz")
    assert report["weights"]["harmonix-fold0"] is None
    assert {check["stage"] for check in report["self_test"]} == {"spectrogram", "network", "decoder"}
    assert all(check["passed"] for check in report["self_test"])


def test_doctor_fails_when_a_backend_computes_something_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from allin1_core import self_test

    expected = self_test.stored_values()
    expected["spectrogram"] = expected["spectrogram"].copy()
    expected["spectrogram"][2, 3, 40] += 2e-6
    monkeypatch.setattr(self_test, "stored_values", lambda: expected)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "FAIL  spectrogram numpy   cpu   difference 2" in text
    assert "ok    decoder     cython" in text
    assert "weights" in text
