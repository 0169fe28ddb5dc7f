"""What the report says about hard use: how many inputs were tried, how they ended, and what failed."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hard_use.reader_process import Reading, faults
from hard_use.signals import examples
from parity.reports.records import ParityRecord, ParityRecorder


def check_readings(
    recorder: ParityRecorder,
    case: str,
    bound: str,
    readings: Sequence[Reading],
    *,
    memory: int,
    may_be_read: Callable[[Path], bool] = lambda path: False,
    wrong: Sequence[str] = (),
) -> None:
    """Record how the reading of hostile files ended; fail if one did harm, or was read that may not be.

    Parameters are those of `check_trials`, and:

    memory : int
        Bytes that reading a file may take.
    """
    ended = Counter(reading.ended for reading in readings)
    read = [reading.path for reading in readings if reading.ended == "read"]
    check_trials(
        recorder,
        "hostile files",
        case,
        bound,
        tried=len(readings),
        wrong=[
            *faults(readings, memory=memory),
            *(f"{path}: read" for path in read if not may_be_read(Path(path))),
            *wrong,
        ],
        refused=ended["refused"],
        read=ended["read"],
        peak_megabytes=round(max(reading.peak_bytes for reading in readings) / 1e6, 1),
        slowest_seconds=round(max(reading.seconds for reading in readings), 3),
    )


def check_trials(
    recorder: ParityRecorder,
    area: str,
    case: str,
    bound: str,
    *,
    tried: int,
    wrong: Sequence[str] = (),
    backend: str = "",
    precision: str = "",
    **measures: Any,
) -> None:
    """Record any check of hard use, and fail if something is wrong.

    Parameters
    ----------
    recorder : ParityRecorder
    area : str
        Heading of the report's section: one of those in `parity.reports.sections.hard_use`.
    case, bound : str
        What was tried, and what it was held to.
    tried : int
        Number of inputs.
    wrong : sequence of str
        What failed, an item for each.
    backend, precision : str
        What was tried, where that is one of several.
    **measures
        Other figures, JSON-ready, named with their units.
    """
    with recorded_trials(recorder, area, case, bound, backend=backend, precision=precision) as trials:
        trials.tried, trials.wrong, trials.measures = tried, [*wrong], measures
        assert not wrong, "\n".join(wrong)


@dataclasses.dataclass
class Trials:
    """What a check has tried so far, and what of it failed; `measures` as in `check_trials`."""

    tried: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)
    measures: dict[str, Any] = dataclasses.field(default_factory=dict)

    def differ_by(self, difference: float) -> float:
        """Keep the largest difference; returns the one that was given, infinite if it is not finite."""
        # `max` passes over a NaN.
        difference = float(difference) if math.isfinite(difference) else math.inf
        self.measures["max_difference"] = max(self.measures.get("max_difference", 0.0), difference)
        return difference

    def draw(self, number: int, check: Callable[..., None], **drawn: st.SearchStrategy) -> None:
        """Run a check on so many inputs that Hypothesis draws; more, if one fails and is made smaller."""

        @examples(number)
        @given(**drawn)
        def counted(**inputs: object) -> None:
            self.tried += 1
            check(**inputs)

        counted()


@contextlib.contextmanager
def recorded_trials(
    recorder: ParityRecorder, area: str, case: str, bound: str, *, backend: str = "", precision: str = ""
) -> Iterator[Trials]:
    """Record the trials of a block, also when it raises: a law that fails must not lose its row.

    Parameters are those of `check_trials`.
    """
    trials = Trials()
    try:
        yield trials
    except (Exception, pytest.fail.Exception) as error:
        if not trials.wrong:
            trials.wrong.append(str(error).strip().partition("\n")[0] or type(error).__name__)
        raise
    finally:
        recorder(
            ParityRecord(
                # One row of the report's summary stands for all of these; their section has the details.
                stage="hard use",
                case=case,
                oracle="specification",
                backend="all",
                device="cpu",
                precision="-",
                bound="nothing fails",
                passed=not trials.wrong,
                measures={
                    "area": area,
                    "held_to": bound,
                    "ran": ", ".join(filter(None, (backend, precision))),
                    "tried": max(trials.tried, len(trials.wrong)),
                    "failed": len(trials.wrong),
                    "first_failure": trials.wrong[0] if trials.wrong else "",
                    **trials.measures,
                },
            )
        )
