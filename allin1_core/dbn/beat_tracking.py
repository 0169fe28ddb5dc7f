"""Beat tracking: beats from beat activations."""

from __future__ import annotations

from typing import Any

import numpy as np

from allin1_core.dbn.anchors import required_beats
from allin1_core.dbn.checks import check_threshold, positive_number
from allin1_core.dbn.decoding import DecodedBeats, check_path, cut_span, interval_range, place_beats
from allin1_core.dbn.hidden_markov_model import beat_model
from allin1_core.dbn.viterbi import choose_kernel


class DBNBeatTrackingProcessor:
    """Beats by a dynamic Bayesian network, without bars: offline decoding as madmom's class of the same name.

    Parameters
    ----------
    min_bpm, max_bpm, num_tempi, transition_lambda, observation_lambda, correct, threshold, fps, backend
        As of `DBNDownBeatTrackingProcessor`, one value each. By default all tempi are modelled, and all frames are
        decoded.

    Attributes
    ----------
    hmm : HiddenMarkovModel
    choice : allin1_core.backends.Choice
        Which kernel decodes, and why.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    BackendError
        If the backend does not exist or is not installed.

    References
    ----------
    Böck, Krebs and Widmer, "A Multi-Model Approach to Beat Tracking Considering Heterogeneous Music Styles",
    ISMIR 2014.
    """

    MIN_BPM = 55.0
    MAX_BPM = 215.0
    NUM_TEMPI = None
    TRANSITION_LAMBDA = 100
    OBSERVATION_LAMBDA = 16
    THRESHOLD = 0
    CORRECT = True

    def __init__(
        self,
        min_bpm: float = MIN_BPM,
        max_bpm: float = MAX_BPM,
        num_tempi: int | None = NUM_TEMPI,
        transition_lambda: float = TRANSITION_LAMBDA,
        observation_lambda: int = OBSERVATION_LAMBDA,
        correct: bool = CORRECT,
        threshold: float | None = THRESHOLD,
        fps: float | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        self.fps = positive_number("fps", fps, "frames per second")
        intervals = interval_range(min_bpm, max_bpm, float(self.fps))
        self.hmm = beat_model(*intervals, num_tempi, transition_lambda, observation_lambda)
        self.correct = correct
        self.threshold = check_threshold(threshold)
        self.min_bpm = min_bpm
        self.max_bpm = max_bpm
        self.choice = choose_kernel(backend)[1]

    def __call__(self, activations: Any, *, anchors: Any = None) -> np.ndarray:
        """As `process`."""
        return self.process(activations, anchors=anchors)

    def process(self, activations: Any, *, anchors: Any = None) -> np.ndarray:
        """Beats of activations.

        Parameters
        ----------
        activations : float (num_frames,)
            Probability of a beat.
        anchors : array_like, optional
            Times in seconds that beats must start at; see `DBNDownBeatTrackingProcessor.process`.

        Returns
        -------
        float64 (num_beats,)
            Times in seconds; empty as in `DBNDownBeatTrackingProcessor.process`.

        Raises
        ------
        ValueError
            If the activations have another shape or hold what is no probability, or no path meets the anchors.
        """
        return self.decode(activations, anchors=anchors).beats

    def decode(self, activations: Any, *, anchors: Any = None) -> DecodedBeats:
        """As `process`, with the path, its log probability and the tempo."""
        array = self.hmm.observation_model.check(activations)
        fps = float(self.fps)
        required = None if anchors is None else required_beats(anchors, fps, len(array), [1])
        span = cut_span(array, self.threshold, required)
        path, log_probability = np.empty(0, np.uint32), -np.inf
        if span.required is not None or span.activations.any():
            path, log_probability = self.hmm.decode(span.activations, span.required, self.choice.backend)
            check_path(log_probability, span, fps, self.min_bpm, self.max_bpm)
        space = self.hmm.transition_model.state_space
        in_beat = self.hmm.observation_model.pointers[path] == 1
        if not path.any():
            # As with madmom, a path that never leaves state 0 (of a single frame) has no beats.
            frames = np.zeros(0, dtype=np.int64)
        elif self.correct:
            frames = place_beats(span, in_beat)
        else:
            positions = space.state_positions[path]
            lowest = (positions < np.roll(positions, 1)) & (positions < np.roll(positions, -1))
            frames = np.union1d(np.nonzero(lowest & in_beat)[0], span.anchored)
        return DecodedBeats(
            (frames + span.first_frame) / fps,
            path,
            log_probability,
            60.0 * fps / space.state_intervals[path],
            span.first_frame,
            int(len(path) > 0),
            np.array([log_probability]),
        )
