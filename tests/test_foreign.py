"""Implementations of other people go through the same cases, and fail them where they are wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gate_cases import madmom_is_installed
from parity import foreign

ROOT = Path(__file__).resolve().parents[1]

MODULE = """
from allin1_core.spectrogram import numpy_backend

def right(*arguments, **keywords):
    return numpy_backend.log_spectrogram(*arguments, **keywords)

def wrong(*arguments, **keywords):
    output = right(*arguments, **keywords).copy()
    if output.size:
        output[0, 0, 40] += 2e-6
    return output
"""


def run_cases(backend: str, report: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """`make parity BACKEND=...`, on one short case."""
    (path / "theirs.py").write_text(MODULE, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "parity/test_spectrogram.py",
        "-q",
        "-k",
        "test_case and samples",
    ]
    command += ["--backend", backend, "--parity-report", str(report), "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not madmom_is_installed(), reason="the oracle madmom has no wheel for this Python")
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


def test_only_stages_with_cases_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "_requested", {})
    assert foreign.any_requested() is None
    foreign.request("decoder", "a:b")
    assert foreign.requested("decoder") == foreign.any_requested() == "a:b"
    assert foreign.requested("spectrogram") is None
    with pytest.raises(ValueError, match="expected spectrogram or decoder"):
        foreign.request("network", "a:b")
