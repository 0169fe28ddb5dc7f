"""How the Triton kernels of the network lay out activations, and what they are compiled for.

Arrays of activations are float32 or float16 (sequences, tiles, channels, 32): a sequence is one instrument of a track
in one fold, in the order folds, tracks, instruments, and a tile is 32 frames. So a frame is a lane, a channel of
successive frames one coalesced load, and the next channel lies at a constant offset.
"""

from __future__ import annotations

import triton
import triton.language as tl

CHANNELS = tl.constexpr(24)
INSTRUMENTS = tl.constexpr(4)
TILE = tl.constexpr(32)

# One compiled kernel for all lengths, and numbers of tracks and folds.
kernel = triton.jit(
    do_not_specialize=[
        "num_frames", "num_tiles", "num_sequences", "length", "dilation", "num_folds", "all_folds", "first_fold",
        "with_embeddings",
    ],
    do_not_specialize_on_alignment=["biases", "next_biases", "padding", "logits", "embeddings"],
)  # fmt: skip


@triton.jit
def place(frames, channels, NUM_CHANNELS: tl.constexpr):
    """Offsets of frames (columns) and channels (rows) within a sequence."""
    return (frames // TILE) * (NUM_CHANNELS * TILE) + frames % TILE + channels * TILE
