"""madmom's decoder, as an oracle and as a decoder backend (``parity.oracles.madmom_dbn:make_decoder``)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from parity.decoder_agreement import DecoderAgreement
from parity.oracles.madmom_import import import_madmom, madmom_version
from parity.reports.records import ParityRecord, ParityRecorder


def oracle_name() -> str:
    """For records: "madmom 0.17.post1"."""
    return f"madmom {madmom_version()}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """madmom lets numpy warn about every logarithm of 0, and warns where it finds no path."""
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "-inf log probability", RuntimeWarning)
        yield


class _Model:
    """One of madmom's hidden Markov models, silent."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.transition_model = model.transition_model
        self.observation_model = model.observation_model

    def viterbi(self, observations: np.ndarray) -> tuple[np.ndarray, float]:
        with quiet():
            path, log_probability = self.model.viterbi(observations)
        return path, float(log_probability)


class _Recorder:
    """Stands in for a model while a processor decodes with it, and keeps what it found."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.found: tuple[np.ndarray, float] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def viterbi(self, observations: np.ndarray) -> tuple[np.ndarray, float]:
        path, log_probability = self.model.viterbi(observations)
        self.found = (path, float(log_probability))
        return path, log_probability


class _Processor:
    """One of madmom's processors, silent, with the models that it decodes by."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.several = hasattr(processor, "hmms")
        self.hmms = [_Model(model) for model in (processor.hmms if self.several else [processor.hmm])]

    def __call__(self, activations: np.ndarray) -> np.ndarray:
        with quiet():
            # Where there are no beats, madmom's array is one of integers.
            return np.asarray(self.processor(activations), dtype=np.float64)

    def decode_all(self, activations: np.ndarray) -> tuple[np.ndarray, list[tuple[np.ndarray, float]]]:
        """Beats, and path and log probability for every bar length, from one decoding; no paths if it ended early."""
        recorders = [_Recorder(model.model) for model in self.hmms]
        try:
            self._use(recorders)
            beats = self(activations)
        finally:
            self._use([model.model for model in self.hmms])
        return beats, [recorder.found for recorder in recorders if recorder.found is not None]

    def _use(self, models: list[Any]) -> None:
        if self.several:
            self.processor.hmms = models
        else:
            self.processor.hmm = models[0]


def make_decoder(**parameters: Any) -> _Processor:
    """madmom's DBNDownBeatTrackingProcessor with these parameters."""
    import_madmom()
    from madmom.features.downbeats import DBNDownBeatTrackingProcessor

    return _Processor(DBNDownBeatTrackingProcessor(**parameters))


@contextlib.contextmanager
def decoder_in_processes(number: int, **parameters: Any) -> Iterator[_Processor]:
    """As `make_decoder`, with bar lengths decoded in so many processes, which end with the block."""
    decoder = make_decoder(**parameters, num_threads=number)
    with decoder.processor.map.__self__:
        yield decoder


def make_beat_decoder(**parameters: Any) -> _Processor:
    """madmom's DBNBeatTrackingProcessor with these parameters."""
    import_madmom()
    from madmom.features.beats import DBNBeatTrackingProcessor

    return _Processor(DBNBeatTrackingProcessor(**parameters))


class _OnlineProcessor(_Processor):
    """madmom's online decoder, silent, with the state that it keeps."""

    def __call__(self, activations: np.ndarray, reset: bool = True) -> np.ndarray:
        with quiet():
            return np.asarray(self.processor(activations, reset=reset))

    @property
    def hmm(self) -> Any:
        return self.processor.hmm

    @property
    def tempo(self) -> float:
        return float(self.processor.tempo)

    @property
    def last_beat(self) -> float:
        return float(self.processor.last_beat)


def make_online_decoder(**parameters: Any) -> _OnlineProcessor:
    """madmom's DBNBeatTrackingProcessor with these parameters, online."""
    import_madmom()
    from madmom.features.beats import DBNBeatTrackingProcessor

    return _OnlineProcessor(DBNBeatTrackingProcessor(**{**parameters, "online": True}))


def make_bar_tracker(**parameters: Any) -> Callable[[np.ndarray], np.ndarray]:
    """madmom's DBNBarTrackingProcessor with these parameters; not silent."""
    import_madmom()
    from madmom.features.downbeats import DBNBarTrackingProcessor

    tracker: Callable[[np.ndarray], np.ndarray] = DBNBarTrackingProcessor(**parameters)
    return tracker


