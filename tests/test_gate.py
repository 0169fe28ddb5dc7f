"""The gate fails where it must, and passes on an unchanged tree while another process keeps a core busy."""

from __future__ import annotations

import dataclasses
import platform
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import backends
from allin1_core.spectrogram import log_spectrogram
from bench import baseline, gate
from bench.busy_core import busy_core, short_cases
from bench.gate_cases import Case, madmom_is_installed, our_decoder
from bench.gate_checks import (
    SlowdownCheck,
    Timing,
    Verdict,
    check_decoder,
    check_difference,
    check_f_measures,
    check_import,
    check_memory,
    check_ratio,
    check_spectrogram_difference,
    check_what_runs,
    time_case,
)
from bench.instructions import KERNELS, count_instructions, valgrind_is_installed
from bench.memory import peak_memory_bytes
from bench.paired import Ratio
from bench.progress import read_durations
from bench.records import BenchRecord
from bench.tracks import SAMPLE_RATE, default_track

needs_oracle = pytest.mark.skipif(
    not madmom_is_installed(), reason="the oracle madmom has no wheel for this Python"
)


def slowed(call: Callable[[], Any], factor: float) -> Callable[[], Any]:
    """The call, taking `factor` times the CPU seconds, by which one thread is timed."""

    def slow() -> Any:
        start = time.process_time()
        output = call()
        end = start + factor * (time.process_time() - start)
        while time.process_time() < end:
            pass
        return output

    return slow


@pytest.fixture
def beside_a_busy_core() -> Iterator[None]:
    with busy_core():
        yield


class NoisyMachine:
    """A clock, and work that takes longer than it should: by some per cent always, by a quarter in some seconds."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self._generator = np.random.default_rng(seed)
        self._spells = self._generator.random(1000) < 0.25

    def work(self, seconds: float) -> Callable[[], float]:
        def run() -> float:
            spell = 1.25 if self._spells[int(self.now / 2) % 1000] else 1.0
            self.now += seconds * spell * (1 + abs(self._generator.normal(0, 0.02)))
            return 0.0

        return run

    def case(self, seconds: float) -> Case:
        return Case(
            "stage",
            "backend",
            "exact",
            1,
            self.work(seconds),
            self.work(0.5),
            lambda *_: 0.0,
            "oracle",
        )


@pytest.fixture
def whatever_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict is that of the ratios; what the gate says of a machine that is too busy has tests of its own."""
    monkeypatch.setattr("bench.gate_checks.usable_cores", lambda: 64)


def check_of(case: Case, before: float) -> SlowdownCheck:
    bars = gate.read_bars()
    return SlowdownCheck(case, before, bars.max_slowdown, bars.slowdown_rounds)


@pytest.fixture(scope="module")
def reached() -> dict[str, float]:
    """What the rows that are timed against the baseline reach on this tree."""
    rounds = gate.read_bars().slowdown_rounds
    return {case.key: time_case(case, rounds).undisturbed for case in short_cases()}


