"""Lines of recorded runs, made up."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
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


INSIDE_POSTPROCESS = ("metrical_prep", "metrical_dbn", "functional_boundaries")


Edit = Callable[[StageTiming], StageTiming | list[StageTiming]]


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
        factor = 1 + jitter * (run % 3 - 1)
        clock = 0.0
        for position, track in enumerate(tracks):
            for stage, seconds in DURATIONS.items():
                if stage == "model_load" and position > 0:
                    continue
                backend, library, device = RAN.get(stage, (None, None, None))
                duration = seconds * factor * (scale or {}).get(stage, 1.0)
                lines.append(
                    StageTiming(
                        schema=SCHEMA_VERSION,
                        run_id=f"run{run}",
                        run_started="2026-01-15T10:00:00.000+00:00",
                        stage=stage,
                        parent="postprocess" if stage in INSIDE_POSTPROCESS else None,
                        start=clock,
                        end=clock + duration,
                        duration=duration,
                        track=None if stage == "model_load" else track,
                        audio_seconds=None if stage == "model_load" else 195.5,
                        backend=backend,
                        requested_backend="auto" if backend else None,
                        device=device,
                        requested_device="auto" if backend else None,
                        precision="exact" if backend else None,
                        library=library,
                        library_version="1.0" if backend else None,
                        reason=f"auto: {backend} is the first choice for cpu" if backend else None,
                        synchronized=True,
                        cached=False,
                        thread="main",
                        error=None,
                        details=DETAILS.get(stage, {}),
                        machine=MACHINE,
                        versions=VERSIONS,
                    )
                )
                clock += duration
    edited: list[StageTiming] = []
    for line in lines:
        result = edit(line)
        edited += result if isinstance(result, list) else [result]
    path.write_text("".join(json.dumps(dataclasses.asdict(line)) + "\n" for line in edited), encoding="utf-8")
    return path


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
