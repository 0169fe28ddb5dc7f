"""The parity suite as on a machine without AVX-512, and what is kept for one machine alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from allin1_core.network import _fused
from parity import decoder_agreement
from parity.environment import machine_key
from parity.full import decoder as full_decoder
from parity.inputs.activations import steady

ROOT = Path(__file__).resolve().parents[2]

FILES = [
    f"parity/test_{name}.py"
    for name in ("audio_madmom", "decoder", "network", "spectrogram", "spectrogram_parts")
]
# A short part of every stage: what is stored, what is bit-identical on one machine, and what our kernels compute.
SELECTED = (
    "doctors_stored or spectrogram_parts or (test_case and int16 and (falcon69 or 2047)) "
    "or (cython and (plateau or zeros or (golden and falcon69))) or (test_ensemble and fused and falcon69)"
)

needs_avx512 = pytest.mark.skipif(
    "AVX-512" not in _fused.instruction_sets(), reason="no AVX-512 here: the whole run is without it"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python process without AVX-512, in the checkout."""
    command = [sys.executable, "-m", "parity.without_avx512", sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@needs_avx512
def test_everything_that_computes_leaves_avx512_out() -> None:
    done = run("-c", "import json, parity.without_avx512 as p; print(json.dumps(p.what_computes()))")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not [name for name in found.pop("numpy") if name.startswith(("AVX512", "X86_V4"))]
    assert found == {"kernels": ["AVX2"], "blas": ["Haswell"], "torch": "AVX2"}


@needs_avx512
def test_the_parity_suite_passes_without_avx512(tmp_path: Path) -> None:
    """All of it: ``make parity WITHOUT=avx512``."""
    options = ["-q", "-k", SELECTED, "-p", "no:cacheprovider", "--parity-report", str(tmp_path)]
    done = run("-m", "pytest", *FILES, *options)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert passed is not None, done.stdout
    assert int(passed[1]) >= (50 if find_spec("madmom") else 20)  # the rest compare with madmom
    report = json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))
    assert report["machine"]["instruction_set"] == "AVX2"
    assert report["versions"]["OpenBLAS"].endswith(" (Haswell kernels)")
    stages = {record["stage"] for record in report["records"]}
    of_madmom = {"self-test", "decoder"} if find_spec("madmom") else set()
    assert stages == {"spectrogram", "network"} | of_madmom


def test_a_machine_that_is_told_to_leave_instructions_out_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine_key()
    monkeypatch.setenv("MKL_ENABLE_INSTRUCTIONS", "SSE4_2")
    assert machine_key() != before
    assert "MKL_ENABLE_INSTRUCTIONS=SSE4_2" in machine_key()


def test_what_madmom_found_is_kept_for_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log probabilities are not the same on another."""
    decoded = []

    def counting(*arguments: object) -> object:
        decoded.append(arguments)
        return decoder_agreement.decode_all(*arguments)

    monkeypatch.setattr(full_decoder, "decode_all", counting)
    for machine, times in (("one", 1), ("one", 1), ("another", 2)):
        monkeypatch.setattr(full_decoder, "machine_key", lambda machine=machine: machine)
        activations = steady(2)
        full_decoder._oracle(activations, np.array([[0.5, 0.1], [1.0, 0.9]]), tmp_path / "song.npz")
        assert len(decoded) == times
