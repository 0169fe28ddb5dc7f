"""Measurements of the decoder's other forms: beside madmom's, or, where it has none, beside plain decoding."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from allin1_core.dbn import (
    DBNBarTrackingProcessor,
    DBNBeatTrackingProcessor,
    DBNDownBeatTrackingProcessor,
    OnlineDownBeatTracker,
    activations_at_beats,
)
from bench.gate.cases import Case, madmom_name
from parity.agreement import largest_difference
from parity.inputs.activations import FPS, steady
from parity.oracles import madmom_dbn

Sides = tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]


def _online(seconds: float, frames: int, backend: str) -> Sides:
    activations = steady(seconds).sum(axis=1)
    pieces = [activations[first : first + frames] for first in range(0, len(activations), frames)]

    def through(decoder: Callable[..., np.ndarray]) -> np.ndarray:
        return np.concatenate([decoder(piece, reset=piece is pieces[0]) for piece in pieces])

    ours = DBNBeatTrackingProcessor(fps=FPS, online=True, backend=backend)
    madmom = madmom_dbn.make_online_decoder(fps=FPS)
    return functools.partial(through, ours), functools.partial(through, madmom)


def _bars_on_beats(backend: str) -> Sides:
    activations = steady(250)
    beats = _plain([4], backend)(activations)[:, 0]
    rows = activations_at_beats(beats, activations[:, 1], FPS)
    ours, madmom = DBNBarTrackingProcessor(backend=backend), madmom_dbn.make_bar_tracker()
    return lambda: ours(rows), lambda: madmom(rows)


def _plain(meters: list[int], backend: str, **hints: Any) -> DBNDownBeatTrackingProcessor:
    return DBNDownBeatTrackingProcessor(meters, fps=FPS, threshold=0, backend=backend, **hints)


def _beside_plain(
    prepare: Callable[[DBNDownBeatTrackingProcessor, np.ndarray], Callable[[], np.ndarray]],
    seconds: float,
    backend: str,
) -> Sides:
    plain, activations = _plain([3, 4], backend), steady(seconds)
    return prepare(plain, activations), lambda: plain(activations)


def _hints(plain: DBNDownBeatTrackingProcessor, activations: np.ndarray) -> Callable[[], np.ndarray]:
    anchors = plain(activations)[::20]
    return lambda: plain(activations, anchors=anchors)


def _changing_bars(plain: DBNDownBeatTrackingProcessor, activations: np.ndarray) -> Callable[[], np.ndarray]:
    changing = _plain([3, 4], plain.choice.backend, meter_change_prob=1e-3)
    return lambda: changing(activations)


def _confidences(plain: DBNDownBeatTrackingProcessor, activations: np.ndarray) -> Callable[[], np.ndarray]:
    times = plain(activations)[:, 0]
    return lambda: plain.confidences(activations, times)


def _online_downbeats(
    plain: DBNDownBeatTrackingProcessor, activations: np.ndarray
) -> Callable[[], np.ndarray]:
    online = OnlineDownBeatTracker(plain, delay=2)
    pieces = [activations[first : first + 10] for first in range(0, len(activations), 10)]
    return lambda: np.concatenate([*map(online, pieces), online.finish()])


# By what the bench's variants begin with. Those beside madmom return what madmom returns.
_BESIDE_MADMOM: dict[str, Callable[[str], Sides]] = {
    "online, all frames together": functools.partial(_online, 30, 3000),
    "online, one frame a call": functools.partial(_online, 10, 1),
    "bars on": _bars_on_beats,
}
OURS_ALONE: dict[str, Callable[[str], Sides]] = {
    "hints": functools.partial(_beside_plain, _hints, 60),
    "bars that change": functools.partial(_beside_plain, _changing_bars, 60),
    "confidences": functools.partial(_beside_plain, _confidences, 20),
    "online downbeats": functools.partial(_beside_plain, _online_downbeats, 20),
}
FORMS = {**_BESIDE_MADMOM, **OURS_ALONE}


def form_case(backend: str, form: str) -> Case:
    """One of `FORMS` on one thread."""
    candidate, reference = FORMS[form](backend)
    oracle = "plain decoding" if form in OURS_ALONE else madmom_name()
    return Case(
        "decoder", backend, "exact", 1, candidate, reference, largest_difference, oracle, variant=form
    )
