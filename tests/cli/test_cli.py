"""The command: what each subcommand prints, writes and returns."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from timing_lines import record

from allin1_core import __version__, analyze, backends, self_test
from allin1_core.dbn.metrical import decoder_input
from allin1_core.results.result import AnalysisResult, load_result
from allin1_core.timings.schema import read_timings

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", ["", "analyze", "library", "spectrogram", "decode", "timings", "doctor"])
def test_help_teaches_by_example(name: str, command: Command) -> None:
    status, text, _ = command(*filter(None, [name]), "--help")
    assert status == 0
    assert text.count("allin1-core ") >= 3
    assert "examples:" in text or "start here:" in text


def test_version_and_no_command(command: Command) -> None:
    assert command("--version") == (0, f"allin1-core {__version__}\n", "")
    assert command()[0] == 2


def test_what_a_termination_does_to_the_caller_is_left_as_it_was(command: Command) -> None:
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        command("--version")
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert command("timings", "nothing.jsonl")[0] == 1
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, former)


def test_analyze_writes_everything_asked_for(
    song: Path, small_model: str, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    arguments = ["analyze", song, "-m", small_model, "-d", "cpu", "--spec-backend", "numpy"]
    arguments += ["-o", out, "--activ", "--embed", "--array-dir", tmp_path / "arrays"]
    arguments += ["--export", "beats, audacity, ,jams", "--timings", tmp_path / "t.jsonl"]
    arguments += ["--visualize", "--viz-dir", tmp_path / "viz", "--sonify", "--sonif-dir", tmp_path / "son"]
    status, summary, _ = command(*arguments)
    assert status == 0
    files = (path for path in tmp_path.rglob("*") if path.is_file() and path.parent != song)
    assert sorted(str(path.relative_to(tmp_path)) for path in files) == [
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
    assert summary.startswith(f"{song}: {result.bpm} BPM, {len(result.beats)} beats")
    last = [line.stage for line in read_timings(tmp_path / "t.jsonl")][-4:]
    assert last == ["export", "audio_read", "visualize", "sonify"]
    # All of it is there, so the second run only reads; --json prints the same result.
    status, report, _ = command(*arguments, "--json")
    assert status == 0
    expected = json.loads((out / "song.json").read_text())
    assert sorted(expected.pop("arrays_sha256")) == ["activations", "embeddings"]
    assert json.loads(report) == {"results": [expected], "failures": []}


def test_a_result_that_is_there_is_read_and_its_fitted_tempo_shown(
    song: Path, small_model: str, tmp_path: Path, command: Command
) -> None:
    segment = {"start": 0.0, "end": 5.0, "label": "intro"}
    fields = {"path": str(song), "bpm": 120, "beats": [0.5], "downbeats": [0.5], "beat_positions": [1]}
    fields |= {"segments": [segment], "tempo": 119.9, "tempo_spread": 0.12}
    (tmp_path / "song.json").write_text(json.dumps(fields))
    summary = f"{song}: 120 BPM (fitted 119.90, spread 0.12), 1 beats, 1 downbeats, 1 sections (intro)\n"
    assert command("analyze", song, "-m", small_model, "-o", tmp_path)[:2] == (0, summary)


def test_quiet_prints_nothing(song: Path, small_model: str, tmp_path: Path, command: Command) -> None:
    arguments = ["-m", small_model, "-o", tmp_path, "--quiet", "--spec-backend", "numpy"]
    assert command("analyze", song, *arguments) == (0, "", "")


def help_of(option: str, command: Command, subcommand: str = "analyze") -> str:
    text = " ".join(command(subcommand, "--help")[1].split())
    return re.split(r" --[a-z]", text.split(f" {option} ")[1])[0]


BACKEND_OPTIONS = {"spectrogram": "spec_backend", "network": "nn_backend", "separation": "demix_backend"}


@pytest.mark.parametrize("stage", BACKEND_OPTIONS)
def test_the_help_names_every_backend_and_what_a_cpu_gets(stage: str, command: Command) -> None:
    option = BACKEND_OPTIONS[stage]
    shown = help_of(f"--{option.replace('_', '-')}", command)
    documented = re.split(r"\n\w+ : ", (inspect.getdoc(analyze) or "").split(f"\n{option} : ")[1])[0]
    for row in backends.built_in(stage):
        assert f" {row.name}" in shown
        assert f"``{row.name}``" in documented
    chosen, _ = backends.choose(stage, device="cpu")
    assert f"on a CPU auto takes {chosen.name} first" in shown
    if stage == "spectrogram":
        shown = help_of("--backend", command, subcommand="spectrogram")
        assert "auto, fused, numpy, torch, mlx or module:function" in shown


def test_the_help_and_documentation_warn_of_separation_models_that_execute_code(command: Command) -> None:
    assert "can execute any code" in help_of("--demix-repository", command)
    assert "may execute any code" in (analyze.__doc__ or "")


@pytest.mark.parametrize(
    ("arguments", "paths", "remade"),
    [
        (["--overwrite", "song"], ["song"], "all"),
        (["--overw", "song"], ["song"], "all"),
        (["--overwrite", "s*"], ["s*"], "all"),
        (["--overwrite", "typo.wav", "song"], ["typo.wav", "song"], "all"),
        (["song", "--overwrite"], ["song"], "all"),
        (["--overwrite", "-q", "song"], ["song"], "all"),
        (["--overwrite", "json", "song"], ["song"], "json"),
        (["--overwrite=json,demix", "song"], ["song"], "json,demix"),
        (["song"], ["song"], ""),
        (["--", "--overwrite", "song"], ["--overwrite", "song"], ""),
    ],
)
def test_overwrite_takes_what_it_knows_and_leaves_paths_alone(
    write_stems: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
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
    assert command("analyze", *arguments)[0] == 0
    assert called == [(paths, remade)]


def test_decode_activations_of_either_kind(tmp_path: Path, command: Command) -> None:
    beat, downbeat = self_test.probabilities()
    np.savez(tmp_path / "a.activ.npz", beat=beat, downbeat=downbeat)
    np.save(tmp_path / "a.npy", decoder_input(beat, downbeat))
    status, printed, _ = command("decode", tmp_path / "a.activ.npz")
    assert status == 0
    assert printed.splitlines()[:3] == ["0.07\t3", "0.57\t1", "1.07\t2"]
    assert command("decode", tmp_path / "a.npy", "-o", tmp_path / "a.beats")[0] == 0
    assert (tmp_path / "a.beats").read_text() == printed
    # Frames of another length are no hundredths of a second.
    rate = ["--fps", "86.1328125", "--max-bpm", "180"]
    frames = [
        round(float(line.split()[0]) * 86.1328125, 3)
        for line in command("decode", tmp_path / "a.npy", *rate)[1].splitlines()
    ]
    assert len(frames) > 3
    assert all(frame.is_integer() for frame in frames)
    options = ["--beats-per-bar", "4", "--json", "--backend", "numpy"]
    status, text, _ = command("decode", tmp_path / "a.npy", *options)
    assert status == 0
    report = json.loads(text)
    assert max(report["beat_positions"]) == 4
    assert report["decoder"]["backend"] == "numpy"


STEADY = np.full((50, 2), 0.1, np.float32)


def test_decode_hands_on_every_option(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record_options(**options: object) -> None:
        given.update(options)
        raise ValueError("recorded")

    given: dict[str, object] = {}
    monkeypatch.setattr("allin1_core.dbn.DBNDownBeatTrackingProcessor", record_options)
    np.save(tmp_path / "a.npy", STEADY)
    options = "--beats-per-bar 3,4 --min-bpm 60 --max-bpm 90 --meter-weights 1,2 --meter-change-prob 0.1"
    options += " --threshold 0.2 --fps 50 --backend numpy"
    assert command("decode", tmp_path / "a.npy", *options.split())[0] == 2
    assert given == {
        **{"beats_per_bar": [3, 4], "min_bpm": 60, "max_bpm": 90, "meter_weights": [1, 2]},
        **{"meter_change_prob": 0.1, "threshold": 0.2, "fps": 50, "backend": "numpy"},
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", None, "a.npy: cannot be opened"),
        ("a.npy", b"nothing", "a.npy: begins as neither .npy nor .npz; expected what numpy.save"),
        ("a.npz", b"PK and nothing", "a.npz: cannot be read as .npz, 14 bytes (File is not a zip file)"),
        ("a.npy", STEADY[:, 0], "(T, 2)"),
        ("a.npy", np.zeros((5, 3), np.float32), "(T, 2)"),
        ("a.npz", {"beat": np.full(5, 2.0), "downbeat": np.zeros(5)}, "2.0 in frame 0 (5 such values)"),
    ],
)
def test_what_cannot_be_decoded(
    tmp_path: Path,
    command: Command,
    name: str,
    content: bytes | np.ndarray | dict[str, np.ndarray] | None,
    message: str,
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif isinstance(content, dict):
        np.savez(tmp_path / name, **content)
    elif content is not None:
        np.save(tmp_path / name, content)
    status, _, err = command("decode", tmp_path / name)
    assert status == 1
    assert message in err
    assert "Traceback" not in err


def test_timings_are_shown_and_drawn(tmp_path: Path, command: Command) -> None:
    timings_file = record(tmp_path / "t.jsonl", runs=1)
    status, text, _ = command("timings", timings_file)
    assert status == 0
    assert "1 tracks, 195.5 s of audio" in text
    assert "spectrogram" in text
    assert timings_file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    status, text, _ = command("timings", timings_file, "--json", "--no-plot")
    assert status == 0
    assert len(json.loads(text)) == len(read_timings(timings_file))


@pytest.mark.parametrize("times", [{"start": -1.0}, {"start": 2.0, "end": 1.0}, {"duration": -1.0}])
def test_timings_before_their_start_are_refused(
    times: dict[str, float], tmp_path: Path, command: Command
) -> None:
    path = tmp_path / "t.jsonl"
    line = json.loads(record(path, runs=1).read_text(encoding="utf-8").splitlines()[0])
    path.write_text(json.dumps(line | times), encoding="utf-8")
    status, _, err = command("timings", path)
    assert status == 1
    assert "t.jsonl, line 1: start " in err
    assert "expected 0 <= start <= end and 0 <= duration" in err


@pytest.mark.parametrize(
    ("redirection", "status", "error"),
    [
        ("", 1, ""),
        pytest.param(
            "> /dev/full",
            1,
            "allin1-core: standard output: cannot be written (No space left on device); files are complete. "
            "Free space\n",
            marks=pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full"),
        ),
    ],
)
def test_what_cannot_be_printed_leaves_no_traceback(redirection: str, status: int, error: str) -> None:
    """Of few lines nothing is written before the end, where the interpreter complains by itself."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            ["sh", "-c", f'"$0" -m allin1_core.cli --help {redirection}', sys.executable],
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (status, error)
