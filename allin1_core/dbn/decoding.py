"""What beat tracking and downbeat tracking share: the span that is decoded, and beats at the peaks of activations."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np

from allin1_core.dbn.checks import positive_integer, positive_number
from allin1_core.dbn.hidden_markov_model import NO_PATH
from allin1_core.errors import HintError


@dataclasses.dataclass(frozen=True, eq=False)
class DecodedBeats:
    """What a decoding found.

    Attributes
    ----------
    beats : float64 (num_beats, 2) or (num_beats,)
        Time in seconds and position in the bar from 1 (`DBNDownBeatTrackingProcessor`), or time alone.
    path : uint32 (num_decoded_frames,)
        State in each decoded frame; empty if there was nothing to decode, or no path.
    log_probability : float
        Of the path, under the model that was chosen; -inf if there is no path.
    tempo : float64 (num_decoded_frames,)
        Tempo of the path in each decoded frame, in beats per minute.
    first_frame : int
        Frame of the activations that `path` and `tempo` start at.
    beats_per_bar : int
        The bar length that was chosen, where it may change that of most frames; 0 if none was.
    log_probabilities : float64 (num_models,)
        Of the best path for each of the bar lengths, without `meter_weights`; of one model of them all a single one.
    """

    beats: np.ndarray
    path: np.ndarray
    log_probability: float
    tempo: np.ndarray
    first_frame: int
    beats_per_bar: int
    log_probabilities: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Span:
    """The frames that are decoded, and the beats that are required among them."""

    activations: np.ndarray
    first_frame: int
    required: np.ndarray | None

    @property
    def is_void(self) -> bool:
        """Whether there is nothing to decode: no activation above 0, and no beat that is required."""
        return self.required is None and not self.activations.any()

    @property
    def anchored(self) -> np.ndarray:
        """Frames, within the span, where a beat is required."""
        return np.zeros(0, dtype=np.int64) if self.required is None else np.nonzero(self.required)[0]


def threshold_activations(activations: np.ndarray, threshold: float) -> tuple[np.ndarray, int]:
    """Cut activations to the span from the first to the last that reach a threshold.

    Parameters
    ----------
    activations : float (num_frames, ...)
    threshold : float

    Returns
    -------
    activations : float (num_kept, ...)
        A view. Empty if none reaches the threshold, and, as with madmom, if only the very first frame does.
    start : int
        Frame that the view starts at; 0 if it is empty.
    """
    frames = np.nonzero(activations >= threshold)[0]
    if not frames.any():
        return activations[:0], 0
    first, last = int(frames[0]), int(frames[-1])
    return activations[first : last + 1], first


def cut_span(activations: np.ndarray, threshold: float, required: np.ndarray | None) -> Span:
    """The span from the first to the last frame that reaches the threshold or must hold a beat."""
    kept, first = threshold_activations(activations, threshold) if threshold else (activations, 0)
    if required is None or not required.any():
        return Span(kept, first, None)
    anchored = np.nonzero(required)[0]
    last = max(first + len(kept) - 1, int(anchored[-1])) if len(kept) else int(anchored[-1])
    first = min(first, int(anchored[0])) if len(kept) else int(anchored[0])
    return Span(activations[first : last + 1], first, required[first : last + 1])


def _runs(inside: np.ndarray) -> np.ndarray:
    """First frame and frame after the last of each run of True, ``int64 (num_runs, 2)``."""
    edges = np.diff(inside.astype(np.int8), prepend=0, append=0)
    return np.nonzero(edges)[0].reshape(-1, 2)


def _peaks(activations: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """Frame of the highest activation in each run of frames, the first of equals, ``int64 (num_runs,)``.

    With two columns both count: a beat is put where either its own activation or the downbeat's is highest.
    """
    if not len(runs):
        return np.empty(0, dtype=np.int64)
    first, lengths = runs[:, 0], runs[:, 1] - runs[:, 0]
    begin = np.cumsum(lengths) - lengths  # of each run among the frames of all
    run = np.repeat(np.arange(len(runs)), lengths)
    frames = np.arange(len(run)) + (first - begin)[run]
    heights = activations[frames]
    if heights.ndim == 2:
        heights = heights.max(axis=1)
    highest = np.flatnonzero(heights == np.maximum.reduceat(heights, begin)[run])
    return frames[highest[np.searchsorted(run[highest], np.arange(len(runs)))]]


def place_beats(span: Span, in_beat: np.ndarray) -> np.ndarray:
    """Frame of the highest activation in each run of `in_beat`; where a beat is required, that frame."""
    found = _runs(in_beat)
    frames = _peaks(span.activations, found)
    for anchor in span.anchored:
        frames[np.searchsorted(found[:, 0], anchor, side="right") - 1] = anchor
    return np.union1d(frames, span.anchored)  # of several in a run each


def check_path(log_probability: float, span: Span, fps: float, min_bpm: float, max_bpm: float) -> None:
    """Where there is no path, raise `HintError` if anchors are the reason, else warn."""
    if log_probability > -np.inf:
        return
    if span.required is None:
        warnings.warn(NO_PATH, RuntimeWarning, stacklevel=4)
        return
    times = span.anchored / fps
    closest = f", the closest two {np.diff(times).min():g} s apart" if len(times) > 1 else ""
    raise HintError(
        f"anchors: no path goes through all {len(times)} of them{closest}; expected times that beats of "
        f"{60 / max_bpm:.3g} to {60 / min_bpm:.3g} s ({min_bpm:g} to {max_bpm:g} BPM) can reach, at positions "
        "that follow from one another, and activations above 0 between them"
    )


def number_of_tempi(num_tempi: int | None) -> int | None:
    """The number of tempi, None for all; `ValueError` if it is neither."""
    return None if num_tempi is None else positive_integer("num_tempi", num_tempi)


def interval_range(min_bpm: float, max_bpm: float, fps: float) -> tuple[float, float]:
    """Shortest and longest beat interval, in frames."""
    positive_number("min_bpm", min_bpm, "beats per minute")
    positive_number("max_bpm", max_bpm, "beats per minute")
    return 60.0 * fps / float(max_bpm), 60.0 * fps / float(min_bpm)
