"""Decoders by name: ours, and others with the same interface."""

from __future__ import annotations

import functools

from allin1_core.backends import Choice, choose, get
from allin1_core.dbn.downbeat_tracking import DBNDownBeatTrackingProcessor
from allin1_core.dbn.protocol import DecoderBackend
from allin1_core.dbn.viterbi import choose_kernel

cython_decoder: DecoderBackend = functools.partial(DBNDownBeatTrackingProcessor, backend="cython")
numpy_decoder: DecoderBackend = functools.partial(DBNDownBeatTrackingProcessor, backend="numpy")


def load_decoder(backend: str = "auto") -> tuple[DecoderBackend, Choice]:
    """What makes decoders of that name, and the record of the choice.

    Parameters
    ----------
    backend : str
        ``auto``, ``cython``, ``numpy``, a name from the entry point group ``allin1_core.decoder``, or
        ``module:function``.

    Returns
    -------
    make_decoder : callable
        As in `allin1_core.dbn.protocol`.
    choice : Choice

    Raises
    ------
    BackendError
        If the backend does not exist or is not installed.
    """
    if backend != "auto" and not get("decoder", backend).automatic:
        row, choice = choose("decoder", backend, device="cpu")
        return row.load(), choice
    choice = choose_kernel(backend)
    return get("decoder", choice.backend).load(), choice
