"""Implementations of other people go through the same cases, and fail them where they are wrong."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from sessions import run_session

from bench.gate.cases import madmom_is_installed
from parity import implementations

ROOT = Path(__file__).resolve().parents[2]

MODULE = """
from allin1_core.dbn import DBNDownBeatTrackingProcessor
from allin1_core.spectrogram import numpy_backend

def wrong_where_fast(*arguments, precision, **keywords):
    output = numpy_backend.log_spectrogram(*arguments, precision=precision, **keywords)
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
    backend: str,
    report: Path,
    path: Path,
    stage: str = "spectrogram",
    cases: str = "test_case and samples",
    module: str = "",
) -> subprocess.CompletedProcess[str]:
    """`make parity BACKEND=... STAGE=...`, on a few short cases, of one module of tests if that is not the stage's."""
    (path / "theirs.py").write_text(MODULE, encoding="utf-8")
    arguments = [f"parity/test_{module or stage}.py", "-q", "-k", cases]
    arguments += ["--backend", backend, "--backend-stage", stage, "--parity-report", str(report)]
    return run_session(arguments, path)


needs_madmom = pytest.mark.skipif(
    not madmom_is_installed(), reason="the oracle madmom has no wheel for this Python"
)


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


# What docs/adding-a-backend.md names, a few cases, and a change that makes it wrong; wrong spectrograms and decoders
# stand above.
DOCUMENTED = {
    "spectrogram": (
        "log_spectrogram",
        "test_case and samples",
        "spectrogram",
        "",
        "",
    ),
    "network": (
        "Network",
        "test_lengths and 11",
        "network_random",
        "np.expm1(np.minimum(x, 0))",
        "np.minimum(x, 0)",
    ),
    "decoder": ("Decoder", "metronome and four", "decoder", "", ""),
    "structure": ("local_maxima", "test_made_up", "structure", "np.float32(0)", "np.float32(1e-9)"),
}


def write_documented(path: Path) -> dict[str, Path]:
    """The modules of the documentation's examples, written below a folder; by stage."""
    text = (ROOT / "docs" / "adding-a-backend.md").read_text(encoding="utf-8")
    found = {}
    for stage, code in re.findall(r"```python\n# mypackage/(\w+)\.py\n(.*?)```", text, re.DOTALL):
        found[stage] = path / "mypackage" / f"{stage}.py"
        found[stage].parent.mkdir(exist_ok=True)
        found[stage].write_text(code, encoding="utf-8")
    return found


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(stage, marks=needs_madmom if stage in ("spectrogram", "decoder") else ())
        for stage in DOCUMENTED
    ],
)
def test_a_backend_of_the_documentation_passes_and_fails_where_it_is_wrong(
    stage: str, tmp_path: Path
) -> None:
    files = write_documented(tmp_path)
    assert set(files) == set(implementations.STAGES)
    name, cases, module, right, wrong = DOCUMENTED[stage]
    backend = f"mypackage.{stage}:{name}"
    documentation = (ROOT / "docs" / "adding-a-backend.md").read_text(encoding="utf-8")
    asked = f"STAGE={stage}\n" if stage != "spectrogram" else "\n"
    assert f"make parity BACKEND={backend} {asked}".replace(" \n", "\n") in documentation
    done = run_cases(backend, tmp_path / "right", tmp_path, stage, cases, module)
    assert done.returncode == 0, done.stdout
    report = (tmp_path / "right" / "parity.md").read_text(encoding="utf-8")
    assert f"| {stage} | {backend} |" in report
    assert not re.search(rf"^\| {stage} \| (numpy|fused|cython) \|", report, re.MULTILINE)
    assert "comparisons with the oracles are within their bounds" in report
    if not wrong:
        return
    code = files[stage].read_text(encoding="utf-8")
    assert code.count(right) == 1
    files[stage].write_text(code.replace(right, wrong), encoding="utf-8")
    done = run_cases(backend, tmp_path / "wrong", tmp_path, stage, cases, module)
    assert done.returncode == 1, done.stdout
    assert "are outside their bounds" in (tmp_path / "wrong" / "parity.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", implementations.STAGES)
def test_make_parity_runs_a_backend_of_any_of_these_stages(stage: str) -> None:
    command = ["make", "-n", "parity", "BACKEND=a.b:c", f"STAGE={stage}"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    recipe = " ".join(printed.replace("\\\n", " ").split())
    expected = (
        f"pytest parity --durations=25 --backend a.b:c --backend-stage {stage} --parity-report reports/a.b.c"
    )
    assert expected in recipe
