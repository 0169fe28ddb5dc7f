"""Times and memory of the network on a device: `rows` for the report.

Every backend of the device in both precisions, beside plain torch in ``exact``; of the one that `auto` takes also
batches of equal tracks and an hour.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from allin1_core import backends
from allin1_core.network import Model, NetworkOutput, build_model
from bench.device.timing import times_by_turns
from bench.measure.calls import checkpoints
from parity.agreement import compare_each
from parity.implementations import Implementation, implementations
from parity.material import default_track, shared_folder
from parity.oracles.network_golden import OUTPUTS, read_golden

_AN_HOUR = 3600.0
# For eight folds of the whole track on one of this year's cards, in seconds.
_MUST, _AIM = {"exact": 60e-3, "fast": 40e-3}, {"exact": 25e-3, "fast": 12e-3}
_MUST_MEMORY_GB = 6.0  # for an hour


def rows(
    *,
    device: str = "cuda",
    seconds: float | None = None,
    rounds: int = 7,
    batches: tuple[int, ...] = (4, 8),
    hour: float = _AN_HOUR,
    num_folds: int = 8,
) -> Iterator[dict[str, object]]:
    """Measure the network's backends on a device.

    Parameters
    ----------
    device : str
        ``cuda``, ``cuda:N`` or ``cpu``.
    seconds : float, optional
        Length of the track; by default all of it.
    rounds : int
    batches : tuple of int
        Numbers of equal tracks.
    hour : float
        Length of the longest input in seconds.
    num_folds : int

    Yields
    ------
    dict
        As `bench.device.timing.Times.as_row`, with the largest ``difference`` of a probability from the golden, or from
        plain torch where the track has none, and its ``bound``.
    """
    from allin1_core.spectrogram import log_spectrogram

    track = default_track().lasting(seconds)
    frames = np.asarray(log_spectrogram(track.stems, backend="numpy"))
    kind = device.partition(":")[0]
    models = {
        one: build_model(checkpoints()[:num_folds], **{**vars(one), "device": device})
        for one in sorted(
            implementations("network"), key=lambda one: one != Implementation("torch", "exact", kind)
        )
        if one.on("network") == kind
    }
    found = _each(models, frames, device, rounds, f"{num_folds} folds")
    expected = _golden(track.name) if seconds is None and num_folds == 8 else None
    outputs = {name: row.pop("output") for name, row in found.items()}
    plain = next(iter(outputs.values()))
    for (name, row), one in zip(found.items(), models, strict=True):
        agreements = compare_each(outputs[name], expected or plain, OUTPUTS, allowed=np.inf)
        row["difference"] = max(agreement.max_difference for agreement in agreements.values())
        row["bound"] = backends.get("network", one.backend).bounds[one.precision].anything
    del outputs, plain
    chosen = backends.choose("network", device=device)[1].backend
    ours = {one: model for one, model in models.items() if one.backend == chosen}
    if kind == "cuda" and seconds is None and num_folds == 8:
        for one in ours:
            found[f"{num_folds} folds, {one.backend}, {one.precision}"].update(
                must_seconds=_MUST[one.precision], aim_seconds=_AIM[one.precision]
            )
    yield from found.values()
    single = {one: build_model(checkpoints()[:1], **{**vars(one), "device": device}) for one in ours}
    for row in _each(single, frames, device, rounds, "1 fold").values():
        yield _without_output(row)
    for size in batches:
        batch = np.ascontiguousarray(np.broadcast_to(frames, (size, *frames.shape)))
        for row in _each(ours, batch, device, rounds, f"{num_folds} folds, batch of {size}").values():
            yield {**_without_output(row), "seconds_a_track": float(row["seconds"]) / size}
    long = np.tile(frames, (1, -(-round(hour * 100) // frames.shape[1]), 1))[:, : round(hour * 100)]
    for row in _each(ours, long, device, 3, f"{num_folds} folds, {hour:.0f} s").values():
        limit = {"must_memory_gb": _MUST_MEMORY_GB} if kind == "cuda" else {}
        yield {**_without_output(row), **limit}


def _without_output(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "output"}


def _each(
    models: Mapping[Implementation, Model], frames: np.ndarray, device: str, rounds: int, what: str
) -> dict[str, dict[str, Any]]:
    """Time models by turns on an input that lies on their device; ratios to the first of them, where it is torch."""
    cases: dict[str, Callable[[], NetworkOutput]] = {}
    for one, model in models.items():
        native = model._network.as_native(frames)
        cases[f"{what}, {one.backend}, {one.precision}"] = functools.partial(model, native)
    times = times_by_turns(cases, device, rounds)
    first = next(iter(times))
    return {
        name: {
            **taken.as_row(name, times[first] if name != first and ", torch, exact" in first else None),
            "device": device,
            "output": taken.output.to_numpy(),
        }
        for name, taken in times.items()
    }


def _golden(track: str) -> Mapping[str, np.ndarray] | None:
    folder = shared_folder()
    if folder is None or not (folder / "golden" / f"{track}.npz").is_file():
        return None
    return read_golden(folder, track)
