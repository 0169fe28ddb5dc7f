from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from allin1_core.simd.instruction_sets import instruction_set as instruction_set
from allin1_core.simd.instruction_sets import instruction_sets as instruction_sets

SIZES: dict[str, int]

def run_pass(
    instruction_set: str | None,
    name: Literal["stem", "time_layers", "instrument_layers"],
    frames: int,
    length: int,
    dilation: int,
    parameters: NDArray[np.float32],
    next_parameters: NDArray[np.float32] | None,
    hidden: NDArray[np.float32],
    keys_values: NDArray[np.float32],
    instrument_keys_values: NDArray[np.float32],
    epsilon: float,
    counter: NDArray[np.int64],
    scratch: NDArray[np.float32],
    *,
    spectrogram: NDArray[np.float32] | None = None,
    logits: NDArray[np.float32] | None = None,
    embeddings: NDArray[np.float32] | None = None,
    fold: int = 0,
) -> None: ...
def run_attention(
    instruction_set: str | None,
    frames: int,
    kernel_size: int,
    dilation: int,
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    values: NDArray[np.float32],
    bias: NDArray[np.float32],
    row_windows: NDArray[Any],
    row_biases: NDArray[Any],
    output: NDArray[np.float32],
) -> None: ...
