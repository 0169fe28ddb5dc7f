"""What `auto` picks, what an explicit name gets, and what is recorded about it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import Analyzer, backends, self_test
from allin1_core.backends import table
from allin1_core.errors import BackendError
from allin1_core.spectrogram import LogSpectrogram, select

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Pretend that only the modules put into this set are installed."""
    present: set[str] = set()
    monkeypatch.setattr(table, "module_exists", lambda name: name in present)
    backends.default_device.cache_clear()
    yield present
    backends.default_device.cache_clear()


def test_auto_takes_the_first_backend_for_the_device_and_says_so() -> None:
    chosen, choice = backends.choose("spectrogram", device="cpu")
    assert choice.backend == chosen.name == "fused"
    assert choice.device == "cpu"
    assert choice.requested_backend == "auto"
    assert "device 'cpu' was asked for" in choice.reason
    assert "fused is the first choice for cpu" in choice.reason


def test_auto_names_what_it_passed_over(only: set[str]) -> None:
    only.add("torch")
    _, choice = backends.choose("network", device="cpu")
    assert choice.backend == "torch"
    assert "torch is the first choice for cpu (fused is not installed)" in choice.reason


def test_auto_falls_to_the_host_only_with_the_reason_recorded() -> None:
    _, choice = backends.choose("decoder", device="mlx")
    assert (choice.backend, choice.device) == ("cython", "cpu")
    assert "decoder has no backend for mlx" in choice.reason


def test_auto_never_picks_a_foreign_backend(monkeypatch: pytest.MonkeyPatch, only: set[str]) -> None:
    only.add("elsewhere")
    entry = importlib.metadata.EntryPoint("elsewhere", "elsewhere:run", "allin1_core.spectrogram")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    assert backends.get("spectrogram", "elsewhere").installed
    with pytest.raises(BackendError, match="no backend is installed"):
        backends.choose("spectrogram", device="cpu")


def test_an_explicit_name_is_refused_on_a_device_it_cannot_use() -> None:
    with pytest.raises(BackendError, match="'numpy' cannot use device 'mlx'; it runs on cpu"):
        backends.choose("spectrogram", "numpy", device="mlx")


def test_a_device_that_is_not_there_is_refused() -> None:
    torch = pytest.importorskip("torch")
    if torch.backends.mps.is_available():
        pytest.skip("this machine has Metal")
    with pytest.raises(BackendError, match=r"device 'mps': torch .* finds no such device; use device='cpu'"):
        backends.choose("spectrogram", device="mps")


def test_module_and_function_form_is_loaded_as_it_is() -> None:
    chosen, choice = backends.choose("spectrogram", "json:dumps")
    assert choice.backend == "json:dumps"
    assert chosen.load()([1]) == "[1]"
    with pytest.raises(BackendError, match="has no attribute 'nothing'"):
        backends.get("spectrogram", "json:nothing").load()
    with pytest.raises(BackendError, match="not installed"):
        backends.get("spectrogram", "no_such_module:run").load()


@pytest.mark.parametrize("name", ["./mine.py:function", ":function", "os:", "two words:function", None, 3])
def test_names_of_another_form_are_refused(name: Any) -> None:
    with pytest.raises(
        BackendError, match=re.escape(f"{name!r}: unknown; expected 'auto', a name, or 'module:")
    ):
        backends.choose("spectrogram", name)


def test_a_function_of_the_script_that_runs_is_a_backend() -> None:
    """`__main__` has no specification to be found by."""
    script = """
import numpy as np, allin1_core
def mine(stems, sample_rate, *, precision, device, return_native):
    return np.full((len(stems), 5, 81), 7, np.float32)
found = allin1_core.log_spectrogram(np.zeros((1, 2205), np.int16), backend="__main__:mine")
assert (found == 7).all()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(BackendError, match="'os:path': is of type module; expected a function or a class"):
        select("os:path")


def test_what_cannot_be_called_as_a_backend_is_refused_before_any_work() -> None:
    told = r"spectrogram backend 'json:dumps': takes \(obj, .* \(too many positional arguments\); expected \(stems, "
    for ask in (lambda: select("json:dumps"), lambda: Analyzer(spec_backend="json:dumps", device="cpu")):
        with pytest.raises(BackendError, match=told):
            ask()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (np.zeros((4, 49, 81), np.float32), "float32 (4, 49, 81)"),
        (np.zeros((4, 50, 81)), "float64 (4, 50, 81)"),
        (None, "NoneType ()"),
        ("text", "str ()"),
    ],
)
def test_a_log_spectrogram_of_another_length_or_type_is_refused(given: Any, found: str) -> None:
    """Beats and sections of it would be those of a song of another length."""
    _, choice = backends.choose("spectrogram", "numpy")
    message = f"spectrogram backend 'numpy': gave {found}; expected float32 (4, 50, 81)"
    with pytest.raises(BackendError, match=re.escape(message)):
        LogSpectrogram(choice, lambda *arguments, **keywords: given)(np.zeros((4, 22050), np.int16))


def test_madmom_is_not_offered_where_the_oracle_is_not(
    monkeypatch: pytest.MonkeyPatch, only: set[str]
) -> None:
    only.add("numpy")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [])
    assert "madmom" not in backends.backends("spectrogram")
    assert backends.choose("spectrogram")[1].backend == "numpy"


def test_names_are_those_of_the_table_in_order_of_preference() -> None:
    assert backends.names("spectrogram") == ("fused", "numpy", "torch", "mlx")
    for ask in (backends.names, backends.choose):
        expected = "stage 'spectogram': unknown; expected one of separation, spectrogram"
        with pytest.raises(BackendError, match=expected):
            ask("spectogram")


def test_a_backend_whose_computing_kernels_are_not_compiled_is_refused(only: set[str]) -> None:
    only.add("torch")
    with pytest.raises(BackendError, match=r"'fused' needs 'allin1-core', which is not installed"):
        backends.choose("spectrogram", "torch", device="cpu")


def test_beside_the_network_a_reason_names_what_was_asked_for_and_no_more() -> None:
    """The device of the other stages is the network's: nobody asked for it."""
    network = backends.choose("network", "fused")[1]
    reasons = {
        ("spectrogram", "auto"): "auto: the network runs on cpu; fused is the first choice for cpu",
        ("spectrogram", "numpy"): "backend 'numpy' was asked for; the network runs on cpu",
        ("structure", "auto"): "auto: the network runs on cpu; numpy is the first choice for cpu",
    }
    for (stage, backend), reason in reasons.items():
        choice = backends.choose_beside(network, stage, backend)[1]
        assert (choice.reason, choice.requested_device) == (reason, "auto")
    network = backends.choose("network", "fused", device="cpu")[1]
    choice = backends.choose_beside(network, "spectrogram", "numpy")[1]
    assert choice.reason == "backend 'numpy' and device 'cpu' were asked for"
    assert choice.requested_device == "cpu"