@pytest.mark.usefixtures("whatever_else_runs")
@pytest.mark.parametrize("seed", range(6))
def test_a_backend_slowed_by_30_percent_fails_on_a_noisy_machine(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, rounds = NoisyMachine(seed), gate.read_bars().slowdown_rounds
    clock = types.SimpleNamespace(process_time=lambda: machine.now, perf_counter=lambda: machine.now)
    monkeypatch.setattr("bench.gate_checks.time", clock)
    monkeypatch.setattr(
        "bench.gate_checks.usable_cores", lambda: 64
    )  # what else runs here is not the subject
    before = time_case(machine.case(0.05), rounds).undisturbed
    slow = check_of(machine.case(0.05 * 1.3), before).measure_until_clear()
    assert slow.passed is False, slow
    assert slow.measured.endswith(f"in {3 * rounds} rounds")  # it was given further chances
    assert slow.asked == f"at least {before / 1.15:.3g}x"
    unchanged = check_of(machine.case(0.05), before).measure()
    assert unchanged.passed is True, unchanged


@needs_oracle
@pytest.mark.usefixtures("whatever_else_runs")
@pytest.mark.parametrize("index", range(4))
def test_a_real_backend_slowed_by_30_percent_fails(index: int, reached: dict[str, float]) -> None:
    case = short_cases()[index]
    slow = dataclasses.replace(case, candidate=slowed(case.candidate, 1.3))
    verdict = check_of(slow, reached[case.key]).measure_until_clear()
    assert verdict.passed is False, verdict
    assert verdict.row == case.key


@needs_oracle
@pytest.mark.usefixtures("beside_a_busy_core", "whatever_else_runs")
@pytest.mark.parametrize("repetition", range(3))
def test_an_unchanged_tree_passes_beside_a_busy_core(repetition: int, reached: dict[str, float]) -> None:
    for case in short_cases():
        verdict = check_of(case, reached[case.key]).measure_until_clear()
        assert verdict.passed is True, verdict


def timing(ratio: float, reference: float = 1.0, busy_elsewhere: float = 0.0) -> Timing:
    return Timing(np.full(4, reference / ratio), np.full(4, reference), busy_elsewhere=busy_elsewhere)


def test_a_loss_counts_where_no_round_of_any_measurement_is_free_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case("stage", "backend", "exact", 1, int, int, lambda *_: 0.0, "oracle")
    monkeypatch.setattr("bench.gate_checks.usable_cores", lambda: 64)
    for seen, passed in (
        ([timing(4.0), timing(9.0)], [False, True]),  # a spell that slowed the candidate down is over
        ([timing(4.0), timing(9.0, reference=2.25)], [False, False]),  # now one slows the reference down
        ([timing(4.0), timing(4.1), timing(4.0)], [False, False, False]),
    ):
        left = iter(seen)
        monkeypatch.setattr("bench.gate_checks.time_case", lambda *_, left=left: next(left))
        check = SlowdownCheck(case, 7.0, 1.15, 4)
        verdicts = [check.measure() for _ in seen]
        assert [verdict.passed for verdict in verdicts] == passed
        assert verdicts[-1].asked == "at least 6.09x"
        assert verdicts[-1].measured.endswith(f"in {4 * len(seen)} rounds")
    monkeypatch.setattr("bench.gate_checks.usable_cores", lambda: 2)
    monkeypatch.setattr("bench.gate_checks.time_case", lambda *_: timing(4.0, busy_elsewhere=2.0))
    busy = SlowdownCheck(case, 7.0, 1.15, 4).measure_until_clear()
    assert busy.passed is None
    assert "other processes kept 2.0 cores busy" in busy.measured


def test_a_loss_that_a_slow_reference_hides_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("stage", "backend", "exact", 1, int, int, lambda *_: 0.0, "oracle")
    monkeypatch.setattr("bench.gate_checks.usable_cores", lambda: 64)
    for seen, passed in (
        ([timing(6.3, reference=1.17), timing(5.4), timing(5.4)], False),  # 7 slowed by 30 %
        ([timing(6.3, reference=1.17), timing(6.7)], True),
        ([timing(6.6)], True),
        ([timing(6.2)] * 3, True),  # slower than it was, but by less than is asked
    ):
        left = iter(seen)
        monkeypatch.setattr("bench.gate_checks.time_case", lambda *_, left=left: next(left))
        assert SlowdownCheck(case, 7.0, 1.15, 4).measure_until_clear().passed is passed
        assert not list(left)


@needs_oracle
@pytest.mark.usefixtures("whatever_else_runs")
def test_the_gate_as_a_whole_names_the_backend_that_became_slower(
    monkeypatch: pytest.MonkeyPatch, reached: dict[str, float]
) -> None:
    row = gate.Row("spectrogram", "numpy", "exact", min_ratio=0.01, max_difference=0.0)
    bars = dataclasses.replace(gate.read_bars(), rows=(row,), rounds=2, f_measures={})
    case = gate.short_case(row)
    monkeypatch.setattr("bench.instructions.valgrind_is_installed", lambda: False)
    for before, passed in ((reached[case.key], True), (1.3 * reached[case.key], False)):
        monkeypatch.setattr(gate, "section_here", lambda _, before=before: {"ratios": {case.key: before}})
        verdicts = gate.judge(bars, [], lambda _: None)
        assert {verdict.check: verdict.passed for verdict in verdicts} == {
            "time": True,
            "does not import": True,
            f"ratio, {before:.3g}x in the baseline": passed,
            "what runs when asked for by name": True,
            f"ratio to {case.oracle}": True,
            "difference from the oracle": True,
            "instructions": None,
        }


def test_what_cannot_be_judged_stands_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "installed", lambda *_: False)
    monkeypatch.setattr(gate, "check_import", lambda *_: [])
    monkeypatch.setattr(gate, "shared_folder", lambda: None)
    monkeypatch.setattr("bench.instructions.valgrind_is_installed", lambda: False)
    bars = gate.read_bars()
    verdicts = gate.judge(bars, [], lambda _: None)
    assert {verdict.passed for verdict in verdicts} == {None}
    assert len(verdicts) == len(bars.rows) + len(KERNELS) + len(bars.f_measures)
    line = " ".join(gate.table(verdicts).splitlines()[1].split())
    assert line == "spectrogram/fused/exact everything fused is not installed - not judged"


