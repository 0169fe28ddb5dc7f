"""The target that builds for Arm: what it says of a missing tool, and that one bit that is another fails it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def arm() -> Any:
    spec = importlib.util.spec_from_file_location("arm", ROOT / ".ci" / "arm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_tool_that_is_missing_is_named_with_its_package(tmp_path: Path) -> None:
    (tmp_path / "git").symlink_to("/bin/true")
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / ".ci" / "arm.py")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == (
        "make arm: not installed: apt-get, dpkg-deb, qemu-aarch64-static, aarch64-linux-gnu-g++; "
        "on Debian: apt-get install apt dpkg g++-aarch64-linux-gnu qemu-user-static\n"
    )


def outputs() -> dict[str, np.ndarray]:
    return {
        "song, spectrogram": np.linspace(0, 3, 600, dtype=np.float32),
        "song, logits": np.linspace(-9, 9, 600, dtype=np.float32),
        "song, probabilities": np.linspace(0, 1, 600, dtype=np.float32),
        "song, path": np.arange(600, dtype=np.uint32),
        "song, log probability": np.array([-5000.0, -np.inf]),
        "song, beats": np.array([[0.5, 1.0], [1.0, 2.0]]),
    }


@pytest.mark.parametrize("name", outputs())
def test_another_bit_or_a_missing_output_fails(arm: Any, name: str) -> None:
    assert all(one.passed for one in arm.compare_outputs(outputs(), outputs()).values())
    wrong = outputs()
    first = wrong[name].reshape(-1)[:1]
    # To the bit, but for what numpy's logarithm and exponential round by processor.
    if name == "song, log probability":
        first += 1.5e-5
        assert arm.compare_outputs(wrong, outputs())[name].passed
        first += 1e-3
    elif name == "song, probabilities":
        first += 6e-8
        assert arm.compare_outputs(wrong, outputs())[name].passed
        first += 1e-5
    else:
        first[:] = np.nextafter(first, 9) if first.dtype.kind == "f" else first + 1
    for found in (wrong, {key: value for key, value in outputs().items() if key != name}):
        compared = arm.compare_outputs(found, outputs())
        assert [key for key, one in compared.items() if not one.passed] == [name]


def test_the_report_says_no_where_a_test_or_an_output_failed(
    arm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.CompletedProcess([], 0, "version 7\n")
    monkeypatch.setattr(arm, "run", lambda *_, **__: ended)
    monkeypatch.setattr(arm, "on_arm", lambda *_, **__: ended)
    counts = {"passed": 400, "failed": 0, "skipped": 14}
    same = arm.compare_outputs(outputs(), outputs())
    doctor = "weights\n  ok    network     fused   cpu   difference 3.3e-07, bound 1e-05\n"
    text = arm.report(counts, doctor, same, {"tests": 100.4, "doctor": 9.8})
    assert "\n**Yes: 400 tests passed, 0 failed, 14 skipped; 6 of 6 outputs are the same.**\n" in text
    assert "| song, path | bit-identical | the same bits |\n" in text
    assert "| tests | 100 |\n| doctor | 10 |\n| together | 110 |\n" in text
    assert "```\n  ok    network     fused   cpu   difference 3.3e-07, bound 1e-05\n```\n" in text
    assert "**No: 399 tests passed, 1 failed" in arm.report(
        {**counts, "passed": 399, "failed": 1}, doctor, same, {"tests": 1}
    )
    other = arm.compare_outputs({**outputs(), "song, path": np.zeros(600, np.uint32)}, outputs())
    assert "**No: 0 tests passed" in arm.report({**counts, "passed": 0}, doctor, same, {"tests": 1})
    text = arm.report(counts, doctor, other, {"tests": 1})
    assert "14 skipped; 5 of 6 outputs are the same.**" in text
    assert "**No: " in text
    assert "the goldens were left out" in arm.report(counts, doctor, {}, {"tests": 1}).lower()


def test_tests_are_counted_by_how_they_ended(arm: Any, tmp_path: Path) -> None:
    path = tmp_path / "tests.xml"
    path.write_text(
        '<testsuites><testsuite name="pytest" errors="1" failures="2" skipped="4" tests="20"/></testsuites>',
        encoding="utf-8",
    )
    assert arm.count_tests(path) == {"passed": 13, "failed": 3, "skipped": 4}
    parts = [test for arguments in arm.TESTS.values() for test in arguments if not test.startswith("--")]
    assert all((ROOT / test).is_file() for test in parts)
    assert len(set(parts)) == len(parts) == 8
