"""Who computes what a spectrogram backend hands out, and that choice, timings and backend modules agree on it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from allin1_core import backends
from allin1_core.backends import devices
from allin1_core.backends.devices import Computation, computation
from allin1_core.spectrogram import select
from allin1_core.timings.recorder import Timings
from allin1_core.timings.schema import read_timings

ON_A_CPU = "on a CPU its arrays hold what the fused kernels compute"


@pytest.mark.parametrize(
    ("backend", "device", "precision", "mlx_on_gpu", "by", "on", "why"),
    [
        ("fused", "cpu", "exact", None, "fused", "cpu", ""),
        ("numpy", "cpu", "fast", None, "numpy", "cpu", ""),
        ("torch", "cpu", "exact", None, "fused", "cpu", ON_A_CPU),
        ("torch", "cpu", "fast", None, "fused", "cpu", ON_A_CPU),
        ("torch", "cuda", "exact", None, "torch", "cuda", ""),
        ("torch", "cuda:1", "fast", None, "torch", "cuda:1", ""),
        ("torch", "mps", "fast", None, "torch", "mps", ""),
        ("torch", "mps", "exact", None, "fused", "cpu", "Metal has no float64: its arrays hold"),
        ("mlx", "mlx", "exact", True, "fused", "cpu", "MLX has no float64 transform: its arrays hold"),
        ("mlx", "mlx", "fast", True, "mlx", "mlx", ""),
        ("mlx", "mlx", "fast", False, "fused", "cpu", ON_A_CPU),
    ],
)
def test_who_computes_a_spectrogram(
    backend: str, device: str, precision: str, mlx_on_gpu: bool | None, by: str, on: str, why: str
) -> None:
    found = computation("spectrogram", backend, device, precision, mlx_on_gpu=mlx_on_gpu)
    assert (found.by, found.on) == (by, on)
    assert found.why.startswith(why)
    assert bool(found.why) == (by != backend)


@pytest.mark.parametrize(
    ("stage", "backend"), [("network", "torch"), ("network", "mlx"), ("decoder", "numpy")]
)
def test_in_other_stages_a_backend_computes_itself(stage: str, backend: str) -> None:
    assert computation(stage, backend, "cpu", "exact") == Computation(backend, "cpu")


@pytest.mark.parametrize(("backend", "device"), [("torch", "cpu"), ("mlx", "mlx")])
def test_a_choice_says_whose_arithmetic_its_arrays_hold(backend: str, device: str) -> None:
    if not backends.get("spectrogram", backend).installed:
        pytest.skip(f"{backend} is not installed")
    kernels = backends.choose("spectrogram", "fused")[1].instruction_set
    _, choice = backends.choose("spectrogram", backend, device=device)
    assert (choice.backend, choice.device, choice.library) == (backend, device, backend)
    assert (choice.computed_by, choice.computed_on, choice.instruction_set) == ("fused", "cpu", kernels)
    assert choice.hands_on
    assert choice.reason.endswith(f"; {computation('spectrogram', backend, device, 'exact').why}")
    assert str(choice) == f"{backend} on {device} (computed by fused on cpu)"
    assert choice.as_dict()["computed_by"] == "fused"


@pytest.mark.parametrize(
    ("stage", "backend"), [("spectrogram", "fused"), ("network", "fused"), ("decoder", "cython")]
)
def test_a_choice_of_compiled_kernels_says_for_which_instructions(stage: str, backend: str) -> None:
    _, choice = backends.choose(stage, backend)
    assert choice.instruction_set in ("AVX-512", "AVX2", "baseline x86-64", "NEON", "baseline")
    assert choice.computed_by == backend
    assert not choice.hands_on
    assert str(choice) == f"{backend} on cpu"
    for other in ("numpy", "json:dumps"):
        assert backends.choose("spectrogram", other)[1].instruction_set is None


@pytest.mark.parametrize("precision", backends.PRECISIONS)
@pytest.mark.parametrize(("backend", "device"), [("torch", "cpu"), ("mlx", "mlx")])
def test_the_arrays_hold_what_the_named_kernels_compute(backend: str, device: str, precision: str) -> None:
    pytest.importorskip({"mlx": "mlx.core"}.get(backend, backend))
    stems = np.random.default_rng(0).integers(-20000, 20000, (2, 30_000), dtype=np.int16)
    compute = select(backend, device=device, precision=precision)
    if compute.choice.hands_on:  # everywhere but for `fast` of MLX on a GPU
        expected = select(compute.choice.computed_by, precision=precision)(stems)
        np.testing.assert_array_equal(compute(stems), expected)


@pytest.mark.parametrize("precision", backends.PRECISIONS)
def test_the_module_of_a_backend_acts_on_the_decision(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decided otherwise, it computes otherwise: it does not decide again."""
    torch_backend = pytest.importorskip("allin1_core.spectrogram.torch_backend")
    stems = np.random.default_rng(0).integers(-20000, 20000, (2, 30_000), dtype=np.int16)
    kernels = select("torch", device="cpu", precision=precision)(stems)
    monkeypatch.setattr(torch_backend, "computation", lambda *request: Computation("torch", "cpu"))
    own = select("torch", device="cpu", precision=precision)(stems)
    assert not np.array_equal(own, kernels)
    np.testing.assert_array_equal(own, torch_backend.in_torch(stems, 44100, precision=precision))


def test_mlx_acts_on_the_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlx.core")
    from allin1_core.spectrogram import mlx_backend

    stems = np.random.default_rng(0).integers(-20000, 20000, (2, 30_000), dtype=np.int16)
    monkeypatch.setattr(devices, "_mlx_on_gpu", lambda: True)
    compute = select("mlx", precision="fast")
    assert (compute.choice.computed_by, compute.choice.instruction_set) == ("mlx", None)
    np.testing.assert_array_equal(compute(stems), mlx_backend.in_mlx(stems, 44100, precision="fast"))
    monkeypatch.setattr(devices, "_mlx_on_gpu", lambda: False)
    assert select("mlx", precision="fast").choice.computed_by == "fused"


def test_a_timing_says_who_computed_and_older_lines_are_still_read(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "t.jsonl"
    choice = backends.choose("spectrogram", "torch", device="cpu")[1]
    with Timings(path).stage("spectrogram", choice=choice):
        pass
    [line] = read_timings(path)
    assert (line.backend, line.computed_by, line.computed_on) == ("torch", "fused", "cpu")
    assert line.instruction_set == choice.instruction_set is not None
    fields = json.loads(path.read_text(encoding="utf-8"))
    for name in ("computed_by", "computed_on", "instruction_set"):
        del fields[name]
    path.write_text(json.dumps(fields) + "\n", encoding="utf-8")
    [older] = read_timings(path)
    assert older == dataclasses.replace(line, computed_by=None, computed_on=None, instruction_set=None)


def test_the_command_says_who_computed(tmp_path: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    pytest.importorskip("torch")
    soundfile.write(tmp_path / "a.wav", np.zeros(4410, np.int16), 44100, subtype="PCM_16")
    arguments = ["spectrogram", tmp_path / "a.wav", "-o", tmp_path / "a.npy", "--backend", "torch"]
    status, text, _ = command(*arguments, "--device", "cpu")
    assert status == 0
    assert "torch on cpu (computed by fused on cpu)" in text
    status, text, _ = command(*arguments, "--device", "cpu", "--json")
    assert status == 0
    report = json.loads(text)
    assert (report["backend"], report["computed_by"], report["computed_on"]) == ("torch", "fused", "cpu")
    assert report["instruction_set"] == select("fused").choice.instruction_set
