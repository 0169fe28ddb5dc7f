"""Paired timing: what is timed, in which order, and how sure the ratio is."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench.measure.allocator import freed_memory_kept
from bench.measure.paired import Ratio, growth_point, own_times, paired_ratio, paired_times, sure_rounds

ROOT = Path(__file__).resolve().parents[2]


def test_sides_alternate_and_warm_up_is_not_counted() -> None:
    calls: list[str] = []
    collecting: list[bool] = []

    def side(name: str) -> str:
        calls.append(name)
        collecting.append(gc.isenabled())
        return name

    times = paired_times(lambda: side("ours"), lambda: side("oracle"), rounds=4, warmup=1)
    assert times.candidate.shape == times.reference.shape == (4,)
    assert calls == ["oracle", "ours"] * 5
    assert (times.candidate_output, times.reference_output) == ("ours", "oracle")
    fields = times.as_fields
    assert fields == {"seconds": [*times.candidate], "reference_seconds": [*times.reference]}
    assert not any(collecting)
    assert gc.isenabled()


def test_the_wait_for_the_device_is_part_of_the_time() -> None:
    now = 0.0
    waited: list[object] = []

    def wait(output: object) -> None:
        nonlocal now
        waited.append(output)
        now += 0.5

    times = paired_times(lambda: "lazy", lambda: None, rounds=2, synchronize=wait, clock=lambda: now)
    assert waited == ["lazy"] * 3
    assert times.candidate.tolist() == [0.5, 0.5]
    assert times.reference.tolist() == [0.0, 0.0]


def test_a_short_candidate_is_called_more_often_and_its_mean_counts() -> None:
    now = 0
    calls: list[int] = []

    def work(seconds: int) -> None:
        nonlocal now
        now += seconds
        calls.append(seconds)

    times = paired_times(
        lambda: work(1), lambda: work(8), rounds=2, warmup=0, candidate_calls=50, clock=lambda: now
    )
    assert calls == ([8] + [1] * 50) * 2
    assert times.candidate.tolist() == [1, 1]
    assert times.reference.tolist() == [8, 8]


def test_the_garbage_collector_is_left_as_it_was() -> None:
    gc.disable()
    try:
        paired_times(int, int, rounds=1)
        assert not gc.isenabled()
    finally:
        gc.enable()

    def fail() -> None:
        raise RuntimeError("candidate")

    with pytest.raises(RuntimeError, match="candidate"):
        paired_times(fail, int, rounds=1)
    assert gc.isenabled()


def test_ratios_are_formed_within_rounds() -> None:
    """A machine that doubles its speed half way through changes no ratio."""
    reference = np.array([4.0, 4.0, 4.0, 2.0, 2.0, 2.0])
    assert paired_ratio(reference / 4, reference) == Ratio(4.0, 4.0, 4.0, 6)


def test_noise_and_too_few_rounds_are_told_apart() -> None:
    assert Ratio(3.0, 2.9, 3.1, 7).sure
    noisy, few = Ratio(3.0, 2.0, 4.0, 7), Ratio(3.0, 2.0, 4.0, 2)
    assert (noisy.too_noisy, noisy.too_few, noisy.sure) == (True, False, False)
    assert (few.too_noisy, few.too_few, few.sure) == (False, True, False)
    assert paired_ratio(np.ones(1), np.ones(1)).too_few
    assert str(Ratio(3.14159, 3.0, 3.25, 7)) == "3.14x (3.00-3.25)"
    assert str(Ratio(0.023456, 0.0228, 0.0243, 7)) == "0.0235x (0.0228-0.0243)"


def test_the_interval_of_few_rounds_is_their_range_and_of_more_leaves_the_outermost_out() -> None:
    times = np.random.default_rng(2).uniform(1, 2, 9)
    few, more = paired_ratio(times[:8], np.ones(8)), paired_ratio(times, np.ones(9))
    assert (few.low, few.high) == ((1 / times[:8]).min(), (1 / times[:8]).max())
    assert (few.is_range, few.confidence) == (True, 1 - 2**-7)
    assert (more.low, more.high) == (np.sort(1 / times)[1], np.sort(1 / times)[-2])
    assert (more.is_range, more.confidence) == (False, 1 - 20 / 512)
    assert [sure_rounds(rounds) for rounds in (1, 3, 5, 7, 12)] == [1, 3, 9, 9, 12]


def test_a_time_on_its_own_is_taken_with_the_same_care() -> None:
    collecting: list[bool] = []
    waited: list[object] = []

    def wait(output: object) -> None:
        waited.append(output)
        time.sleep(0.01)

    times = own_times(lambda: collecting.append(gc.isenabled()), rounds=3, synchronize=wait)
    assert times.shape == (3,)
    assert times.min() >= 0.01
    assert collecting == [False] * 4  # the first is not counted
    assert waited == [None] * 4
    assert gc.isenabled()


def test_a_point_of_growth_has_the_memory_that_was_measured() -> None:
    assert growth_point(2.0, int, 7).keys() == {"audio_seconds", "seconds", "peak_memory_bytes"}
    assert growth_point(2.0, int, None).keys() == {"audio_seconds", "seconds"}


@pytest.mark.parametrize(
    ("candidate", "reference", "words"),
    [
        ([1.0], [1.0, 2.0], "expected two equal one-dimensional shapes"),
        ([], [], "at least one round"),
        ([1.0, 0.0], [1.0, 1.0], "must be positive"),
    ],
)
def test_times_that_cannot_be_compared(candidate: list[float], reference: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        paired_ratio(np.array(candidate), np.array(reference))


@pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory as Linux shows it")
def test_freed_memory_is_kept_inside_the_block_and_returned_after_it() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) << 12

    size = 200 << 20
    before = resident()
    with freed_memory_kept():
        for _ in range(2):
            np.ones(size // 8)
        assert resident() - before > 0.9 * size
    assert resident() - before < 0.1 * size
    np.ones(3 * size // 8)  # more than the block may have left as a gap in the heap, which is filled first
    assert resident() - before < 0.1 * size


def test_what_lived_before_is_not_looked_through_in_every_round() -> None:
    frozen: list[int] = []
    gc.freeze()
    paired_times(lambda: frozen.append(gc.get_freeze_count()), lambda: None, rounds=2)
    assert all(count > 1000 for count in frozen)
    # What was left out before stays so.
    assert gc.get_freeze_count() > 1000
    gc.unfreeze()
    paired_times(int, int, rounds=1)
    assert gc.get_freeze_count() == 0
    gc.freeze()


PAIR = """
from bench.measure.paired import own_times, paired_times

