"""Beats and downbeats from activations: madmom's dynamic Bayesian network, decoded exactly and much faster."""

from allin1_core.dbn.bar_tracking import DBNBarTrackingProcessor, activations_at_beats
from allin1_core.dbn.beat_tracking import DBNBeatTrackingProcessor
from allin1_core.dbn.decoding import DecodedBeats, threshold_activations
from allin1_core.dbn.downbeat_tracking import DBNDownBeatTrackingProcessor, load_decoder
from allin1_core.dbn.hidden_markov_model import HiddenMarkovModel
from allin1_core.dbn.observation_model import (
    RNNBeatTrackingObservationModel,
    RNNDownBeatTrackingObservationModel,
)
from allin1_core.dbn.online_downbeats import OnlineDownBeatTracker
from allin1_core.dbn.state_space import BarStateSpace, BeatStateSpace, MeterStateSpace
from allin1_core.dbn.transition_model import (
    BarTransitionModel,
    BeatTransitionModel,
    MeterTransitionModel,
    exponential_transition,
)

__all__ = [
    "BarStateSpace",
    "BarTransitionModel",
    "BeatStateSpace",
    "BeatTransitionModel",
    "DBNBarTrackingProcessor",
    "DBNBeatTrackingProcessor",
    "DBNDownBeatTrackingProcessor",
    "DecodedBeats",
    "HiddenMarkovModel",
    "MeterStateSpace",
    "MeterTransitionModel",
    "OnlineDownBeatTracker",
    "RNNBeatTrackingObservationModel",
    "RNNDownBeatTrackingObservationModel",
    "activations_at_beats",
    "exponential_transition",
    "load_decoder",
    "threshold_activations",
]
