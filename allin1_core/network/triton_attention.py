"""Triton kernels of neighbourhood attention: a lane is a frame, and sums over channels and neighbours stay in it."""

from __future__ import annotations

import triton
import triton.language as tl

from allin1_core.network.triton_layout import CHANNELS, INSTRUMENTS, TILE, kernel, place

HEADS = tl.constexpr(2)
HEAD_SIZE = tl.constexpr(12)
KEYS = tl.constexpr(5)


@triton.jit
def _window(frames, length, dilation):
    """First key of each frame's window, and the bias's index of it, in a track of this padded length (`neighbourhood`).

    What stands after the last frame is the same everywhere; it is read from the first such place.
    """
    own = frames // dilation
    residue = frames - own * dilation
    class_length = length // dilation + (residue < length % dilation).to(tl.int32)
    first = tl.minimum(tl.maximum(own - KEYS // 2, 0), class_length - KEYS)
    return first * dilation + residue, first - own + (KEYS - 1)


@kernel
def attend_time(
    planes, attended, biases, num_frames, num_tiles, num_sequences, length, dilation, BLOCK: tl.constexpr
):  # fmt: skip
    """Both attentions of a time layer: a program takes one head of one attention.

    From (sequences, tiles, 6 * 24, 32), queries, keys and values of either, to (sequences, tiles, 2 * 24, 32). Scores
    are logarithms to base 2. Biases of a fold: (2, 2, 9), by attention, head and distance.
    """
    frames = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    which, sequence = tl.program_id(1), tl.program_id(2)
    attention, head = which // HEADS, which % HEADS
    biases += (sequence // num_sequences) * (2 * HEADS * (2 * KEYS - 1)) + which * (2 * KEYS - 1)
    planes += sequence.to(tl.int64) * num_tiles * (6 * CHANNELS * TILE)
    queries = planes + (attention * 3 * CHANNELS + head * HEAD_SIZE) * TILE
    keys = queries + CHANNELS * TILE
    values = keys + CHANNELS * TILE
    frames = tl.minimum(frames, num_frames - 1)
    step = dilation * (attention + 1)
    first, index = _window(frames, length, step)
    places = ()
    scores = ()
    for key in tl.static_range(KEYS):
        places = places + (place(tl.minimum(first + key * step, num_frames), 0, 6 * CHANNELS),)
        scores = scores + (tl.load(biases + index + key),)
    offsets = place(frames, 0, 6 * CHANNELS)
    for channel in range(HEAD_SIZE):
        query = tl.load(queries + channel * TILE + offsets).to(tl.float32)
        sums = ()
        for key in tl.static_range(KEYS):
            sums = sums + (scores[key] + query * tl.load(keys + channel * TILE + places[key]).to(tl.float32),)
        scores = sums
    largest = tl.maximum(
        tl.maximum(tl.maximum(scores[0], scores[1]), tl.maximum(scores[2], scores[3])), scores[4]
    )
    shares = ()
    total = tl.zeros((BLOCK,), tl.float32)
    for key in tl.static_range(KEYS):
        share = tl.exp2(scores[key] - largest)
        shares = shares + (share,)
        total += share
    scale = 1.0 / total
    attended += sequence.to(tl.int64) * num_tiles * (2 * CHANNELS * TILE)
    attended += (attention * CHANNELS + head * HEAD_SIZE) * TILE
    offsets = place(frames, 0, 2 * CHANNELS)
    for channel in range(HEAD_SIZE):
        result = tl.zeros((BLOCK,), tl.float32)
        for key in tl.static_range(KEYS):
            result += shares[key] * tl.load(values + channel * TILE + places[key]).to(tl.float32)
        tl.store(attended + channel * TILE + offsets, (result * scale).to(attended.dtype.element_ty))


@kernel
def attend_instruments(
    planes, attended, biases, padding, num_frames, num_tiles, num_sequences, length, BLOCK: tl.constexpr,
    QUERIES: tl.constexpr,
):  # fmt: skip
    """Attention over all instruments at five frames: a program takes one head and QUERIES of the four instruments.

    From (sequences, tiles, 3 * 24, 32), queries, keys and values, to (sequences, tiles, 24, 32). The window is five by
    five, so that a fifth instrument follows the four, whose normalised values are zeros; its keys and values are the
    projections' biases, `padding` (2, 24) of a fold. Biases of a fold: (2, 9, 9), by head and distances of instrument
    and frame.
    """
    frames = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    head, track = tl.program_id(1) % HEADS, tl.program_id(2)
    instrument = tl.program_id(1) // HEADS * QUERIES
    fold = track * INSTRUMENTS // num_sequences
    biases += fold * (HEADS * 81) + head * 81
    padding += fold * (2 * CHANNELS) + head * HEAD_SIZE
    size = num_tiles * (3 * CHANNELS * TILE)
    planes += track.to(tl.int64) * INSTRUMENTS * size + head * (HEAD_SIZE * TILE)
    frames = tl.minimum(frames, num_frames - 1)
    first, index = _window(frames, length, 1)
    offsets = place(frames, 0, 3 * CHANNELS)
    places = ()
    for key in tl.static_range(KEYS):
        places = places + (place(tl.minimum(first + key, num_frames), 0, 3 * CHANNELS),)
    queries = planes + instrument * size + offsets
    largest = ()
    totals = ()
    results = ()
    # The fifth instrument: its keys are the same at all frames.
    for query in tl.static_range(QUERIES):
        constant = tl.zeros((BLOCK,), tl.float32)
        for channel in range(HEAD_SIZE):
            value = tl.load(queries + query * size + channel * TILE).to(tl.float32)
            constant += value * tl.load(padding + channel)
        bias = biases + (INSTRUMENTS - (instrument + query) + (KEYS - 1)) * 9 + index
        highest = tl.load(bias)
        for key in tl.static_range(1, KEYS):
            highest = tl.maximum(highest, tl.load(bias + key))
        total = tl.zeros((BLOCK,), tl.float32)
        for key in tl.static_range(KEYS):
            total += tl.exp2(tl.load(bias + key) - highest)
        largest = largest + (constant + highest,)
        totals = totals + (total,)
    # Queries are the last index of all that follows. (Triton 3.3 refuses a constant with the name of a variable.)
    for row in tl.static_range(HEAD_SIZE):
        for query in tl.static_range(QUERIES):
            results = results + (totals[query] * tl.load(padding + CHANNELS + row),)
    # The other four, one after another; sums so far are scaled down where a higher score comes.
    for other in range(INSTRUMENTS):
        scores = ()
        for query in tl.static_range(QUERIES):
            bias = biases + (other - (instrument + query) + (KEYS - 1)) * 9 + index
            for key in tl.static_range(KEYS):
                scores = scores + (tl.load(bias + key),)
        keys_at = planes + other * size + CHANNELS * TILE
        for channel in range(HEAD_SIZE):
            values = ()
            for key in tl.static_range(KEYS):
                values = values + (tl.load(keys_at + channel * TILE + places[key]).to(tl.float32),)
            sums = ()
            for query in tl.static_range(QUERIES):
                value = tl.load(queries + query * size + channel * TILE).to(tl.float32)
                for key in tl.static_range(KEYS):
                    sums = sums + (scores[query * KEYS + key] + value * values[key],)
            scores = sums
        shares = ()
        scales = ()
        highest_of = ()
        totals_of = ()
        for query in tl.static_range(QUERIES):
            highest = largest[query]
            for key in tl.static_range(KEYS):
                highest = tl.maximum(highest, scores[query * KEYS + key])
            scale = tl.exp2(largest[query] - highest)
            total = totals[query] * scale
            for key in tl.static_range(KEYS):
                share = tl.exp2(scores[query * KEYS + key] - highest)
                shares = shares + (share,)
                total += share
            scales = scales + (scale,)
            highest_of = highest_of + (highest,)
            totals_of = totals_of + (total,)
        largest = highest_of
        totals = totals_of
        values_at = keys_at + CHANNELS * TILE
        sums = ()
        for row in tl.static_range(HEAD_SIZE):
            values = ()
            for key in tl.static_range(KEYS):
                values = values + (tl.load(values_at + row * TILE + places[key]).to(tl.float32),)
            for query in tl.static_range(QUERIES):
                result = results[row * QUERIES + query] * scales[query]
                for key in tl.static_range(KEYS):
                    result += shares[query * KEYS + key] * values[key]
                sums = sums + (result,)
        results = sums
    attended += track.to(tl.int64) * INSTRUMENTS * num_tiles * (CHANNELS * TILE) + head * (HEAD_SIZE * TILE)
    offsets = place(frames, 0, CHANNELS)
    for query in tl.static_range(QUERIES):
        scale = 1.0 / totals[query]
        at = attended + (instrument + query) * num_tiles * (CHANNELS * TILE)
        for row in tl.static_range(HEAD_SIZE):
            result = results[row * QUERIES + query] * scale
            tl.store(at + row * TILE + offsets, result.to(attended.dtype.element_ty))
