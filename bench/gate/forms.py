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
from bench.gate.cases import Case
from parity.agreement import largest_difference
from parity.inputs.activations import FPS, steady
from parity.oracles import madmom_dbn

Sides = tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]


def _online(together: bool, seconds: float, backend: str) -> Sides:
    activations = steady(seconds).sum(axis=1)
    pieces = [activations] if together else list(activations[:, np.newaxis])

    def through(decoder: Callable[..., np.ndarray]) -> np.ndarray:
        return np.concatenate([decoder(piece, reset=piece is pieces[0]) for piece in pieces])

    ours = DBNBeatTrackingProcessor(fps=FPS, online=True, backend=backend)
    madmom = madmom_dbn.make_online_decoder(fps=FPS)
    return functools.partial(through, ours), functools.partial(through, madmom)


def _bars_on_beats(seconds: float, backend: str) -> Sides:
    activations = steady(seconds)
    beats = plain_decoder([4], backend)(activations)[:, 0]
    rows = activations_at_beats(beats, activations[:, 1], FPS)
    ours, madmom = DBNBarTrackingProcessor(backend=backend), madmom_dbn.make_bar_tracker()
    return lambda: ours(rows), lambda: madmom(rows)


def plain_decoder(meters: list[int], backend: str, **hints: Any) -> DBNDownBeatTrackingProcessor:
    """What the forms that madmom has not are beside: every frame decoded, at no threshold."""
    return DBNDownBeatTrackingProcessor(meters, fps=FPS, threshold=0, backend=backend, **hints)


def _beside_plain(
    prepare: Callable[[DBNDownBeatTrackingProcessor, np.ndarray], Callable[[], np.ndarray]],
    seconds: float,
    backend: str,
) -> Sides:
    plain, activations = plain_decoder([3, 4], backend), steady(seconds)
    return prepare(plain, activations), lambda: plain(activations)


def _hints(plain: DBNDownBeatTrackingProcessor, activations: np.ndarray) -> Callable[[], np.ndarray]:
    anchors = moved_anchors(plain(activations))
    return lambda: plain(activations, anchors=anchors)


def moved_anchors(beats: np.ndarray) -> np.ndarray:
    """Every twentieth beat, three frames later: none that is decoded without being asked for."""
    return np.add(beats[::20], [3 / FPS, 0])


def _changing_bars(plain: DBNDownBeatTrackingProcessor, activations: np.ndarray) -> Callable[[], np.ndarray]:
    changing = plain_decoder([3, 4], plain.choice.backend, meter_change_prob=1e-3)
    return lambda: changing(activations)


def _confidences(plain: DBNDownBeatTrackingProcessor, activations: np.ndarray) -> Callable[[], np.ndarray]:
    times = plain(activations)[:, 0]
    return lambda: plain.confidences(activations, times)


def _online_downbeats(
    plain: DBNDownBeatTrackingProcessor, activations: np.ndarray
) -> Callable[[], np.ndarray]:
    return functools.partial(through_online, OnlineDownBeatTracker(plain, delay=2), activations)


def through_online(online: OnlineDownBeatTracker, activations: np.ndarray) -> np.ndarray:
    """All beats, of ten frames a call."""
    pieces = np.split(activations, range(10, len(activations), 10))
    return np.concatenate([*map(online, pieces), online.finish()])


# By what the bench's variants begin with: the gate's length in seconds, and what makes the two sides. Those beside
# madmom return what madmom returns.
_BESIDE_MADMOM: dict[str, tuple[float, Callable[[float, str], Sides]]] = {
    "online, all frames together": (30, functools.partial(_online, True)),
    "online, one frame a call": (10, functools.partial(_online, False)),
    "bars on": (250, _bars_on_beats),
}
OURS_ALONE: dict[str, tuple[float, Callable[[float, str], Sides]]] = {
    "hints": (60, functools.partial(_beside_plain, _hints)),
    "bars that change": (60, functools.partial(_beside_plain, _changing_bars)),
    "confidences": (20, functools.partial(_beside_plain, _confidences)),
    "online downbeats": (20, functools.partial(_beside_plain, _online_downbeats)),
}
FORMS = {**_BESIDE_MADMOM, **OURS_ALONE}


def form_case(backend: str, form: str, seconds: float | None = None) -> Case:
    """One of `FORMS` on one thread, of the gate's length unless another is given."""
    shortest, sides = FORMS[form]
    candidate, reference = sides(seconds or shortest, backend)
    oracle = "our own [3, 4] without it" if form in OURS_ALONE else madmom_dbn.oracle_name()
    return Case(
        "decoder", backend, "exact", 1, candidate, reference, largest_difference, oracle, variant=form
    )
