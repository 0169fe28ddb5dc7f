"""Implementations of other people go through the same cases, and fail them where they are wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gate.cases import madmom_is_installed
from parity import implementations

ROOT = Path(__file__).resolve().parents[1]

MODULE = """
from allin1_core.dbn import DBNDownBeatTrackingProcessor
from allin1_core.spectrogram import numpy_backend

def right(*arguments, **keywords):
    return numpy_backend.log_spectrogram(*arguments, **keywords)

def wrong(*arguments, **keywords):
    output = right(*arguments, **keywords).copy()
    if output.size:
        output[0, 0, 40] += 2e-6
    return output

def wrong_where_fast(*arguments, precision, **keywords):
    output = right(*arguments, precision=precision, **keywords).copy()
    if output.size and precision == "fast":
        output[0, 0, 40] += 0.1
    return output

decoder = DBNDownBeatTrackingProcessor

class Model:
    def __init__(self, model):
        self.model = model

    def viterbi(self, observations):
        path, log_probability = self.model.viterbi(observations)
        path = path.copy()
        path[len(path) // 2] += 1
        return path, log_probability

def wrong_in_a_state(**parameters):
    made = decoder(**parameters)
    def decode(activations):
        return made(activations)
    decode.hmms = [Model(model) for model in made.hmms]
    decode.threshold = made.threshold
    return decode

def beats_alone(**parameters):
    made = decoder(**parameters)
    return lambda activations: made(activations)

def late_by_a_frame(**parameters):
    made = decoder(**parameters)
    def decode(activations):
        beats = made(activations)
        beats[len(beats) // 2, 0] += 0.01
        return beats
    return decode
"""


def run_cases(
    backend: str, report: Path, path: Path, stage: str = "spectrogram", cases: str = "test_case and samples"
) -> subprocess.CompletedProcess[str]:
    """`make parity BACKEND=... STAGE=...`, on a few short cases."""
    (path / "theirs.py").write_text(MODULE, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        f"parity/test_{stage}.py",
        "-q",
        "-k",
        cases,
    ]
    command += [
        "--backend",
        backend,
        "--backend-stage",
        stage,
        "--parity-report",
        str(report),
        "-p",
        "no:cacheprovider",
    ]
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


needs_madmom = pytest.mark.skipif(
    not madmom_is_installed(), reason="the oracle madmom has no wheel for this Python"
)


@needs_madmom
def test_theirs_is_measured_alone_and_told_right_from_wrong(tmp_path: Path) -> None:
    right = run_cases("theirs:right", tmp_path / "right", tmp_path)
    assert right.returncode == 0, right.stdout
    text = (tmp_path / "right" / "parity.md").read_text(encoding="utf-8")
    assert "comparisons with the oracles are within their bounds" in text
    assert "theirs:right" in text
    assert "| spectrogram | numpy |" not in text
    wrong = run_cases("theirs:wrong", tmp_path / "wrong", tmp_path)
    assert wrong.returncode == 1, wrong.stdout
    assert "are outside their bounds" in (tmp_path / "wrong" / "parity.md").read_text(encoding="utf-8")


@needs_madmom
def test_their_spectrogram_is_measured_in_both_precisions(tmp_path: Path) -> None:
    done = run_cases("theirs:wrong_where_fast", tmp_path / "report", tmp_path)
    assert done.returncode == 1, done.stdout
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert failed
    assert all("theirs:wrong_where_fast-fast" in line for line in failed)


@needs_madmom
@pytest.mark.parametrize(
    ("backend", "failures"),
    [
        ("decoder", 0),
        pytest.param("beats_alone", 0, marks=pytest.mark.full),
        ("wrong_in_a_state", 1),
        ("late_by_a_frame", 1),
    ],
)
def test_their_decoder_is_told_right_from_wrong(backend: str, failures: int, tmp_path: Path) -> None:
    """Wrong by one state in one frame, where it shows its paths; by one beat in one frame, where it does not."""
    name = f"theirs:{backend}"
    cases = "metronome and four"
    done = run_cases(name, tmp_path / "report", tmp_path, "decoder", cases)
    assert done.returncode == bool(failures), done.stdout
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == failures
    assert all(f"test_decoder[{name}-metronome in four]" in line for line in failed)
    report = (tmp_path / "report" / "parity.md").read_text(encoding="utf-8")
    assert f"| decoder | {name} |" in report
    assert "| decoder | cython |" not in report
    assert ("are outside their bounds" in report) == bool(failures)


def test_only_stages_with_cases_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementations, "_requested", {})
    assert implementations.any_requested() is None
    implementations.request("decoder", "a:b")
    assert implementations.requested("decoder") == implementations.any_requested() == "a:b"
    assert implementations.requested("spectrogram") is None
    with pytest.raises(ValueError, match="expected one of spectrogram, network, decoder, structure"):
        implementations.request("separation", "a:b")
