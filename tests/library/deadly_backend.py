"""A backend of the spectrogram that kills its process for a song that is silent, and else is the numpy one."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np

from allin1_core.spectrogram.numpy_backend import log_spectrogram as of_numpy


def log_spectrogram(stems: np.ndarray, *arguments: Any, **keywords: Any) -> Any:
    """The spectrogram, if there is anything to hear; each death leaves a line in the file ``DEATHS``."""
    if not np.any(stems):
        with open(os.environ["DEATHS"], "a", encoding="utf-8") as file:
            file.write("died\n")
        os.kill(os.getpid(), signal.SIGKILL)
    return of_numpy(stems, *arguments, **keywords)
