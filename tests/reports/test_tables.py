"""Tables of the reports: cells as they were given, whatever pandas and tabulate would make of them."""

from __future__ import annotations

import math

from parity.reports.records import ParityRecord
from parity.reports.tables import difference, frame, markdown


def test_cells_stay_as_they_were_given() -> None:
    rows = [
        {"case": "1e5", "values": "0.10", "number": 3},
        {"case": "a song, longer", "values": "-", "number": 12},
    ]
    head, rule, *cells = markdown(rows, right={"values", "number"}).splitlines()
    assert head == "| case | values | number |"
    assert [side.endswith(":") for side in rule.strip("|").split("|")] == [False, True, True]
    assert cells == ["| 1e5 | 0.10 | 3 |", "| a song, longer | - | 12 |"]
    assert markdown([]) == ""


def test_a_record_is_a_row_with_its_measures() -> None:
    first = ParityRecord(
        "decoder", "song", "madmom", "numpy", "cpu", "exact", "identical", False, {"frames": 3, "stage": "x"}
    )
    table = frame([first, ParityRecord(**{**vars(first), "passed": True, "measures": {"frames": 4}})])
    assert table["frames"].sum() == 7
    assert list(table["stage"]) == ["decoder", "decoder"]
    assert table["passed"].sum() == 1


def test_a_difference_that_is_not_finite_is_shown() -> None:
    assert [difference(value) for value in (0.0, 2.44e-7, math.inf)] == ["0", "2.4e-07", "inf"]
