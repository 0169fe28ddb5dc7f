"""What a library's results are made with, written beside them once; and its runs."""

from __future__ import annotations

import dataclasses
import datetime
import json
import uuid
from collections.abc import Sequence
from typing import Any

from allin1_core import __version__
from allin1_core.errors import LibraryError, WeightsError
from allin1_core.files.reading import file_digest
from allin1_core.files.writing import expand_user
from allin1_core.library.places import Place
from allin1_core.session import repository_sha256
from allin1_core.settings import Settings

_RECORD = "library.json"
# They give the same beats and sections; the folder of weights is told by the weights.
_NO_DIFFERENCE = ("device", "num_threads", "jobs", "weights_dir", "demix_repository")


def made_with(settings: Settings, **outputs: bool) -> dict[str, Any]:
    """What decides a result besides its audio, JSON-ready: version, settings that were checked, and what is written.

    Raises
    ------
    WeightsError
        If files of weights cannot be read.
    """
    from allin1_core.network.weights import ENSEMBLE, PUBLISHED

    values = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name not in _NO_DIFFERENCE
    }
    if settings.model not in (ENSEMBLE, *PUBLISHED):
        model = expand_user(settings.model)
        values["model"] = f"{model.name}, SHA-256 {file_digest(model, WeightsError)}"
    if settings.demix_repository is not None:
        values["demix_repository"] = repository_sha256(settings)
    return json.loads(json.dumps({"allin1_core_version": __version__, **values, **outputs}))


def claim(place: Place, wanted: dict[str, Any]) -> bool:
    """Make a place this library's, unless it is; gives whether it was.

    Raises
    ------
    LibraryError
        If its results are made with something else.
    OutputError
        If it cannot be read or written.
    """
    with place.locked():
        text = place.read(_RECORD)
        if text is None:
            place.write(_RECORD, (json.dumps(wanted, indent=2) + "\n").encode())
    # Where there are no locks, one of several that start together was the last to write.
    recorded = read(place)
    other = [
        f"{name} {json.dumps(recorded.get(name))}, not {json.dumps(wanted.get(name))}"
        for name in sorted({*recorded, *wanted})
        if recorded.get(name) != wanted.get(name)
    ]
    if other:
        raise LibraryError(
            f"{place.location}: the results there are made with {'; '.join(other)}; choose another --out, or the same "
            "settings and version"
        )
    return text is not None


def read(place: Place) -> dict[str, Any]:
    """What a library's results are made with.

    Raises
    ------
    LibraryError
        If there is no library, or its record is damaged.
    """
    recorded = _read_object(place, _RECORD)
    if recorded is None:
        raise LibraryError(
            f"{place.location}: no library is there; expected the --out of 'allin1-core library'"
        )
    return recorded


def _read_object(place: Place, name: str) -> dict[str, Any] | None:
    text = place.read(name)
    if text is None:
        return None
    try:
        recorded = json.loads(text)
    except ValueError as error:
        raise LibraryError(f"{place.location}/{name}: not JSON ({error}); remove it") from error
    if not isinstance(recorded, dict):
        raise LibraryError(f"{place.location}/{name}: found {type(recorded).__name__}; expected an object")
    return recorded


def write_run(place: Place, **facts: str | None) -> None:
    """Record that a run began: its source and shard, and the list of the source's songs (`tables.write_source`)."""
    started = datetime.datetime.now(datetime.UTC)
    run = {**facts, "started": started.isoformat(timespec="seconds")}
    name = f"runs/run-{started.strftime('%Y%m%dT%H%M%S%f')}-{uuid.uuid4().hex[:12]}.json"
    place.write(name, (json.dumps(run) + "\n").encode())


def last_run(place: Place) -> dict[str, Any]:
    """The run that began last; {} if there was none. `LibraryError` if its record is damaged."""
    runs: Sequence[str] = place.files("runs", ".json")
    return (_read_object(place, f"runs/{runs[-1].rpartition('/')[2]}") if runs else None) or {}
