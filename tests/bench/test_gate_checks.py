"""The single checks of the gate: each fails on the fault that it is for."""

from __future__ import annotations

import dataclasses
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import backends
from allin1_core.backends import table as backends_table
from allin1_core.spectrogram import log_spectrogram
from bench.gate import judge, scores
from bench.gate.bars import Row, read_bars
from bench.gate.cases import madmom_is_installed, our_decoder
from bench.gate.checks import (
    check_decoder,
    check_f_measures,
    check_import,
    check_memory,
    check_spectrogram_difference,
    check_what_runs,
)
from bench.measure.instructions import _self_cost, count_instructions, valgrind_is_installed
from bench.measure.memory import peak_memory_bytes
from parity.material import SAMPLE_RATE, default_track

needs_oracle = pytest.mark.skipif(
    not madmom_is_installed(), reason="the oracle madmom has no wheel for this Python"
)


@needs_oracle
def test_a_backend_wrong_by_2e_6_in_one_value_fails() -> None:
    def wrong(stems: np.ndarray) -> np.ndarray:
        output = log_spectrogram(stems, SAMPLE_RATE, backend="numpy")
        output[0, output.shape[1] // 2, 40] += 2e-6
        return output

    verdict = check_spectrogram_difference("numpy", "exact", 1e-6, wrong)
    assert verdict.passed is False
    assert verdict.measured.startswith("2")
    assert verdict.measured.endswith("e-06")
    assert check_spectrogram_difference("numpy", "exact", 0.0).passed is True


@needs_oracle
def test_a_decoder_that_misses_one_beat_fails() -> None:
    right = our_decoder("cython")
    calls = []

    def careless(activations: np.ndarray) -> np.ndarray:
        beats = np.asarray(right(activations))
        calls.append(len(beats))
        return np.delete(beats, len(beats) // 2, axis=0) if len(calls) == 3 else beats

    verdict = check_decoder("cython", careless)
    assert verdict.passed is False
    assert verdict.measured == "7 of 8 (88%)"
    assert check_decoder("cython").passed is True


@pytest.mark.parametrize(
    ("stage", "backend", "other", "shown"),
    [
        ("spectrogram", "torch", "numpy", "arrays of numpy, computed by numpy"),
        ("spectrogram", "fused", "numpy", "computed by numpy"),
        ("network", "torch", "fused", "arrays of numpy"),
        ("network", "fused", "torch", "arrays of torch"),
        ("decoder", "cython", "numpy", "numpy, in Python"),
        ("decoder", "numpy", "cython", "cython, compiled"),
    ],
)
def test_a_silently_substituted_backend_fails(
    stage: str, backend: str, other: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_what_runs(stage, backend).passed is True
    target = backends.get(stage, other).target
    rows = tuple(
        dataclasses.replace(row, target=target) if (row.stage, row.name) == (stage, backend) else row
        for row in backends_table.ROWS
    )
    monkeypatch.setattr(backends_table, "ROWS", rows)
    verdict = check_what_runs(stage, backend)
    assert verdict.passed is False
    assert shown in verdict.measured
    assert shown not in verdict.asked


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_fallback_inside_a_backend_fails(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name and module are right, the type of array too if it is torch's, and yet the last bits are numpy's."""
    torch = pytest.importorskip("torch")
    from allin1_core.spectrogram import numpy_backend, torch_backend

    def fall_back(*arguments: Any, **keywords: Any) -> Any:
        output = numpy_backend.log_spectrogram(*arguments, **keywords)
        return torch.from_numpy(output) if library == "torch" else output

    monkeypatch.setattr(torch_backend, "log_spectrogram", fall_back)
    verdict = check_what_runs("spectrogram", "torch")
    assert verdict.passed is False
    assert f"arrays of {library}, computed by numpy" in verdict.measured


def test_a_choice_that_says_another_computed_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = backends.choose

    def boastful(*arguments: Any, **options: Any) -> Any:
        chosen, choice = choose(*arguments, **options)
        return chosen, dataclasses.replace(choice, computed_by=choice.backend)

    assert check_what_runs("spectrogram", "mlx").passed is True
    monkeypatch.setattr(backends, "choose", boastful)
    verdict = check_what_runs("spectrogram", "mlx")
    assert verdict.passed is False
    assert verdict.measured.startswith("mlx, computed by mlx, arrays of mlx, computed by fused")
    assert verdict.asked.startswith("mlx, computed by fused, arrays of mlx")


def test_a_declaration_that_is_not_what_computes_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choice and declaration agree, and both are wrong."""
    from allin1_core.backends.devices import Computation

    def boast(stage: str, backend: str, device: str, precision: str) -> Computation:
        return Computation(backend, device)

    monkeypatch.setattr(backends, "computation", boast)
    monkeypatch.setattr("bench.gate.checks.computation", boast)
    verdict = check_what_runs("spectrogram", "torch")
    assert verdict.passed is False
    assert "arrays of torch, computed by fused" in verdict.measured


def test_a_choice_that_was_replaced_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = backends.choose

    def lenient(stage: str, backend: str = "auto", **options: Any) -> Any:
        return choose(stage, "numpy" if backend == "cython" else backend, **options)

    monkeypatch.setattr(backends, "choose", lenient)
    verdict = check_what_runs("decoder", "cython")
    assert verdict.passed is False
    assert "numpy" in verdict.measured


def allocate(mebibytes: int) -> np.ndarray:
    return np.ones(mebibytes * 2**17)


def test_memory_doubled_fails() -> None:
    before, twice = (peak_memory_bytes(allocate, size, warmup=(1,)) / 2**20 for size in (100, 200))
    assert before == pytest.approx(100, abs=4)
    bar = before * 1.5
    assert check_memory("row", before, bar).passed is True
    doubled = check_memory("row", twice, bar)
    assert doubled.passed is False
    assert doubled.measured == "200 MiB"


def test_peak_memory_wants_a_function_with_a_name() -> None:
    with pytest.raises(ValueError, match="expected a function at the top level"):
        peak_memory_bytes(lambda: None)
    with pytest.raises(RuntimeError, match="failed in the child"):
        peak_memory_bytes(allocate, "many")
    assert default_track().lasting(1).stems.shape == (4, SAMPLE_RATE)


@pytest.mark.parametrize(("measured", "passed"), [(100, True), (101, False), (float("nan"), False)])
def test_memory_is_held_to_its_bar(measured: float, passed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("decoder", "numpy", threads=1, max_memory_mib=100)
    monkeypatch.setattr(judge, "peak_mebibytes", lambda _: measured)
    *_, verdict = judge.judge_row(row, read_bars(), [])
    assert (verdict.check, verdict.passed) == ("peak memory", passed)


def test_imports_are_held_to_numpys_time_and_their_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no bytecode may be written, too, although an installed numpy has its own."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    bars = read_bars()
    verdicts = check_import(bars.max_import_ratio, bars.forbidden_imports)
    assert [verdict.passed for verdict in verdicts] == [True, True], verdicts
    slow, company = check_import(1e-3, ["sys"])
    assert slow.passed is False
    assert slow.asked == "at most 0.001x"
    assert company.passed is False
    assert company.measured == "sys"


@pytest.mark.parametrize(
    ("row", "absent", "told"),
    [
        (Row("network", "fused"), "torch", ("the reference, plain torch, is not installed", True)),
        (Row("decoder", "cython"), "torch", None),
        (Row("decoder", "cython", threads=2), "torch", None),
        (Row("decoder", "cython", threads=3), "torch", ("3 threads, 2 core", False)),
    ],
)
def test_a_row_that_cannot_be_judged_here_says_why(
    row: Row, absent: str, told: tuple[str, bool] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "installed", lambda _, backend: backend != absent)
    monkeypatch.setattr(judge, "madmom_is_installed", lambda: True)
    monkeypatch.setattr(judge, "usable_cores", lambda: 2)
    verdict = judge.why_not_here(row)
    assert (verdict and (verdict.measured, verdict.required)) == told


@pytest.mark.parametrize(("threads", "peaks"), [(None, [True, False]), (1, [True, False]), (2, [])])
def test_peak_memory_is_judged_on_one_thread(
    threads: int | None, peaks: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "check_what_runs", lambda *_: None)
    verdicts = []
    for measured in (40.0, 40.1):
        monkeypatch.setattr(judge, "peak_mebibytes", lambda _, measured=measured: measured)
        _, *found = judge.judge_row(
            Row("spectrogram", "fused", threads=threads, max_memory_mib=40), read_bars(), []
        )
        verdicts += found
    assert [verdict.passed for verdict in verdicts] == peaks


def test_the_bars_of_speed_are_those_of_rows_and_of_reading() -> None:
    rows = (Row("network", "fused"), Row("network", "fused", min_ratio={"AVX2": 2.0}))
    bars = dataclasses.replace(read_bars(), rows=rows, reading={"wav": 1.0, "flac": 2.0})
    assert bars.num_speeds == 3


def test_f_measures() -> None:
    measured = {"song": {"beats": 0.99, "downbeats": 0.5}}
    good, bad, absent = check_f_measures(
        measured, {"song": {"beats": 0.98, "downbeats": 0.6}, "other": {"beats": 0.5}}
    )
    assert (good.passed, bad.passed, absent.passed) == (True, False, False)
    assert absent.measured == "not measured"


def test_f_measures_are_those_of_each_track_beside_its_own_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = np.arange(6.0, 10)
    found = [
        types.SimpleNamespace(beats=list(beats), downbeats=[6.069, 8.0]),
        types.SimpleNamespace(beats=[6.0, 7.071, 8.0, 9.0], downbeats=[9.0]),
    ]
    given: list[Any] = []
    monkeypatch.setattr(scores, "needed_folder", lambda: tmp_path)
    monkeypatch.setattr(
        scores, "read_score", lambda track: (beats, beats[:1] if track == "b" else beats[::2])
    )
    monkeypatch.setattr(
        "allin1_core.analyze", lambda paths, **options: given.append((paths, options)) or found
    )
    measured = scores.measure_f_measures(["a", "b"])
    assert measured == {"a": {"beats": 1, "downbeats": 1}, "b": {"beats": 0.75, "downbeats": 0}}
    [(paths, options)] = given
    assert paths == [tmp_path / "audio" / "a", tmp_path / "audio" / "b"]
    assert options["weights_dir"] == tmp_path / "weights"


@pytest.mark.full
@pytest.mark.skipif(not valgrind_is_installed(), reason="valgrind is not installed")
def test_instruction_counts_repeat() -> None:
    """To a tenth of what the gate's limit leaves."""
    call = "decoder/cython/exact"  # the quickest to count
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(count_instructions, [call] * 2))
    assert counts[0] > 1_000_000
    assert abs(counts[0] - counts[1]) < (read_bars().max_instruction_growth - 1) / 10 * counts[0]


def test_instructions_are_those_of_the_kernels_own_lines() -> None:
    """Not what its callees cost, nor other objects; a name is written once, here with a callee's."""
    profile = """
ob=(1) /usr/bin/python3
fn=(1) main
12 100
cob=(2) /a/_viterbi.cpython-311-x86_64-linux-gnu.so
calls=1 3
+3 500
ob=(2)
fn=(2) forward
10 7
cob=(3) /lib/libm.so.6
calls=2 5
* 1000
-2 11
ob=(3)
+1 9
ob=(2)
* 2
"""
    assert _self_cost(profile, "/_viterbi.") == 7 + 11 + 2
