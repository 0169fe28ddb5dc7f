"""The rows that a device's report has of the separation."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("demucs_infer", reason="demucs-infer is not installed (extra 'demucs')")

from allin1_core.results.result import Segment  # noqa: E402
from bench.device import separation  # noqa: E402
from bench.gate.bars import read_bars  # noqa: E402
from parity.inputs.separation import SMALL  # noqa: E402


def result(**fields: Any) -> Any:
    segments = [Segment(0.0, 1.0, "intro"), Segment(1.0, fields.pop("end", 2.0), "verse")]
    given = {"beats": [0.5, 1.0, 1.5], "beat_positions": [1, 2, 1], "segments": segments}
    return SimpleNamespace(**(given | fields))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({}, (0, True)),
        ({"beats": [0.5, 1.01, 1.5]}, (1, True)),
        ({"beats": [0.5, 1.02, 1.5]}, (1, False)),
        ({"beats": [0.5, 1.0, math.nan]}, (1, False)),
        ({"beat_positions": [1, 2, 3]}, (0, False)),
        ({"beats": [0.5, 1.0], "beat_positions": [1, 2]}, (3, False)),
        ({"end": 2.01}, (0, True)),
        ({"end": 2.02}, (0, False)),
        ({"segments": [Segment(0.0, 2.0, "verse")]}, (0, False)),
        ({"segments": [Segment(0.0, 1.0, "intro"), Segment(1.0, 2.0, "chorus")]}, (0, False)),
    ],
)
def test_beats_and_boundaries_may_move_by_a_frame(other: dict[str, Any], expected: tuple[int, bool]) -> None:
    assert separation._moved(result(), result(**other)) == expected


def test_a_row_for_each_case_with_its_ratio_and_difference() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = list(separation.rows(device="cpu", seconds=1.0, rounds=1, shape=SMALL))
    torch.set_num_threads(threads)
    theirs, defaults, exact, fast = rows[:4]
    assert (exact["name"], fast["name"]) == ("allin1-core, exact", "allin1-core, fast")
    assert theirs["ratio"] == 1
    assert exact["ratio"] == theirs["seconds"] / exact["seconds"]
    assert fast["ratio"] == defaults["seconds"] / fast["seconds"]
    assert exact["difference"] <= exact["bound"] == 1e-5
    of = {row["name"]: row for row in rows}
    assert all(bar.figure in of[bar.name] for bar in read_bars().device.rows if bar.part == "separation")
    # On a CPU ours differs by the rounding of sums in another order (105 dB with AVX2, 110 with AVX-512; TF32 has 54),
    # and the two precisions not at all: no noise, and no beat that moves.
    assert exact["snr_db"] == fast["snr_db"] > 100
    assert [row["snr_db"] for row in (theirs, defaults, *rows[4:])] == [None] * (len(rows) - 2)
    assert all(row["agrees"] and str(row["beats moved"]).startswith("0 of") for row in rows[4:])


def test_stems_that_hold_nan_have_no_ratio_above_a_bar() -> None:
    right = torch.ones(4, 2, 10)
    wrong = right.clone()
    wrong[1, 0, 3] = math.nan
    assert (separation.least_snr(right, right), separation.least_snr(wrong, right)) == (None, -math.inf)
