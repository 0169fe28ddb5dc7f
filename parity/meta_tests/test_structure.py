"""The check of local maxima, boundaries and sections."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from typing import Any

import numpy as np
import pytest

from allin1_core.structure import Segment
from parity import test_structure
from parity.implementations import Implementation
from parity.meta_tests.faults import FAULTS
from parity.oracles import structure
from parity.reports.records import ParityRecorder

NUMPY = Implementation("numpy", "exact")
SEGMENT_FAULTS: dict[str, Any] = {
    "NaN": np.nan,
    "infinity": np.inf,
    "minus infinity": -np.inf,
    "a frame off": 0.01,
    "nothing": None,
}


def _check(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite's test on made-up probabilities, in which a part of what was found is replaced; it has to fail."""
    right = test_structure._run
    record = ParityRecorder()
    test_structure.test_made_up_probabilities(9000, 10_000, NUMPY, record)
    monkeypatch.setattr(test_structure, "_run", lambda *given: wrong(*right(*given)))
    with pytest.raises(AssertionError, match="a difference of"):
        test_structure.test_made_up_probabilities(9000, 10_000, NUMPY, record)
    assert [entry.passed for entry in record.records] == [True, False]
    assert record.records[1].measures["differences"] >= 1


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("part", ["local maxima", "boundaries"])
def test_a_fault_of_an_array_fails(part: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change = FAULTS[fault]
    if part == "local maxima":
        _check(lambda maxima, frames, found: (change(maxima), frames, found), monkeypatch)
    else:
        _check(lambda maxima, frames, found: (maxima, change(frames), found), monkeypatch)


@pytest.mark.parametrize("index", [0, 1, -1])
@pytest.mark.parametrize("fault", SEGMENT_FAULTS)
@pytest.mark.parametrize("field", ["start", "end"])
def test_a_fault_of_a_section_fails(
    field: str, fault: str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(maxima: Any, frames: Any, found: list[Segment]) -> Any:
        value = SEGMENT_FAULTS[fault]
        moved = getattr(found[index], field) + value if fault == "a frame off" else value
        found[index] = dataclasses.replace(found[index], **{field: moved})
        return maxima, frames, found

    _check(wrong, monkeypatch)


@pytest.mark.parametrize("label", ["chorus", "no label", "", None])
def test_another_label_fails(label: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(maxima: Any, frames: Any, found: list[Segment]) -> Any:
        assert found[1].label != label
        return maxima, frames, [found[0], dataclasses.replace(found[1], label=label), *found[2:]]

    _check(wrong, monkeypatch)


@pytest.mark.parametrize("number", [0, 1, -1])
def test_another_number_of_sections_fails(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(maxima: Any, frames: Any, found: list[Segment]) -> Any:
        return maxima, frames, [*found, found[-1]] if number == 1 else found[:number]

    _check(wrong, monkeypatch)


def test_recorded_sections_are_held_to_as_well() -> None:
    probabilities = test_structure.probabilities_of(9000, 10_000)
    segment, label = probabilities["segment"], probabilities["label"]
    golden = structure.sections(structure.boundaries(structure.local_maxima(segment)), label)
    record = ParityRecorder()
    test_structure.check(record, "made up", NUMPY, probabilities, golden)
    start, end, name = golden[2]
    for other in ((start, end, "verse" if name == "intro" else "intro"), (np.nextafter(start, 0), end, name)):
        with pytest.raises(AssertionError):
            test_structure.check(record, "made up", NUMPY, probabilities, [*golden[:2], other, *golden[3:]])
    assert [entry.passed for entry in record.records] == [True, False, False]


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("parity.test_structure.LOCAL_MAXIMA_WINDOW", 95),
        ("allin1_core.structure.sections._SURROUNDINGS", 1100),
        ("allin1_core.structure.sections._FRAMES_PER_SECOND", 50),
        ("allin1_core.structure.sections.LABELS", tuple(reversed(structure.LABELS))),
    ],
)
def test_a_changed_constant_of_the_method_fails(
    constant: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle has constants of its own."""

    def fails(num_frames: int, values: int) -> bool:
        try:
            test_structure.test_made_up_probabilities(num_frames, values, NUMPY, ParityRecorder())
        except AssertionError:
            return True
        return False

    cases = list(itertools.product([9000, 20_000], [100, 1000, 10_000]))
    assert not any(fails(*case) for case in cases)
    module, _, name = constant.rpartition(".")
    monkeypatch.setattr(sys.modules[module], name, value)
    assert any(fails(*case) for case in cases)
