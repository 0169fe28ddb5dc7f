"""A hidden Markov model of beats or bars, decoded exactly."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np

from allin1_core.dbn.chains import make_chains
from allin1_core.dbn.checks import frozen
from allin1_core.dbn.observation_model import (
    ObservationModel,
    RNNBeatTrackingObservationModel,
    RNNDownBeatTrackingObservationModel,
)
from allin1_core.dbn.state_space import BarStateSpace, BeatStateSpace, MeterStateSpace
from allin1_core.dbn.transition_model import (
    BarTransitionModel,
    BeatTransitionModel,
    MeterTransitionModel,
    TransitionModel,
)
from allin1_core.dbn.viterbi import choose_kernel, load_kernel, viterbi

NO_PATH = (
    "no path through the states has more than zero probability: some frame's activations allow neither a beat "
    "nor its absence"
)


class HiddenMarkovModel:
    """Transition and observation model over one state space. Immutable, and safe to use from several threads.

    Parameters
    ----------
    transition_model : TransitionModel
    observation_model : ObservationModel
    initial_distribution : float64 (num_states,), optional
        Probability of each state before the first frame; by default all are equal.
    total : float
        Sum of the initial distribution: 1, or the number of alternatives that each keep their own distribution.

    Raises
    ------
    ValueError
        If the models' numbers of states differ, or the initial distribution is not one over these states.
    """

    def __init__(
        self,
        transition_model: TransitionModel,
        observation_model: ObservationModel,
        initial_distribution: np.ndarray | None = None,
        total: float = 1,
    ) -> None:
        num_states = transition_model.num_states
        if len(observation_model.pointers) != num_states:
            raise ValueError(
                f"observation_model: {len(observation_model.pointers)} states, but transition_model has "
                f"{num_states}; make both from one state space"
            )
        if initial_distribution is None:
            initial = np.ones(num_states) / num_states
        else:
            initial = np.array(initial_distribution, dtype=np.float64)
            if (
                initial.shape != (num_states,)
                or not np.all(initial >= 0)
                or not np.allclose(initial.sum(), total)
            ):
                raise ValueError(
                    f"initial_distribution: shape {initial.shape}, sum {initial.sum():g}; expected "
                    f"probabilities of shape ({num_states},) that sum to {total:g}"
                )
        self.transition_model = transition_model
        self.observation_model = observation_model
        self.initial_distribution = frozen(initial)
        with np.errstate(divide="ignore"):
            self.log_initial = frozen(np.log(initial))
        self.chains = make_chains(transition_model, observation_model.pointers)

    def viterbi(self, observations: Any, *, backend: str = "auto") -> tuple[np.ndarray, float]:
        """Most likely path of states.

        Parameters
        ----------
        observations : float (num_frames, 2) or (num_frames,)
            Activations, as the observation model takes them.
        backend : str
            ``auto``, ``cython`` or ``numpy``.

        Returns
        -------
        path : uint32 (num_frames,)
            Empty, with a RuntimeWarning, if no path has more than zero probability.
        log_probability : float

        Raises
        ------
        ValueError
            If the observations have another shape, no frame, or a value that is no probability.
        BackendError
            If the backend does not exist or is not installed.
        """
        observations = self.observation_model.check(observations)
        path, log_probability = self.decode(observations, None, choose_kernel(backend).backend)
        if log_probability == -np.inf:
            warnings.warn(NO_PATH, RuntimeWarning, stacklevel=2)
        return path, log_probability

    def decode(
        self, observations: np.ndarray, required_beats: np.ndarray | None, backend: str
    ) -> tuple[np.ndarray, float]:
        """As `viterbi`, for checked observations, and silent if there is no path.

        Parameters
        ----------
        required_beats : int (num_frames,), optional
            Frames that must hold the start of a beat; see `allin1_core.dbn.viterbi.viterbi`.
        backend : str
            The kernel that was chosen: ``cython`` or ``numpy``.
        """
        densities = self.observation_model.log_densities(observations)
        return viterbi(load_kernel(backend), self.chains, densities, self.log_initial, required_beats)


@functools.lru_cache(maxsize=128)
def bar_model(
    num_beats: int,
    min_interval: float,
    max_interval: float,
    num_intervals: int | None,
    transition_lambda: float | tuple[float | None, ...] | None,
    observation_lambda: float,
) -> HiddenMarkovModel:
    """The model of bars of `num_beats` beats, made once for each set of parameters.

    See `BarStateSpace`, `BarTransitionModel` and `RNNDownBeatTrackingObservationModel` for these.
    """
    space = BarStateSpace(num_beats, min_interval, max_interval, num_intervals)
    return HiddenMarkovModel(
        BarTransitionModel(space, transition_lambda),
        RNNDownBeatTrackingObservationModel(space, observation_lambda),
    )


@functools.lru_cache(maxsize=128)
def meter_model(
    meters: tuple[int, ...],
    min_interval: float,
    max_interval: float,
    num_intervals: int | None,
    transition_lambda: tuple[float | tuple[float | None, ...] | None, ...],
    observation_lambda: float,
    change_prob: float,
    weights: tuple[float, ...],
) -> HiddenMarkovModel:
    """The model of bars whose length changes, made once for each set of parameters.

    A path begins in bars of each length with the probability that it has in `bar_model`, times the length's weight
    relative to the mean. It is not divided by the number of lengths, so that a path that keeps to one length has the
    log probability that it has alone. See `MeterStateSpace` and `MeterTransitionModel`.
    """
    space = MeterStateSpace(meters, min_interval, max_interval, num_intervals)
    sizes = [bar.num_states for bar in space.bars]
    relative = np.array(weights) / (sum(weights) / len(weights))
    initial = np.concatenate(
        [weight * (np.ones(size) / size) for weight, size in zip(relative, sizes, strict=True)]
    )
    return HiddenMarkovModel(
        MeterTransitionModel(space, transition_lambda, change_prob, weights),
        RNNDownBeatTrackingObservationModel(space, observation_lambda),
        initial,
        len(meters),
    )


@functools.lru_cache(maxsize=128)
def beat_model(
    min_interval: float,
    max_interval: float,
    num_intervals: int | None,
    transition_lambda: float | None,
    observation_lambda: float,
) -> HiddenMarkovModel:
    """The model of a beat after a beat, made once for each set of parameters.

    See `BeatStateSpace`, `BeatTransitionModel` and `RNNBeatTrackingObservationModel` for these.
    """
    space = BeatStateSpace(min_interval, max_interval, num_intervals)
    return HiddenMarkovModel(
        BeatTransitionModel(space, transition_lambda),
        RNNBeatTrackingObservationModel(space, observation_lambda),
    )