def track_bars(rows: np.ndarray, **parameters: Any) -> np.ndarray:
    """Bars on given beats by madmom's DBNBarTrackingProcessor."""
    with quiet():
        return np.asarray(make_bar_tracker(**parameters)(rows))


def bar_model(
    num_beats: int,
    min_interval: float,
    max_interval: float,
    num_intervals: int | None,
    transition_lambda: Any,
    observation_lambda: int,
) -> _Model:
    """madmom's model of a bar, from its parts: the way to one lambda for each beat."""
    import_madmom()
    from madmom.features import beats_hmm
    from madmom.ml.hmm import HiddenMarkovModel

    space = beats_hmm.BarStateSpace(num_beats, min_interval, max_interval, num_intervals)
    return _Model(
        HiddenMarkovModel(
            beats_hmm.BarTransitionModel(space, transition_lambda),
            beats_hmm.RNNDownBeatTrackingObservationModel(space, observation_lambda),
        )
    )


def meter_model(
    meters: Sequence[int],
    intervals: tuple[float, float, int | None],
    transition_lambda: float,
    change_prob: float,
    weights: Sequence[float],
) -> _Model:
    """madmom's Viterbi over bars of several lengths: its states and tempo changes of each, put side by side.

    From the last beat of a bar to the first of one of the same length with probability 1 - c, to one of another with c
    times that length's share of the others' weight.
    """
    import_madmom()
    from madmom.features import beats_hmm
    from madmom.ml.hmm import HiddenMarkovModel, TransitionModel

    spaces = [beats_hmm.BarStateSpace(meter, *intervals) for meter in meters]
    starts = np.cumsum([0, *(space.num_states for space in spaces)])
    transitions: list[tuple[int, int, float]] = []
    for meter, (space, start) in enumerate(zip(spaces, starts, strict=False)):
        model = beats_hmm.BarTransitionModel(space, transition_lambda)
        for state in range(space.num_states):
            leading = range(model.pointers[state], model.pointers[state + 1])
            if state not in space.first_states[0]:
                transitions += [
                    (start + state, start + model.states[i], model.probabilities[i]) for i in leading
                ]
                continue
            last, tempo = space.last_states[-1].tolist(), [model.probabilities[i] for i in leading]
            from_intervals = [last.index(model.states[i]) for i in leading]
            for other, (before, offset) in enumerate(zip(spaces, starts, strict=False)):
                share = weights[meter] / sum(weights[one] for one in range(len(meters)) if one != other)
                kept = 1 - change_prob if other == meter else change_prob * share
                transitions += [
                    (start + state, offset + before.last_states[-1][i], kept * probability)
                    for i, probability in zip(from_intervals, tempo, strict=True)
                ]
    states, origins, probabilities = (np.array(column) for column in zip(*transitions, strict=True))
    found = probabilities > 0
    side_by_side = SimpleNamespace(
        num_states=int(starts[-1]),
        state_positions=np.concatenate([space.state_positions for space in spaces]),
    )
    model = HiddenMarkovModel(
        TransitionModel.from_dense(states[found], origins[found], probabilities[found]),
        beats_hmm.RNNDownBeatTrackingObservationModel(side_by_side, 16),
    )
    # Each bar length begins as if it was alone, which madmom lets only be set afterwards.
    mean = sum(weights) / len(weights)
    model.initial_distribution = np.concatenate(
        [
            np.full(space.num_states, weight / mean / space.num_states)
            for space, weight in zip(spaces, weights, strict=True)
        ]
    )
    return _Model(model)


def downbeat_activations(signal: np.ndarray) -> np.ndarray:
    """What madmom's RNNDownBeatProcessor makes of mono at 44.1 kHz, ``float32 (T, 2)``, 100 frames a second."""
    import_madmom()
    from madmom.audio.signal import Signal
    from madmom.features.downbeats import RNNDownBeatProcessor

    with quiet():
        return np.asarray(RNNDownBeatProcessor()(Signal(signal, sample_rate=44100, num_channels=1)))


def require_identical(
    record: ParityRecorder, case: str, kind: str, backend: str, agreement: DecoderAgreement
) -> None:
    """Record a comparison of a decoder with madmom's; `AssertionError` if the two differ."""
    record(
        ParityRecord(
            "decoder",
            case,
            oracle_name(),
            backend,
            "cpu",
            "exact",
            "bit-identical",
            agreement.identical,
            {"kind": kind, **agreement.measures()},
        )
    )
    if not agreement.identical:
        raise AssertionError(f"{backend}, {case}: {agreement}")