def test_pair(benchmark):
    calls = []
    times = paired_times(lambda: calls.append("ours"), lambda: calls.append("oracle"), rounds=4, benchmark=benchmark)
    assert calls == ["oracle", "ours"] * 5
    assert benchmark.stats.stats.data == times.candidate.tolist()
    assert benchmark.extra_info["reference_seconds"] == times.reference.tolist()

def test_alone(benchmark):
    calls = []
    times = own_times(lambda: calls.append("ours"), rounds=3, benchmark=benchmark)
    assert len(calls) == 4
    assert benchmark.stats.stats.data == times.tolist()
"""


def test_pytest_benchmark_runs_the_rounds_once_and_its_json_can_be_compared(tmp_path: Path) -> None:
    (tmp_path / "test_pair.py").write_text(PAIR, encoding="utf-8")
    (tmp_path / "pytest.ini").touch()
    path = tmp_path / "benchmark.json"

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("PYTEST_XDIST_WORKER", None)  # which pytest-benchmark does not measure in
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("pytest", "-q", "-p", "no:cacheprovider", f"--benchmark-json={path}", "test_pair.py")
    pair, alone = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    assert (len(pair["stats"]["data"]), len(pair["extra_info"]["reference_seconds"])) == (4, 4)
    assert (len(alone["stats"]["data"]), alone["extra_info"]) == (3, {})
    assert "test_pair" in run("pytest_benchmark", "compare", str(path))
