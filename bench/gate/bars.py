"""What the gate asks for: the rows and limits of bench/gate/gate.toml."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path

from allin1_core.simd import instruction_sets

BARS = Path(__file__).with_name("gate.toml")


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of gate.toml; see there. `min_ratio` has the names of instruction sets as keys; `rounds` are those of all
    rows unless it has its own."""

    stage: str
    backend: str
    precision: str = "exact"
    threads: int | None = None
    variant: str = ""
    rounds: int | None = None
    min_ratio: Mapping[str, float] = dataclasses.field(default_factory=dict)
    max_difference: float | None = None
    max_memory_mib: float | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.min_ratio) - set(instruction_sets.NAMES))
        if unknown:
            raise ValueError(
                f"{self.name}: min_ratio for {', '.join(unknown)}; expected {', '.join(instruction_sets.NAMES)}"
            )

    @property
    def name(self) -> str:
        """``spectrogram/torch/exact``, and the variant, if there is one."""
        return "/".join(filter(None, (self.stage, self.backend, self.precision, self.variant)))


@dataclasses.dataclass(frozen=True)
class DeviceBar:
    """The least that a figure of a row of ``make device`` may be: a `ratio`, or the signal-to-noise ratio `snr_db`.

    `module` is that without which the row cannot be measured, and is not judged.
    """

    part: str
    name: str
    at_least: float
    figure: str = "ratio"
    module: str = ""


@dataclasses.dataclass(frozen=True)
class DeviceBars:
    """What gate.toml asks of a GPU.

    Attributes
    ----------
    rows : tuple of DeviceBar
    max_loss : float
        How many times smaller a ratio may be than in the committed report of the same card.
    """

    rows: tuple[DeviceBar, ...]
    max_loss: float


@dataclasses.dataclass(frozen=True)
class Bars:
    """What gate.toml asks for."""

    rounds: int
    max_instruction_growth: float
    max_import_ratio: float
    forbidden_imports: tuple[str, ...]
    rows: tuple[Row, ...]
    reading: Mapping[str, float]
    f_measures: Mapping[str, Mapping[str, float]]
    device: DeviceBars

    @property
    def num_speeds(self) -> int:
        """How many bars of speed there are."""
        return sum(bool(row.min_ratio) for row in self.rows) + len(self.reading)


def read_bars(path: Path = BARS) -> Bars:
    """The bars.

    Raises
    ------
    ValueError
        If the file says something that the gate does not know: a misspelt bar must not be a bar that always holds.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        rows = tuple(Row(**row) for row in content.pop("row"))
        imports, device = content.pop("import"), content.pop("device")
        return Bars(
            rows=rows,
            max_import_ratio=imports.pop("max_ratio"),
            forbidden_imports=tuple(imports.pop("forbidden")),
            reading=content.pop("reading"),
            f_measures=content.pop("f_measure"),
            device=DeviceBars(tuple(DeviceBar(**row) for row in device.pop("row")), **device),
            **content,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}; expected the keys that bench/gate/bars.py knows") from error
