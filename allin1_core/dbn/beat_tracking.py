"""Beat tracking: beats from beat activations."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from allin1_core.dbn.checks import positive_number, probability
from allin1_core.dbn.decoding import (
    DecodedBeats,
    check_path,
    cut_span,
    interval_range,
    number_of_tempi,
    place_beats,
)
from allin1_core.dbn.hidden_markov_model import NO_PATH, beat_model
from allin1_core.dbn.hints import required_beats
from allin1_core.dbn.observation_model import parts_of_a_beat
from allin1_core.dbn.transition_model import check_lambda
from allin1_core.dbn.viterbi import choose_kernel, load_kernel


class DBNBeatTrackingProcessor:
    """Beats by a dynamic Bayesian network, without bars: offline and online as madmom's class of the same name.

    Offline, the beats are those of the likeliest path through all frames. Online, they follow from the state that is
    likeliest after each frame, by what was seen up to it (forward algorithm). A decoder that is online keeps its place
    in a stream: each stream needs one of its own.

    Parameters
    ----------
    min_bpm, max_bpm, num_tempi, transition_lambda, observation_lambda, correct, threshold, fps, backend
        As of `DBNDownBeatTrackingProcessor`, one value each. By default all tempi are modelled, and all frames are
        decoded.
    online : bool
        Whether `process` decodes online. `correct` and `threshold` are for decoding offline only.

    Attributes
    ----------
    hmm : HiddenMarkovModel
    choice : allin1_core.backends.Choice
        Which kernel decodes, and why.
    last_beat, tempo : float
        Online: time of the last beat in seconds, and beats per minute from the one before it; 0 before the first.

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
        online: bool = False,
        *,
        backend: str = "auto",
    ) -> None:
        self.fps = positive_number("fps", fps, "frames per second")
        intervals = interval_range(min_bpm, max_bpm, float(self.fps))
        self.hmm = beat_model(
            *intervals,
            number_of_tempi(num_tempi),
            check_lambda(transition_lambda),
            parts_of_a_beat(observation_lambda),
        )
        self.correct = correct
        self.threshold = probability("threshold", threshold)
        self.min_bpm = min_bpm
        self.max_bpm = max_bpm
        self.choice = choose_kernel(backend)
        self.online = online
        if online:
            algorithm = load_kernel(self.choice.backend, "ForwardAlgorithm")
            self._forward = algorithm(self.hmm.chains, self.hmm.transition_model.beat_transitions[0])
            self._in_beat = self.hmm.observation_model.pointers.astype(np.uint8).tobytes()
            self.reset()

    def process(self, activations: Any, reset: bool = True, *, anchors: Any = None) -> np.ndarray:
        """As `process_online` for an online decoder, else, whatever `reset` is, as `process_offline`.

        Raises
        ------
        ValueError
            As there, and if an online decoder is given anchors.
        """
        if not self.online:
            return self.process_offline(activations, anchors=anchors)
        if anchors is not None:
            raise ValueError(
                "anchors: given to an online decoder; expected None, or a call of process_offline"
            )
        return self.process_online(activations, reset)

    __call__ = process

    def reset(self) -> None:
        """Begin another stream.

        Raises
        ------
        ValueError
            If the decoder is not online.
        """
        if not self.online:
            raise ValueError(
                "online: False; expected a decoder made with online=True, which alone has a state"
            )
        self._forward.reset()
        self._num_frames = 0
        self._lost = False
        self.last_beat = self.tempo = 0.0

    def process_online(self, activations: Any, reset: bool = True) -> np.ndarray:
        """Beats in the next frames of a stream, by what was seen up to each.

        Parameters
        ----------
        activations : float or float (num_frames,)
            Probability of a beat, of one frame or several. Logarithms are taken in their precision.
        reset : bool
            Whether a stream begins with these frames; False to go on.

        Returns
        -------
        float64 (num_beats,)
            Times in seconds from the beginning of the stream; of beats closer than `max_bpm` allows the first. As with
            madmom there is none before ``60 / max_bpm``.

        Raises
        ------
        ValueError
            If the decoder is not online, or the activations have another shape or hold what is no probability.
        """
        if reset or not self.online:
            self.reset()
        if not isinstance(activations, np.ndarray):
            activations = np.array(activations, ndmin=1)
        model = self.hmm.observation_model
        state = self._forward.advance_one(activations, model.observation_lambda)
        if state is not None:
            num_frames, heard = 1, [0] if self._in_beat[state] else []
        else:
            activations = model.check(activations)
            states = self._forward.advance(np.exp(model.log_densities(activations)))
            num_frames, heard = len(states), np.flatnonzero(model.pointers[states]).tolist()
        if self._forward.is_lost and not self._lost:
            self._lost = True
            warnings.warn(
                f"{NO_PATH}. As with madmom, every frame is one of a beat from here on, until the decoder is reset; "
                "keep activations above 0 and below 1",
                RuntimeWarning,
                stacklevel=2,
            )
        beats = []
        for frame in heard:
            time = (self._num_frames + frame) / float(self.fps)
            if time >= self.last_beat + 60.0 / self.max_bpm:
                self.tempo = 60.0 / (time - self.last_beat)
                self.last_beat = time
                beats.append(time)
        self._num_frames += num_frames
        return np.array(beats) if beats else np.empty(0)

    process_forward = process_online

    def process_offline(self, activations: Any, *, anchors: Any = None) -> np.ndarray:
        """Beats of activations, by all of them.

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

    process_viterbi = process_offline

    def decode(self, activations: Any, *, anchors: Any = None) -> DecodedBeats:
        """As `process_offline`, with the path, its log probability and the tempo."""
        array = self.hmm.observation_model.check(activations)
        fps = float(self.fps)
        required = None if anchors is None else required_beats(anchors, fps, len(array), [1])
        span = cut_span(array, self.threshold, required)
        path, log_probability = np.empty(0, np.uint32), -np.inf
        if not span.is_void:
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
