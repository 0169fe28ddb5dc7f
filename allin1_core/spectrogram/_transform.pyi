import numpy as np
from numpy.typing import NDArray

from allin1_core.simd.instruction_sets import instruction_set as instruction_set
from allin1_core.simd.instruction_sets import instruction_sets as instruction_sets

SCRATCH_SIZE: int

def run(
    instruction_set: str | None,
    samples: NDArray[np.int16] | NDArray[np.float32],
    starts: NDArray[np.int64],
    taper: NDArray[np.floating],
    twiddles: NDArray[np.floating],
    turns: NDArray[np.floating],
    positions: NDArray[np.int32],
    num_bins: int,
    band_starts: NDArray[np.int32],
    band_sizes: NDArray[np.int32],
    weights: NDArray[np.floating],
    multiplier: float,
    offset: float,
    output: NDArray[np.float32],
    scratch: NDArray[np.uint8],
) -> None: ...
