"""The All-In-One network (Kim & Nam, arXiv 2307.16425): beat, downbeat, segment and label probabilities."""

from allin1_core.network.configuration import Configuration, Thresholds
from allin1_core.network.model import Logits, Model, NetworkOutput, build_model, load_model
from allin1_core.network.weights import Checkpoint, load_checkpoints

__all__ = [
    "Checkpoint",
    "Configuration",
    "Logits",
    "Model",
    "NetworkOutput",
    "Thresholds",
    "build_model",
    "load_checkpoints",
    "load_model",
]
