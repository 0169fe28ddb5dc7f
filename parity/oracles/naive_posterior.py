"""The forward-backward algorithm over a matrix of all states, frame by frame, as a textbook has it."""

from __future__ import annotations

import numpy as np

from allin1_core.dbn import HiddenMarkovModel


def posterior(
    model: HiddenMarkovModel, activations: np.ndarray, required: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Probability of each state in each frame, from the one before the first on, and the log probability of all frames.

    ``(1 + num_frames, num_states)``. Where `required` is not 0 the only states are the first of a beat (of that number
    in the bar, if positive), and what is seen there is certain.
    """
    transitions = model.transition_model
    num_states, num_frames = transitions.num_states, len(activations)
    matrix = np.zeros((num_states, num_states))
    to = np.repeat(np.arange(num_states), np.diff(transitions.pointers.astype(int)))
    matrix[transitions.states, to] = transitions.probabilities
    densities = np.nan_to_num(np.exp(model.observation_model.log_densities(activations)))
    seen = densities[:, model.observation_model.pointers]
    positions = transitions.state_space.state_positions
    for frame in range(num_frames) if required is not None else ():
        number = int(required[frame]) if required is not None else 0
        if number:
            is_first = positions == positions.astype(int)
            seen[frame] = is_first & ((number < 0) | (positions == number - 1))
    forward, backward = np.empty((num_frames + 1, num_states)), np.ones((num_frames + 1, num_states))
    forward[0] = values = model.initial_distribution
    log_probability = 0.0
    for frame in range(num_frames):
        values = (values @ matrix) * seen[frame]
        log_probability += np.log(values.sum())
        values = forward[frame + 1] = values / values.sum()
    for frame in range(num_frames - 1, -1, -1):
        following = matrix @ (backward[frame + 1] * seen[frame])
        backward[frame] = following / following.max()
    both = forward * backward
    return both / both.sum(axis=1, keepdims=True), log_probability
