"""Viterbi decoding: choice of the kernel, and preparation of its arguments."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from allin1_core.backends import Choice, choose
from allin1_core.dbn.chains import Chains
from allin1_core.errors import BackendError

ViterbiKernel = Callable[..., tuple[np.ndarray, float]]


@functools.cache
def choose_kernel(backend: str = "auto") -> Choice:
    """Decide which kernel decodes.

    Parameters
    ----------
    backend : str
        ``auto``, ``cython`` or ``numpy``. ``auto`` takes the compiled kernel; where it was not built, the numpy one,
        with the same results, and says so once.

    Raises
    ------
    BackendError
        If the name is another, or the kernel is not installed.
    """
    row, choice = choose("decoder", backend, device="cpu")
    if not row.automatic:
        raise BackendError(
            f"decoder backend {backend!r}: a decoder of its own, not a Viterbi kernel; expected 'auto', 'cython' or "
            "'numpy' here, and any decoder in allin1_core.dbn.load_decoder"
        )
    if backend == "auto" and row.name == "numpy":
        _warn_not_compiled()
    load_kernel(row.name)  # imported now, so that no decoding is charged with it
    return choice


@functools.cache
def load_kernel(backend: str, algorithm: str = "viterbi") -> Any:
    """An algorithm of the kernel that was chosen.

    Parameters
    ----------
    backend : str
        ``cython`` or ``numpy``.
    algorithm : str
        ``viterbi`` or ``dense_viterbi``, functions, or ``ForwardAlgorithm``, a class.
    """
    in_numpy = "forward_numpy" if algorithm == "ForwardAlgorithm" else "viterbi_numpy"
    module = importlib.import_module(f"allin1_core.dbn.{in_numpy if backend == 'numpy' else '_viterbi'}")
    return getattr(module, algorithm)


@functools.cache
def _warn_not_compiled() -> None:
    warnings.warn(
        "allin1_core.dbn._viterbi is not compiled; decoding with numpy, which gives the same result in fifty to "
        "a hundred times the time. Reinstall allin1-core with a C compiler, or from a wheel",
        RuntimeWarning,
        stacklevel=4,
    )


def viterbi(
    kernel: ViterbiKernel,
    chains: Chains,
    log_densities: np.ndarray,
    log_initial: np.ndarray,
    required_beats: np.ndarray | None = None,
    last: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
    """Most likely path of states.

    Parameters
    ----------
    kernel : callable
        From `load_kernel`.
    chains : Chains
    log_densities : float64 (num_frames, num_columns)
        Columns as the chains see them; NaN counts as -inf.
    log_initial : float64 (num_states,)
        Log probability of each state before the first frame.
    required_beats : int (num_frames,), optional
        Where not 0, the path must be in the first state of a beat: of any if negative, of that number in the bar
        (from 1) if positive. What is observed there is then taken as certain, with log density 0.
    last : float64 (num_states,), optional
        See `allin1_core.dbn.viterbi_numpy.viterbi`.

    Returns
    -------
    path : uint32 (num_frames,)
        Empty if there is no path of more than zero probability.
    log_probability : float

    Raises
    ------
    ValueError
        If there is no frame.
    """
    if len(log_densities) == 0:
        raise ValueError("observations: no frames; expected at least one")
    rows = kernel_rows(chains, log_densities, required_beats)
    path, log_probability = kernel(chains, *rows, log_initial, last)
    if log_probability == -np.inf:
        return np.empty(0, dtype=np.uint32), log_probability
    return path, log_probability


def kernel_rows(
    chains: Chains, log_densities: np.ndarray, required_beats: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a kernel sees: rows of log densities without NaN, and which of them a beat's first and other states see.

    Parameters are those of `viterbi`, what is returned those of `allin1_core.dbn.viterbi_numpy.viterbi`.
    """
    rows = np.array(log_densities.T, order="C")
    rows[np.isnan(rows)] = -np.inf
    entry_rows = inside_rows = chains.beat_columns
    if required_beats is not None:
        entries = rows[entry_rows]
        required = required_beats != 0
        rows[:, required] = -np.inf
        numbers = chains.numbers[:, np.newaxis]
        allowed = (required_beats[required] < 0) | (required_beats[required] == numbers)
        entries[:, required] = np.where(allowed, 0.0, -np.inf)
        entry_rows = np.arange(len(rows), len(rows) + chains.num_beats, dtype=np.int32)
        rows = np.concatenate([rows, entries])
    return rows, entry_rows, inside_rows
