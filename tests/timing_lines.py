"""Lines of recorded runs, made up."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from allin1_core.timings.schema import SCHEMA_VERSION, StageTiming

MACHINE = {"cpu": "Test CPU", "cores": 2, "platform": "Linux-6.1"}


VERSIONS = {"python": "3.12.1", "allin1-core": "0.1.0", "numpy": "2.4.0", "torch": "2.13.0"}


# What the stages of a run take, in seconds, and what ran (backend, library, device).
DURATIONS: dict[str, float] = {
    "spectrogram": 0.400,
    "model_load": 0.250,
    "nn": 4.000,
    "metrical_prep": 0.010,
    "metrical_dbn": 0.600,
    "functional_boundaries": 0.040,
    "save": 0.002,
}


RAN = {
    "spectrogram": ("torch", "torch", "cpu"),
    "nn": ("fused", "allin1-core", "cpu"),
    "metrical_dbn": ("cython", "allin1-core", "cpu"),
    "functional_boundaries": ("numpy", "numpy", "cpu"),
}


DETAILS: dict[str, dict[str, Any]] = {
    "metrical_dbn": {"beats_per_bar": [3, 4], "threshold": 0.24},
    "nn": {"folds": 8, "frames": 19550},
    "model_load": {"model": "harmonix-all", "folds": 8},
}


Edit = Callable[[StageTiming], StageTiming | list[StageTiming]]


def line(stage: str, track: str | None = "song", run: str = "run", **fields: Any) -> StageTiming:
    """A line of half a second, of a stage that no backend runs."""
    made: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(StageTiming))
    made |= {"schema": SCHEMA_VERSION, "run_id": run, "run_started": "2026-01-15T10:00:00.000+00:00"}
    made |= {
        "stage": stage,
        "start": 0.0,
        "end": 0.5,
        "duration": 0.5,
        "track": track,
        "audio_seconds": 195.5,
    }
    made |= {"synchronized": True, "cached": False, "concurrent": 1, "thread": "main", "details": {}}
    made |= {"machine": MACHINE, "versions": VERSIONS}
    return StageTiming(**made | fields)


def write(path: Path, lines: Iterable[StageTiming]) -> Path:
    path.write_text("".join(json.dumps(dataclasses.asdict(each)) + "\n" for each in lines), encoding="utf-8")
    return path


def record(
    path: Path,
    *,
    edit: Edit = lambda line: line,
    runs: int = 9,
    tracks: tuple[str, ...] = ("song",),
    scale: dict[str, float] | None = None,
    jitter: float = 0.01,
) -> Path:
    """Write the lines of some runs; every run is a little slower or faster than the last, by `jitter`."""
    lines: list[StageTiming] = []
    for run in range(runs):
        clock = 0.0
        for position, track in enumerate(tracks):
            for stage, seconds in DURATIONS.items():
                loads = stage == "model_load"
                if loads and position > 0:
                    continue
                duration = seconds * (1 + jitter * (run % 3 - 1)) * (scale or {}).get(stage, 1.0)
                fields: dict[str, Any] = {"start": clock, "end": clock + duration, "duration": duration}
                clock += duration
                if stage in RAN:
                    backend, library, device = RAN[stage]
                    fields |= {"backend": backend, "library": library, "library_version": "1.0"}
                    fields |= {"device": device, "requested_backend": "auto", "requested_device": "auto"}
                    fields |= {"precision": "exact", "reason": f"auto: {backend} is the first choice for cpu"}
                if stage == "spectrogram":
                    fields |= {"computed_by": "fused", "computed_on": "cpu", "instruction_set": "AVX-512"}
                if stage.startswith(("metrical", "functional")):
                    fields["parent"] = "postprocess"
                if loads:
                    fields["audio_seconds"] = None
                details = DETAILS.get(stage, {})
                made = edit(line(stage, None if loads else track, f"run{run}", details=details, **fields))
                lines += made if isinstance(made, list) else [made]
    return write(path, lines)


def change(stage: str, **fields: Any) -> Edit:
    """Replace fields in the lines of a stage; `details` are merged."""

    def edit(line: StageTiming) -> StageTiming:
        if line.stage != stage:
            return line
        merged = {**fields}
        if "details" in merged:
            merged["details"] = {**line.details, **merged["details"]}
        return dataclasses.replace(line, **merged)

    return edit
