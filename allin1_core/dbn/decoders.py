"""Decoders by name: ours, and others with the same interface."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from allin1_core.backends import choose
from allin1_core.backends.table import Choice
from allin1_core.dbn.downbeat_tracking import DBNDownBeatTrackingProcessor
from allin1_core.dbn.viterbi import choose_kernel


def load_decoder(backend: str = "auto") -> tuple[Callable[..., Any], Choice]:
    """What makes decoders of that name, and the record of the choice.

    Parameters
    ----------
    backend : str
        ``auto``, ``cython``, ``numpy``, a name from the entry point group ``allin1_core.decoder``, or
        ``module:function``.

    Returns
    -------
    make_decoder : callable
        Takes the parameters of `DBNDownBeatTrackingProcessor` and returns something that turns activations
        ``(num_frames, 2)`` into beats ``(num_beats, 2)`` when called. If that also has `hmms`, each with
        ``viterbi(observations) -> (path, log_probability)``, the parity suite compares these too.
    choice : Choice

    Raises
    ------
    BackendError
        If the backend does not exist or is not installed.
    """
    row, choice = choose("decoder", backend, device="cpu")
    if not row.automatic:
        return row.load(), choice
    choice = choose_kernel(backend)[1]
    return functools.partial(DBNDownBeatTrackingProcessor, backend=row.name), choice