def test_a_reason_follows_the_facts_of_its_choice() -> None:
    choice = backends.choose("decoder", device="cpu")[1]
    because = dataclasses.replace(choice, device_because="the decoder runs on the host")
    assert because.as_dict() == {
        **choice.as_dict(),
        "reason": "auto: the decoder runs on the host; cython is the first choice for cpu",
    }


def test_the_table_of_the_readme_is_the_table() -> None:
    """Its first name in each cell is what `auto` takes on that device; its bound is the declared one."""
    lines = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("| where | "))
    stages = [cell.strip() for cell in lines[start].strip("|").split("|")][1:]
    devices = {"any CPU": ("cpu",), "NVIDIA GPU": ("cuda",), "Apple silicon": ("mlx", "mps")}
    rows = {}
    for line in lines[start + 2 : start + 2 + len(devices)]:
        where, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        rows[where] = dict(zip(stages, cells, strict=True))
    assert set(rows) == set(devices)
    for where, cells in rows.items():
        for stage, cell in cells.items():
            table = backends.built_in(stage)
            preferred = [
                next((row.name for row in table if device in row.devices), "") for device in devices[where]
            ]
            if not any(preferred):  # a stage without a backend for it runs on the host
                preferred = [next(row.name for row in table if "cpu" in row.devices)]
            named = [name for name in re.findall(r"`(\w+)`", cell) if name in backends.names(stage)]
            assert named[: len(preferred)] == preferred, (where, stage)
    fused = backends.get("spectrogram", "fused").bounds["exact"]
    assert f"within {fused.anything:g} of madmom".replace("e-07", "e-7") in rows["any CPU"]["spectrogram"]
    assert backends.get("spectrogram", "numpy").bounds["exact"].anything == 0


def test_doctor_explains_choices_finds_weights_and_tests(tmp_path: Path, command: Command) -> None:
    (tmp_path / "harmonix-fold3.npz").touch()
    status, text, _ = command("doctor", "--weights-dir", tmp_path, "--device", "cpu", "--json")
    assert status == 0
    report = json.loads(text)
    assert report["stages"]["network"]["choice"]["reason"].startswith("auto: device 'cpu' was asked for")
    assert report["weights"]["harmonix-fold3"] == str(tmp_path / "harmonix-fold3.npz")
    assert report["weights"]["harmonix-fold0"] is None
    assert {check["stage"] for check in report["self_test"]} == {"spectrogram", "network", "decoder"}
    assert all(check["passed"] for check in report["self_test"])


@pytest.mark.parametrize(
    ("platform", "of_mlx"),
    [("linux", "it is for macOS alone"), ("darwin", "pip install 'allin1-core[demucs-mlx]'")],
)
def test_what_cannot_be_installed_here_is_not_suggested(
    platform: str, of_mlx: str, only: set[str], monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    only.add("numpy")
    monkeypatch.setattr(sys, "platform", platform)
    lines = command("doctor", "--no-self-test")[1].splitlines()
    assert f"  demucs-mlx    mlx             not installed; {of_mlx}" in lines
    assert "  demucs-infer  cpu, cuda       not installed; pip install 'allin1-core[demucs]'" in lines
    with pytest.raises(BackendError, match=re.escape(f"'demucs_mlx' not found); {of_mlx}")):
        backends.choose("separation", "demucs-mlx")
    monkeypatch.setattr(backends, "validate_device", str)
    with pytest.raises(BackendError) as caught:
        backends.choose("separation", device="mlx")
    also = f", or {of_mlx}" if platform == "darwin" else ""
    assert str(caught.value).endswith(f"device 'mlx'; pip install 'allin1-core[demucs]'{also}")


def test_doctor_fails_when_a_backend_computes_something_else(
    monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    expected = self_test.stored_values()
    expected["spectrogram"] = expected["spectrogram"].copy()
    expected["spectrogram"][2, 3, 40] += 2e-6
    monkeypatch.setattr(self_test, "stored_values", lambda: expected)
    status, text, _ = command("doctor", "--device", "cpu")
    assert status == 1
    assert "FAIL  spectrogram numpy   cpu   difference 2" in text
    assert "ok    decoder     cython" in text
    assert "weights" in text
    choice = backends.choose("spectrogram", "fused")[1]
    assert f"-> fused on cpu, compiled for {choice.instruction_set}: " in text
    by_torch = [line for line in text.splitlines() if "spectrogram torch" in " ".join(line.split())]
    hands_on = [backends.choose("spectrogram", "torch")[1].hands_on] if by_torch else []
    assert [line.endswith(", computed by fused") for line in by_torch] == hands_on
