"""Observation model: log densities of an activation under non-beat, beat and downbeat states.

A beat period is split into `observation_lambda` parts; states in the first see the beat (in the first beat of a
bar, the downbeat) activation, the others what is left of 1, spread over the remaining parts.

Böck, Krebs and Widmer, "A Multi-Model Approach to Beat Tracking Considering Heterogeneous Music Styles", ISMIR
2014, and "Joint Beat and Downbeat Tracking with Recurrent Neural Networks", ISMIR 2016.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from allin1_core.dbn.checks import check_activations, frozen, real_number
from allin1_core.dbn.state_space import BarStateSpace, BeatStateSpace, MeterStateSpace


def parts_of_a_beat(value: float) -> float:
    """`observation_lambda` as an int or float; `ValueError` if it is no number of at least 1."""
    real_number(
        "observation_lambda", value, "a number of parts of a beat, at least 1", lambda number: number >= 1
    )
    # Of Python's types: numpy's would decide the precision of logarithms.
    return int(value) if isinstance(value, (int, np.integer)) else float(value)


class ObservationModel:
    """What the observation models share: which column of `log_densities` each state sees.

    Attributes
    ----------
    observation_lambda : float
    pointers : uint32 (num_states,)
    num_columns : int or None
        Columns of the activations; None for one-dimensional activations.
    """

    num_columns: int | None

    def __init__(self, pointers: np.ndarray, observation_lambda: float) -> None:
        self.observation_lambda = observation_lambda
        self.pointers = frozen(pointers)

    def log_densities(self, observations: np.ndarray) -> np.ndarray:
        """Log densities ``float64 (num_frames, num_densities)``."""
        raise NotImplementedError

    def check(self, observations: Any) -> np.ndarray:
        """The observations as an array; see `allin1_core.dbn.checks.check_activations` for what is raised."""
        return check_activations(observations, self.num_columns)


class RNNBeatTrackingObservationModel(ObservationModel):
    """Observation model of `BeatStateSpace`: column 0 is non-beat, column 1 is beat.

    Parameters
    ----------
    state_space : BeatStateSpace
    observation_lambda : float
        Parts of a beat period; the first is the beat.
    """

    num_columns = None

    def __init__(self, state_space: BeatStateSpace, observation_lambda: float) -> None:
        parts = parts_of_a_beat(observation_lambda)
        super().__init__((state_space.state_positions < 1.0 / parts).astype(np.uint32), parts)

    def log_densities(self, observations: np.ndarray) -> np.ndarray:
        """Log densities of beat activations.

        Parameters
        ----------
        observations : float (num_frames,)
            Beat probabilities. Logarithms are taken in their precision.

        Returns
        -------
        float64 (num_frames, 2)
            Of non-beat and beat; -inf where an activation is exactly 1 or 0.
        """
        return beat_log_densities(observations, self.observation_lambda)


def beat_log_densities(observations: np.ndarray, observation_lambda: float) -> np.ndarray:
    """As `RNNBeatTrackingObservationModel.log_densities`, for any states that see beat or non-beat."""
    densities = np.empty((len(observations), 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        densities[:, 0] = np.log((1.0 - observations) / (observation_lambda - 1))
        densities[:, 1] = np.log(observations)
    return densities


class RNNDownBeatTrackingObservationModel(ObservationModel):
    """Observation model of `BarStateSpace` and `MeterStateSpace`: column 0 is non-beat, 1 is beat, 2 is downbeat.

    Parameters
    ----------
    state_space : BarStateSpace or MeterStateSpace
    observation_lambda : float
        Parts of a beat period; the first is the beat.
    """

    num_columns = 2

    def __init__(self, state_space: BarStateSpace | MeterStateSpace, observation_lambda: float) -> None:
        parts = parts_of_a_beat(observation_lambda)
        border = 1.0 / parts
        positions = state_space.state_positions
        # Adding the beat's number rounds, so the border can lie one state later in one beat than in another.
        pointers = (positions % 1 < border).astype(np.uint32)
        pointers[positions < border] = 2
        super().__init__(pointers, parts)

    def log_densities(self, observations: np.ndarray) -> np.ndarray:
        """Log densities of beat and downbeat activations.

        Parameters
        ----------
        observations : float (num_frames, 2)
            Probabilities of a beat that is no downbeat, and of a downbeat. Logarithms are taken in their precision.

        Returns
        -------
        float64 (num_frames, 3)
            Of non-beat, beat and downbeat. -inf where an activation is exactly 0, and for non-beat where the two
            sum to 1; NaN where they sum to more, which the decoder takes for -inf.
        """
        densities = np.empty((len(observations), 3))
        with np.errstate(divide="ignore", invalid="ignore"):
            no_beat = 1.0 - np.sum(observations, axis=1)
            densities[:, 0] = np.log(no_beat / (self.observation_lambda - 1))
            densities[:, 1] = np.log(observations[:, 0])
            densities[:, 2] = np.log(observations[:, 1])
        return densities
