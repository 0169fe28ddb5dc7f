"""Protocol of a backend of the network: a callable that makes a network from checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from allin1_core.network.weights import Checkpoint


class Network(Protocol):
    """The network of one or more folds."""

    def as_native(self, spectrogram: Any, /) -> Any:
        """The same array as the backend's own, without a copy where memory can be shared."""

    def logits(self, spectrogram: Any, return_embeddings: bool, /) -> tuple[Any, Any]:
        """From float32 (batch, instruments, T, bands): logits (batch, 3 + labels, T) averaged over the folds, and
        the embeddings (batch, instruments, T, channels, folds) or None."""

    def probabilities(self, logits: Any, /) -> Any:
        """Sigmoid of the first three rows and softmax over the others, of the shape of `logits`."""

    def synchronize(self, arrays: Sequence[Any], /) -> None:
        """Wait until the arrays are computed."""


class NetworkBackend(Protocol):
    """One implementation of the network, as `allin1_core.backends` loads it; of ours, the class of a `Network`."""

    def __call__(
        self, checkpoints: Sequence[Checkpoint], /, *, device: str, precision: str, num_threads: int
    ) -> Network:
        """A network.

        Parameters
        ----------
        checkpoints : sequence of Checkpoint
            One, or the folds of an ensemble, all of one configuration.
        device, precision : str
            As `Choice` has them.
        num_threads : int
            Threads that it may use.
        """
