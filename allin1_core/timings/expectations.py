"""Expected speed-up of each stage, from a TOML file::

    unchanged = 1.1                 # a ratio between 1 / 1.1 and 1.1 is no change

    [stage.spectrogram]
    speedup = [2.5, 5.0]            # lowest and highest expected ratio of before to after
    backend = ["mlx"]               # optional, as are device and precision: what should have run

A stage that is not named there is expected to stay as it was, or to get faster.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
from pathlib import Path
from typing import Any

from allin1_core.errors import TimingsError
from allin1_core.files.reading import read_content
from allin1_core.files.writing import expand_user
from allin1_core.timings.schema import STAGES

UNCHANGED = 1.1
_LARGEST_FILE = 1 << 20  # bytes


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What a stage was expected to gain, and with what.

    Attributes
    ----------
    speedup : (float, float)
        Lowest and highest expected ratio of before to after.
    backend, device, precision : tuple of str
        What should have run in the later run; empty if anything may.
    """

    speedup: tuple[float, float]
    backend: tuple[str, ...] = ()
    device: tuple[str, ...] = ()
    precision: tuple[str, ...] = ()


def read_expectations(path: str | os.PathLike[str]) -> tuple[float, dict[str, Expectation]]:
    """The factor below which nothing has changed, and what is expected of each stage.

    Raises
    ------
    TimingsError
        If the file cannot be read or says something else than this module's docstring allows.
    """
    path = expand_user(path)
    content = _read_toml(path)
    unknown = content.keys() - {"unchanged", "stage"}
    if unknown:
        raise TimingsError(
            f"{path}: unknown key {sorted(unknown)[0]!r}; expected 'unchanged' and [stage.<name>]"
        )
    unchanged = _number(content.get("unchanged", UNCHANGED))
    if not 1 <= unchanged < math.inf:
        raise TimingsError(
            f"{path}: unchanged is {content['unchanged']!r:.60}; expected a factor of at least 1"
        )
    stages = content.get("stage", {})
    if not isinstance(stages, dict):
        raise TimingsError(f"{path}: stage is {stages!r:.60}; expected a table [stage.<name>] for each stage")
    return unchanged, {name: _expectation(path, name, table) for name, table in stages.items()}


def _expectation(path: Path, stage: str, table: Any) -> Expectation:
    where = f"{path}, [stage.{stage}]"
    if stage not in STAGES:
        raise TimingsError(f"{where}: no such stage; expected one of {', '.join(STAGES)}")
    if not isinstance(table, dict):
        raise TimingsError(f"{where}: {table!r:.60}; expected a table with speedup")
    unknown = table.keys() - {"speedup", "backend", "device", "precision"}
    if unknown:
        raise TimingsError(
            f"{where}: unknown key {sorted(unknown)[0]!r}; expected speedup, backend, device, precision"
        )
    speedup = table.get("speedup")
    bounds = [_number(bound) for bound in speedup] if isinstance(speedup, list) else []
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
        raise TimingsError(f"{where}: speedup is {speedup!r:.60}; expected [lowest, highest], both positive")
    allowed = {}
    for name in ("backend", "device", "precision"):
        values = table.get(name, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise TimingsError(f"{where}: {name} is {values!r:.60}; expected a list of names")
        allowed[name] = tuple(values)
    return Expectation((bounds[0], bounds[1]), **allowed)


def _number(value: Any) -> float:
    """A number of TOML; NaN, which passes no comparison, for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _read_toml(path: Path) -> dict[str, Any]:
    content = read_content(path, TimingsError, most=_LARGEST_FILE)
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise TimingsError(f"{path}: cannot be read as expectations ({error}); expected TOML") from error
