"""The forward algorithm in numpy, to the bit that of `forward_algorithm.h`, for where that is not compiled."""

from __future__ import annotations

import numpy as np

from allin1_core.dbn.chains import Chains


class ForwardAlgorithm:
    """Forward algorithm of a beat model, from frame to frame: how likely each state is, after what was seen so far.

    All states are equally likely at first.

    Parameters
    ----------
    chains : Chains
        Of one beat.
    transitions : float64 (num_intervals, num_intervals)
        Probability of a beat's interval (column) after another (row).
    """

    def __init__(self, chains: Chains, transitions: np.ndarray) -> None:
        ends = np.cumsum(chains.intervals)
        self._firsts, self._lasts = ends - chains.intervals, ends - 1
        self._transitions = transitions
        position = np.arange(ends[-1]) - np.repeat(self._firsts, chains.intervals)
        self._pointers = (position < np.repeat(chains.borders[0], chains.intervals)).astype(np.int64)
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._values = np.ones(len(self._pointers)) / len(self._pointers)

    def advance(self, densities: np.ndarray) -> np.ndarray:
        """Go on by some frames.

        Parameters
        ----------
        densities : float64 (num_frames, 2)
            Of non-beat and beat; not their logarithms.

        Returns
        -------
        int64 (num_frames,)
            The likeliest state after each frame, the first of equals. Where no state has a probability above 0, all
            are NaN from there on, and this is state 0.
        """
        states = np.empty(len(densities), dtype=np.int64)
        for frame, density in enumerate(densities):
            # accumulate adds one after the other, as the definition does; sum does not.
            exits = self._values[self._lasts, np.newaxis] * self._transitions
            following = np.roll(self._values, 1)
            following[self._firsts] = np.add.accumulate(exits)[-1]
            following *= density[self._pointers]
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                following *= 1 / np.add.accumulate(following)[-1]
            self._values = following
            states[frame] = following.argmax()
        return states

    def advance_one(self, activations: np.ndarray, parts: float) -> int | None:
        """As `advance`, by one frame of these activations, if that takes less than `beat_log_densities` and `advance`.

        Otherwise, as here, None, and the algorithm is where it was. A compiled one takes an array of one activation, of
        single or double precision, above 0 and below 1, and an `observation_lambda`, `parts`, above 1.
        """
        return None

    @property
    def is_lost(self) -> bool:
        """Whether the probabilities are NaN."""
        return bool(np.isnan(self._values[0]))

    def probabilities(self) -> np.ndarray:
        """Of each state after the last frame, ``float64 (num_states,)``."""
        return self._values.copy()