def test_a_loss_counts_only_if_there_were_cores_to_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("stage", "backend", "exact", 2, int, int, lambda *_: 0.0, "oracle")
    slow = timing(2.0, busy_elsewhere=0.9)
    monkeypatch.setattr("bench.gate_checks.usable_cores", lambda: 2)
    monkeypatch.setattr("bench.gate_checks.time_case", lambda *_: slow)
    verdict = check_ratio(case, 5.0, rounds=3, check="ratio")
    assert verdict.passed is None
    assert "other processes kept 0.9 cores busy" in verdict.measured
    quiet = dataclasses.replace(slow, busy_elsewhere=0.05)
    assert check_ratio(case, 5.0, rounds=3, check="ratio", first=quiet).passed is False
    alone = dataclasses.replace(case, threads=1)
    assert check_ratio(alone, 5.0, rounds=3, check="ratio").passed is False
    assert check_ratio(case, 1.8, rounds=3, check="ratio").passed is True


def test_an_interval_too_wide_to_judge_by_is_no_loss_unless_all_of_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case("stage", "backend", "exact", 1, int, int, lambda *_: 0.0, "oracle")
    for ratio, passed in (
        (Ratio(1.6, 1.1, 2.0, 9), None),
        (Ratio(0.8, 0.5, 1.1, 9), False),
        (Ratio(1.25, 1.1, 1.4, 9), False),
        (Ratio(1.6, 1.3, 2.5, 9), True),
    ):
        monkeypatch.setattr("bench.gate_checks.bootstrap_ratio", lambda *_, ratio=ratio: ratio)
        monkeypatch.setattr("bench.gate_checks.time_case", lambda *_: timing(1.0))
        assert check_ratio(case, 1.2, rounds=9, check="ratio").passed is passed, ratio


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


def test_a_silently_substituted_backend_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_what_runs("spectrogram", "torch").passed is True
    table = {stage: dict(rows) for stage, rows in backends._BACKENDS.items()}
    numpy_target = table["spectrogram"]["numpy"].target
    table["spectrogram"]["torch"] = dataclasses.replace(table["spectrogram"]["torch"], target=numpy_target)
    monkeypatch.setattr(backends, "_BACKENDS", table)
    verdict = check_what_runs("spectrogram", "torch")
    assert verdict.passed is False
    assert "numpy" in verdict.measured


def test_a_fallback_inside_a_backend_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name and the module are right, and yet numpy did the work."""
    from allin1_core.spectrogram import numpy_backend, torch_backend

    def fall_back(*arguments: Any, **keywords: Any) -> np.ndarray:
        return np.asarray(numpy_backend.log_spectrogram(*arguments, **keywords))

    monkeypatch.setattr(torch_backend, "log_spectrogram", fall_back)
    verdict = check_what_runs("spectrogram", "torch")
    assert verdict.passed is False
    assert "arrays of numpy, computed by numpy" in verdict.measured


def test_a_fallback_in_the_arrays_of_the_right_library_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, module and type are right, and yet the last bits are numpy's."""
    torch = pytest.importorskip("torch")
    from allin1_core.spectrogram import numpy_backend, torch_backend

    def fall_back(*arguments: Any, **keywords: Any) -> Any:
        return torch.from_numpy(numpy_backend.log_spectrogram(*arguments, **keywords))

    monkeypatch.setattr(torch_backend, "log_spectrogram", fall_back)
    verdict = check_what_runs("spectrogram", "torch")
    assert verdict.passed is False
    assert "arrays of torch, computed by numpy" in verdict.measured


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
    from allin1_core.computation import Computation

    def boast(stage: str, backend: str, device: str, precision: str) -> Computation:
        return Computation(backend, device)

    monkeypatch.setattr(backends, "computation", boast)
    monkeypatch.setattr("bench.gate_checks.computation", boast)
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
    bar = before * gate.read_bars().max_memory_growth
    assert check_memory("row", before, bar).passed is True
    doubled = check_memory("row", twice, bar)
    assert doubled.passed is False
    assert doubled.measured == "200 MiB"


