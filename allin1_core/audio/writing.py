"""Writing of WAV files, whole or not at all."""

from __future__ import annotations

import io
import os

import numpy as np

from allin1_core.files.writing import written_whole


def write_wav(path: str | os.PathLike[str], samples: np.ndarray, sample_rate: int, subtype: str) -> None:
    """Write samples ``(num_samples, num_channels)`` as a WAV file of a subtype of libsndfile's, such as ``PCM_16``.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    import soundfile

    # In memory first: what a file raises when the disk is full, soundfile prints instead, and fails an assertion.
    content = io.BytesIO()
    soundfile.write(content, samples, sample_rate, subtype=subtype, format="WAV")
    with written_whole(path) as file:
        file.write(content.getbuffer())
