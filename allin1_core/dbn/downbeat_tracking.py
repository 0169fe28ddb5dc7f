"""Downbeat tracking: beats with their positions in the bar, from beat and downbeat activations; decoders by name."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from allin1_core.backends import Choice, choose, get
from allin1_core.dbn.checks import (
    bar_lengths,
    check_times,
    nearest_frames,
    positive_integer,
    positive_number,
    probability,
)
from allin1_core.dbn.decoding import (
    DecodedBeats,
    Span,
    check_path,
    cut_span,
    interval_range,
    number_of_tempi,
    place_beats,
)
from allin1_core.dbn.hidden_markov_model import HiddenMarkovModel, bar_model, meter_model
from allin1_core.dbn.hints import checked_meter_change, checked_weights, required_beats
from allin1_core.dbn.observation_model import parts_of_a_beat
from allin1_core.dbn.posterior import confidences
from allin1_core.dbn.protocol import DecoderBackend
from allin1_core.dbn.state_space import MeterStateSpace
from allin1_core.dbn.transition_model import check_lambda
from allin1_core.dbn.viterbi import choose_kernel
from allin1_core.threads import ThreadPool


class DBNDownBeatTrackingProcessor:
    """Beats and downbeats by a dynamic Bayesian network, one model for each bar length; the likeliest path wins.

    With `meter_change_prob` there is one model of all bar lengths, whose paths may change between them at a bar line.
    The interface, the defaults and every result are those of madmom's class of the same name; what is keyword-only is
    ours, and changes nothing unless given. Models are made once for each set of parameters and shared.

    Parameters
    ----------
    beats_per_bar : int or sequence of int
        Bar lengths to model, in beats.
    min_bpm, max_bpm : float or sequence of float
        Tempo range, in beats per minute.
    num_tempi : int, None or sequence of them
        Number of tempi, spaced logarithmically; None for every whole number of frames a beat.
    transition_lambda : float, None or sequence of them
        The higher, the more a constant tempo is preferred; None forbids a change. An item of a sequence may itself
        be a sequence, with one value for each beat of that bar.
    observation_lambda : int
        Parts of a beat period; the first is the beat.
    threshold : float or None
        Only the span between the first and the last activation that reaches it is decoded; 0 or None for all.
    correct : bool
        Whether beats are moved to the highest activation near them.
    fps : float
        Frames per second; required.
    meter_weights : sequence of float, optional
        Prior weight of each bar length (their sum does not matter); by default all are equal.
    meter_change_prob : float, optional
        Probability that the bar length changes, at each bar line; None or 0 for one bar length throughout.
    num_threads : int
        Bar lengths decoded at a time.
    backend : str
        ``auto``, ``cython`` or ``numpy``.

    Attributes
    ----------
    hmms : list of HiddenMarkovModel
        One for each bar length, or one of them all.
    beats_per_bar : int64 (num_meters,)
    threshold, correct, fps, num_threads
        As given.
    log_weights : float64 (num_models,)
        Log of the prior weight of each model.
    min_bpm, max_bpm : float
        The slowest and the fastest tempo of all.
    choice : allin1_core.backends.Choice
        Which kernel decodes, and why.

    Raises
    ------
    ValueError
        If a parameter is out of range, a sequence has not one item for each bar length, or bars that change are of
        one length alone or have tempi of their own.
    BackendError
        If the backend does not exist or is not installed.

    References
    ----------
    Böck, Krebs and Widmer, "Joint Beat and Downbeat Tracking with Recurrent Neural Networks", ISMIR 2016.
    """

    MIN_BPM = 55.0
    MAX_BPM = 215.0
    NUM_TEMPI = 60
    TRANSITION_LAMBDA = 100
    OBSERVATION_LAMBDA = 16
    THRESHOLD = 0.05
    CORRECT = True

    def __init__(
        self,
        beats_per_bar: int | Sequence[int],
        min_bpm: float | Sequence[float] = MIN_BPM,
        max_bpm: float | Sequence[float] = MAX_BPM,
        num_tempi: int | Sequence[int | None] | None = NUM_TEMPI,
        transition_lambda: Any = TRANSITION_LAMBDA,
        observation_lambda: int = OBSERVATION_LAMBDA,
        threshold: float | None = THRESHOLD,
        correct: bool = CORRECT,
        fps: float | None = None,
        *,
        meter_weights: Sequence[float] | None = None,
        meter_change_prob: float | None = None,
        num_threads: int = 1,
        backend: str = "auto",
    ) -> None:
        self.fps = positive_number("fps", fps, "frames per second")
        meters = bar_lengths(beats_per_bar)
        slowest = _for_each_meter("min_bpm", min_bpm, meters)
        fastest = _for_each_meter("max_bpm", max_bpm, meters)
        intervals = [interval_range(*bpm, float(self.fps)) for bpm in zip(slowest, fastest, strict=True)]
        tempi = [number_of_tempi(value) for value in _for_each_meter("num_tempi", num_tempi, meters)]
        changes = [
            tuple(map(check_lambda, value))
            if isinstance(value, (list, tuple, np.ndarray))
            else check_lambda(value)
            for value in _for_each_meter("transition_lambda", transition_lambda, meters)
        ]
        weights = checked_weights(meter_weights, meters)
        parts = parts_of_a_beat(observation_lambda)  # before models are looked up: others may equal it
        self.hmms: list[HiddenMarkovModel]
        change_prob = checked_meter_change(meter_change_prob, tuple(meters))
        if change_prob:
            if len({*zip(intervals, tempi, strict=True)}) > 1:
                raise ValueError(
                    "min_bpm, max_bpm, num_tempi: one for each bar length; expected the same for all with "
                    "meter_change_prob, as the tempo goes on where the bar length changes"
                )
            space = (tuple(meters), *intervals[0], tempi[0], tuple(changes), parts)
            self.hmms = [meter_model(*space, change_prob, weights or (1.0,) * len(meters))]
        else:
            self.hmms = [
                bar_model(meter, *interval, number, change, parts)
                for meter, interval, number, change in zip(meters, intervals, tempi, changes, strict=True)
            ]
        self.log_weights = np.zeros(len(self.hmms))
        if weights is not None and not change_prob:
            with np.errstate(divide="ignore"):
                self.log_weights = np.log(np.array(weights) / np.sum(weights))
        self.beats_per_bar = np.array(meters)
        self.threshold = probability("threshold", threshold)
        self.correct = correct
        self.num_threads = min(positive_integer("num_threads", num_threads), len(self.hmms))
        self.choice = choose_kernel(backend)
        self.min_bpm = float(np.min(min_bpm))
        self.max_bpm = float(np.max(max_bpm))

    def process(self, activations: Any, *, anchors: Any = None) -> np.ndarray:
        """Beats of activations.

        Parameters
        ----------
        activations : float (num_frames, 2)
            Probabilities of a beat that is no downbeat, and of a downbeat.
        anchors : array_like, optional
            Times of beats that are known, in seconds, ``(num_anchors,)``, or times with positions in the bar,
            ``(num_anchors, 2)`` (position 0: not known). The path is the best of those in which a beat starts in
            each of these frames, whatever the activations say there, and these beats are reported at these frames.

        Returns
        -------
        float64 (num_beats, 2)
            Time in seconds and position in the bar, from 1. ``(0, 2)`` if nothing reaches the threshold, all is 0,
            or no path has more than zero probability (then with a RuntimeWarning).

        Raises
        ------
        ValueError
            If the activations have another shape or hold what is no probability, or no path meets the anchors.
        """
        return self.decode(activations, anchors=anchors).beats

    __call__ = process

    def decode(self, activations: Any, *, anchors: Any = None) -> DecodedBeats:
        """As `process`, with the path, its log probability, the tempo and the bar length it was found with."""
        fps, span = float(self.fps), self._span(activations, anchors)
        if span.is_void:
            none = np.full(len(self.hmms), -np.inf)
            return DecodedBeats(
                np.empty((0, 2)), np.empty(0, np.uint32), -np.inf, np.empty(0), span.first_frame, 0, none
            )
        results = self._decode_meters(span)
        log_probabilities = np.array([log_probability for _, log_probability in results])
        weighted = log_probabilities + self.log_weights
        best = int(np.argmax(weighted))
        path, log_probability = results[best]
        if weighted[best] == -np.inf:  # a bar length of weight 0 is out, even if it alone has a path
            path, log_probability = path[:0], -np.inf
        check_path(log_probability, span, fps, self.min_bpm, self.max_bpm)
        hmm = self.hmms[best]
        beats = beats_of_path(hmm, path, span, self.correct)
        beats[:, 0] = (beats[:, 0] + span.first_frame) / fps
        space = hmm.transition_model.state_space
        return DecodedBeats(
            beats,
            path,
            log_probability,
            60.0 * fps / space.state_intervals[path],
            span.first_frame,
            self._bar_length(best, path),
            log_probabilities,
        )

    def confidences(self, activations: Any, beats: Any, *, anchors: Any = None) -> np.ndarray:
        """How probable beats are, by all frames: what the paths weigh that have one there, of all paths.

        Parameters
        ----------
        activations, anchors
            As of `process`.
        beats : float (num_beats,)
            Times in seconds, ascending; those that were decoded, or any others.

        Returns
        -------
        float64 (num_beats, 2)
            Probability that a beat, and that a downbeat, starts within 0.07 s of each; 0 outside of what is decoded.
            See `allin1_core.dbn.posterior`.

        Raises
        ------
        ValueError
            As `process`, or if the times are not ascending.
        """
        fps, span = float(self.fps), self._span(activations, anchors)
        times = check_times(beats)
        if span.is_void:
            return np.zeros((len(times), 2))
        frames = nearest_frames(times, fps) - span.first_frame
        return confidences(self.hmms, self.log_weights, span.activations, span.required, frames, fps)

    def _span(self, activations: Any, anchors: Any) -> Span:
        """The frames to decode, checked, with the beats that are required among them."""
        array = self.hmms[0].observation_model.check(activations)
        required = None
        if anchors is not None:
            required = required_beats(anchors, float(self.fps), len(array), self.beats_per_bar)
        return cut_span(array, self.threshold, required)

    def _bar_length(self, best: int, path: np.ndarray) -> int:
        space = self.hmms[best].transition_model.state_space
        if len(path) == 0:
            return 0
        if isinstance(space, MeterStateSpace):
            return int(np.bincount(space.state_meters[path]).argmax())
        return int(self.beats_per_bar[best])

    def _decode_meters(self, span: Span) -> list[tuple[np.ndarray, float]]:
        def decode(hmm: HiddenMarkovModel) -> tuple[np.ndarray, float]:
            return hmm.decode(span.activations, span.required, self.choice.backend)

        # The largest model takes longest, so it is begun first.
        order = sorted(range(len(self.hmms)), key=lambda index: -self.hmms[index].chains.num_states)
        with ThreadPool(self.num_threads, "dbn") as pool:
            results = dict(zip(order, pool.map(decode, [self.hmms[index] for index in order]), strict=True))
        return [results[index] for index in range(len(self.hmms))]


def beats_of_path(hmm: HiddenMarkovModel, path: np.ndarray, span: Span, correct: bool) -> np.ndarray:
    """Frame within the span and position in the bar of each beat of a path, ``float64 (num_beats, 2)``."""
    numbers = hmm.transition_model.state_space.state_positions[path].astype(int) + 1
    if correct:
        frames = place_beats(span, hmm.observation_model.pointers[path] >= 1)
    else:
        # As with madmom, a beat in the very first frame is no change of beat and not found.
        frames = np.union1d(np.nonzero(np.diff(numbers))[0] + 1, span.anchored)
    return np.stack([frames.astype(np.float64), numbers[frames]], axis=1)


def _for_each_meter(name: str, value: Any, meters: list[int]) -> list[Any]:
    """One value for each bar length: a single value, or a sequence of one, counts for all of them."""
    if isinstance(value, np.ndarray):
        value = list(np.atleast_1d(value))
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(values) == 1:
        return values * len(meters)
    if len(values) != len(meters):
        raise ValueError(
            f"{name}: {len(values)} values; expected one, or one for each of the {len(meters)} bar lengths "
            f"in beats_per_bar"
        )
    return values


cython_decoder: DecoderBackend = functools.partial(DBNDownBeatTrackingProcessor, backend="cython")
numpy_decoder: DecoderBackend = functools.partial(DBNDownBeatTrackingProcessor, backend="numpy")


def load_decoder(backend: str = "auto") -> tuple[DecoderBackend, Choice]:
    """What makes decoders of that name, and the record of the choice.

    Parameters
    ----------
    backend : str
        ``auto``, ``cython``, ``numpy``, a name from the entry point group ``allin1_core.decoder``, or
        ``module:function``.

    Returns
    -------
    make_decoder : callable
        As in `allin1_core.dbn.protocol`.
    choice : Choice

    Raises
    ------
    BackendError
        If the backend does not exist or is not installed.
    """
    if backend != "auto" and not get("decoder", backend).automatic:
        row, choice = choose("decoder", backend, device="cpu")
        return row.load(), choice
    choice = choose_kernel(backend)
    return get("decoder", choice.backend).load(), choice