@pytest.mark.parametrize(
    ("measured", "before", "passed"),
    [(60, None, True), (101, None, False), (60, 60, True), (60, 30, False), (101, 90, False)],
)
def test_memory_is_held_to_its_bar_and_to_the_baseline(
    measured: float, before: float | None, passed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = gate.Row("decoder", "numpy", threads=1, max_memory_mib=100)
    monkeypatch.setattr(gate, "peak_mebibytes", lambda _: measured)
    memory = {} if before is None else {"decoder/numpy/exact": before}
    *_, verdict = gate.judge_row(row, gate.read_bars(), [], {"memory_mib": memory})
    assert (verdict.check, verdict.passed) == ("peak memory", passed)


def test_imports_are_held_to_their_time_and_company() -> None:
    assert [verdict.passed for verdict in check_import(0.3, ["torch", "mlx"])] == [True, True]
    slow, company = check_import(1e-9, ["sys"])
    assert slow.passed is False
    assert company.passed is False
    assert company.measured == "sys"


def test_f_measures() -> None:
    measured = {"song": {"beats": 0.99, "downbeats": 0.5}}
    good, bad, absent = check_f_measures(
        measured, {"song": {"beats": 0.98, "downbeats": 0.6}, "other": {"beats": 0.5}}
    )
    assert (good.passed, bad.passed, absent.passed) == (True, False, False)
    assert absent.measured == "not measured"


@pytest.mark.skipif(not valgrind_is_installed(), reason="valgrind is not installed")
def test_instruction_counts_repeat() -> None:
    counts = [count_instructions(next(iter(KERNELS))) for _ in range(2)]
    assert counts[0] > 1_000_000
    assert abs(counts[0] - counts[1]) < 0.001 * counts[0]


def test_more_instructions_than_the_baseline_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, *others = KERNELS
    monkeypatch.setattr("bench.instructions.valgrind_is_installed", lambda: True)
    monkeypatch.setattr("bench.instructions.count_instructions", lambda _: 104)
    monkeypatch.setattr("bench.instructions.compiler", lambda: "cc 12")
    bars = gate.read_bars()
    first, *uncounted = gate.judge_instructions(bars, {kernel: 100})
    assert first.passed is False
    assert (first.measured, first.asked) == ("104", "at most 103")
    assert [(v.row, v.measured, v.passed) for v in uncounted] == [
        (name, "no baseline with cc 12", None) for name in others
    ]


def test_instructions_are_compared_where_the_same_compiler_built(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    baseline.update([record(3.0)], "first", path, gate={"instructions": {"compiler": "cc 12", "k": 100}})
    assert baseline.instructions_of("cc 12", path) == {"k": 100}
    assert baseline.instructions_of("cc 13", path) == {}
    content = path.read_text(encoding="utf-8")
    path.write_text(content.replace(platform.machine(), "another"), encoding="utf-8")
    assert baseline.instructions_of("cc 12", path) == {}


def record(ratio: float, *, agrees: bool = True, memory: int | None = None) -> BenchRecord:
    return BenchRecord(
        "spectrogram", "numpy", "cpu", "exact", "", "madmom", "song", 195.5, gate.usable_cores(),
        [1.0, 1.01, 0.99], [ratio, ratio * 1.01, ratio * 0.99], "bit-identical", agrees, memory,
    )  # fmt: skip


def test_a_bench_row_that_does_not_agree_is_no_proof_of_speed() -> None:
    row = gate.Row("spectrogram", "numpy", "exact", min_ratio=2.0)
    assert gate.proof(row, [record(3.0)], gate.usable_cores()) is not None
    assert gate.proof(row, [record(3.0, agrees=False)], gate.usable_cores()) is None
    assert gate.proof(row, [record(1.9)], gate.usable_cores()) is None
    assert gate.proof(row, [record(3.0), record(1.9)], gate.usable_cores()) is None


def test_records_of_other_sources_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.report import write_bench_report

    write_bench_report([record(3.0)], tmp_path)
    assert len(gate.fresh_records(tmp_path)) == 1
    monkeypatch.setattr(gate, "source_digest", lambda: "another")
    with pytest.raises(ValueError, match=r"bench\.json: measured on another state of allin1_core"):
        gate.fresh_records(tmp_path)


def test_records_of_another_machine_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.report import write_bench_report

    write_bench_report([record(3.0)], tmp_path)
    monkeypatch.setattr(gate, "describe_machine", lambda: {"cpu": "another"})
    with pytest.raises(
        ValueError, match=r"bench\.json: measured on another machine; run `make bench` on this"
    ):
        gate.fresh_records(tmp_path)


def test_the_command_names_the_row_that_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts = [
        Verdict("import allin1_core", "time", "0.1 s", "at most 0.3 s", True),
        Verdict("decoder/cython", "identical beats and positions", "7 of 8 (88%)", "100%", False),
        Verdict("network/fused/exact/2 threads", "ratio", "5.0x (4.0-9.0)", "at least 6x", None),
    ]
    monkeypatch.setattr(gate, "judge", lambda *_: verdicts)
    assert gate.main([]) == 1
    captured = capsys.readouterr()
    assert (
        "gate: FAILED decoder/cython: identical beats and positions measured 7 of 8 (88%), asked 100%"
        in captured.err
    )
    assert "1 of 3 rows hold, 1 failed, 1 not judged, in 0 min 0 s" in captured.err
    assert captured.out.count("FAILED") == 1
    monkeypatch.setattr(gate, "judge", lambda *_: verdicts[:1])
    assert gate.main([]) == 0


@pytest.mark.parametrize(
    ("old", "new"), [("min_ratio", "min_ration"), ("max_slowdown", "max_slow"), ("[import]", "[imports]")]
)
def test_a_misspelt_bar_is_refused(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(gate.BARS.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=r"gate\.toml"):
        gate.read_bars(path)


def test_a_baseline_keeps_its_reasons(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    baseline.update([record(3.0)], "first", path, gate={"ratios": {"a": 2.0}})
    session = {"rounds": 7, "durations": {"bench_x": 12.0}}
    baseline.update([record(4.0, memory=2**20)], "  faster now ", path, session, gate={"ratios": {"a": 3.0}})
    assert read_durations(tmp_path / "absent.json", path).of("bench_x", 7) == pytest.approx(12)
    content = baseline.read_baseline(path)
    assert [entry["reason"] for entry in content["history"]] == ["first", "faster now"]
    assert baseline.section_here("gate", path) == {"ratios": {"a": 3.0}}
    (row,) = baseline.rows_here(path).values()
    assert row.ratio == pytest.approx(4.0, rel=0.02)
    assert row.peak_memory_bytes == 2**20


def test_a_run_is_drawn_against_the_baseline_that_was_there_before_it(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    assert baseline.earlier("digest", "noon", path) is None
    baseline.update([record(3.0)], "first", path, measured="noon", source="digest")
    own = baseline.earlier("digest", "noon", path)
    assert own is not None
    assert (dict(own.rows), own.is_own) == ({}, True)

    later = baseline.earlier("digest", "one o'clock", path)
    assert later is not None
    assert later.taken.endswith(": first")
    ((name, before, now),) = baseline.changes([record(2.0)], later.rows)
    assert (name, before, later.is_own) == (now.key, pytest.approx(3.0, rel=0.02), False)
    assert baseline.changes([dataclasses.replace(record(2.0), track="another")], later.rows) == []

    # Twice for one reason is one change: what was there before it stays.
    for ratio, measured in ((4.0, "two o'clock"), (5.0, "three o'clock")):
        baseline.update([record(ratio)], "faster", path, measured=measured, source="other")
    history = baseline.read_baseline(path)["history"]
    assert [(entry["reason"], entry["source"]) for entry in history] == [
        ("first", "digest"),
        ("faster", "other"),
    ]
    taken_from = baseline.earlier("other", "three o'clock", path)
    assert taken_from is not None
    assert (taken_from.is_own, taken_from.taken.endswith(": first")) == (True, True)
    assert [row[0] for row in taken_from.rows.values()] == [pytest.approx(3.0, rel=0.02)]


@pytest.mark.parametrize(
    ("reason", "records", "words"),
    [
        (" ", [record(3.0)], "say why"),
        ("because", [], "none; run `make bench`"),
        ("because", [record(3.0, agrees=False)], "did not agree with the reference"),
    ],
)
def test_a_baseline_wants_a_reason_and_figures_that_agree(
    reason: str, records: list[BenchRecord], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        baseline.update(records, reason, tmp_path / "baseline.json")
    assert not (tmp_path / "baseline.json").exists()


def test_differences_are_told_apart() -> None:
    assert check_difference("row", 0.0, 0.0).measured == "bit-identical"
    assert check_difference("row", 1e-9, 0.0).passed is False
    assert check_difference("row", float("inf"), 1.0).passed is False


def test_peak_memory_wants_a_function_with_a_name() -> None:
    with pytest.raises(ValueError, match="expected a function at the top level"):
        peak_memory_bytes(lambda: None)
    with pytest.raises(RuntimeError, match="failed in the child"):
        peak_memory_bytes(allocate, "many")
    assert default_track().lasting(1).stems.shape == (4, SAMPLE_RATE)
