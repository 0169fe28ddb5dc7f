"""Schema of a timings file: one stage of a run per line of JSON (docs/timings.md), checked when read."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from allin1_core.errors import TimingsError
from allin1_core.files.reading import read_content
from allin1_core.files.writing import expand_user
from allin1_core.timings.machine import machine

SCHEMA_VERSION = 1
_LARGEST_FILE = 1 << 30  # bytes
_KINDS: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "dict": (dict,),
    "None": (type(None),),
}


# In the order of the pipeline. `postprocess` contains the metrical and functional stages (their `parent`).
STAGES = (
    "audio_read",
    "demix",
    "spectrogram",
    "model_load",
    "spec_load",
    "transfer",
    "nn",
    "postprocess",
    "functional_probs",
    "metrical_prep",
    "functional_local_maxima",
    "metrical_dbn",
    "functional_boundaries",
    "confidences",
    "save",
    "export",
    "visualize",
    "sonify",
)


@dataclasses.dataclass(frozen=True)
class StageTiming:
    """One stage of one run; the fields are those of a line of the file, which docs/timings.md describes."""

    schema: int
    run_id: str
    run_started: str
    stage: str
    parent: str | None
    start: float
    end: float
    duration: float
    track: str | None
    audio_seconds: float | None
    backend: str | None
    requested_backend: str | None
    device: str | None
    requested_device: str | None
    precision: str | None
    library: str | None
    library_version: str | None
    reason: str | None
    synchronized: bool
    cached: bool
    thread: str
    error: str | None
    details: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    computed_by: str | None = None
    computed_on: str | None = None
    instruction_set: str | None = None
    concurrent: int = 1


def read_timings(path: str | os.PathLike[str]) -> list[StageTiming]:
    """Records of a timings file, in the order they were written.

    Raises
    ------
    TimingsError
        If the file cannot be read, or a line is not a timing of this schema.
    """
    path = expand_user(path)
    try:
        # At newlines only: `splitlines` also splits at characters that a track's name may hold.
        lines = read_content(path, TimingsError, most=_LARGEST_FILE).decode().split("\n")
    except UnicodeDecodeError as error:
        raise TimingsError(
            f"{path}: cannot be read as timings ({error}); expected a file of JSON lines"
        ) from error
    return [_parse(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _parse(path: Path, number: int, line: str) -> StageTiming:
    where = f"{path}, line {number}"
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TimingsError(f"{where}: not JSON ({error}); expected one timing object a line") from error
    if not isinstance(fields, dict) or fields.get("schema") != SCHEMA_VERSION:
        found = fields.get("schema") if isinstance(fields, dict) else type(fields).__name__
        raise TimingsError(
            f"{where}: schema {str(found)[:40]!r}; this version of allin1-core reads schema {SCHEMA_VERSION} "
            "(docs/timings.md)"
        )
    # A field with a default was added later: a line written before does not have it.
    known = {
        field.name: str(field.type)
        for field in dataclasses.fields(StageTiming)
        if field.default is dataclasses.MISSING or field.name in fields
    }
    missing = sorted(known.keys() - fields.keys())
    if missing:
        raise TimingsError(f"{where}: no field {', '.join(missing)}; see docs/timings.md")
    for name, kinds in known.items():
        if not _is_of_kind(fields[name], kinds):
            raise TimingsError(f"{where}: field {name} is {str(fields[name])[:40]!r}; expected {kinds}")
    if fields["stage"] not in STAGES:
        raise TimingsError(f"{where}: stage {fields['stage'][:40]!r}; expected one of {', '.join(STAGES)}")
    absent = sorted(machine().keys() - fields["machine"].keys())
    if absent:
        raise TimingsError(f"{where}: machine without {', '.join(absent)}; see docs/timings.md")
    if not (0 <= fields["start"] <= fields["end"] and fields["duration"] >= 0):
        raise TimingsError(
            f"{where}: start {fields['start']}, end {fields['end']}, duration {fields['duration']}; expected "
            "0 <= start <= end and 0 <= duration"
        )
    return StageTiming(**{name: fields[name] for name in known})


def _is_of_kind(value: Any, kinds: str) -> bool:
    # NaN, infinity, and digits that are too many for a float.
    if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
        return False
    return any(type(value) in _KINDS[kind.partition("[")[0]] for kind in kinds.split(" | "))
