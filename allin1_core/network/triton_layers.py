"""Triton kernels of the network's layers but attention: the convolutional stem, linear layers, layer norm and heads.

Linear layers are matrix products of frames with weights, channels padded from 24 to 32. Their factors are float16. In
``EXACT`` each factor x is a sum of two, ``x = high + low`` with ``high = float16(x)`` and ``low = float16(x - high)``,
which leaves 2^-24 of x or 3e-8, whichever is larger, and a product is ``high high + low high + high low`` in float32
sums. Otherwise it is ``high high``: the 11 bits of TF32 at twice its rate. `triton_packing` makes sure that no factor
leaves float16's range.
"""

from __future__ import annotations

import triton
import triton.language as tl

from allin1_core.network.triton_functions import elu, gelu, larger
from allin1_core.network.triton_layout import CHANNELS, INSTRUMENTS, TILE, kernel, place

PADDED = tl.constexpr(32)
BANDS = tl.constexpr(81)
STEM_BANDS = tl.constexpr(5)
LOGITS = tl.constexpr(13)
LOGITS_PADDED = tl.constexpr(16)


@triton.jit
def _product(x, weights, size: tl.constexpr, at, sums, EXACT: tl.constexpr):
    """sums + x @ W; `weights` are float16 (2, size): high parts, then low ones; `at` are the offsets of W."""
    high = x.to(tl.float16)
    weights_high = tl.load(weights + at)
    sums = tl.dot(high, weights_high, sums)
    if EXACT:
        low = (x - high.to(tl.float32)).to(tl.float16)
        sums = tl.dot(low, weights_high, sums)
        sums = tl.dot(high, tl.load(weights + size + at), sums)
    return sums


@triton.jit
def _normalised(x, is_channel, epsilon):
    """(x - mean) / sqrt(variance + epsilon) over 24 of 32 channels; the others of x are 0, and stay it."""
    centred = tl.where(is_channel, x - tl.sum(x, axis=1)[:, None] * (1.0 / CHANNELS), 0.0)
    variance = tl.sum(centred * centred, axis=1) * (1.0 / CHANNELS)
    return centred * tl.rsqrt(variance + epsilon)[:, None]


@triton.jit
def _project(
    x, frames, sequence, fold, planes, weights, biases, num_frames, num_tiles, epsilon, CHUNKS: tl.constexpr,
    EXACT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Layer norm, then queries, keys and values, to (sequences, tiles, 24 * CHUNKS, 32).

    After the last frame the normalised values are zeros, as the network pads them. Weights of a fold: (CHUNKS, 32, 32),
    inputs and outputs; biases (2 + CHUNKS, 32), of which the first two are weight and bias of the norm.
    """
    SIZE: tl.constexpr = CHUNKS * PADDED * PADDED
    weights += fold * (2 * SIZE)
    biases += fold * ((2 + CHUNKS) * PADDED)
    channels = tl.arange(0, PADDED)[None, :]
    is_channel = channels < CHANNELS
    x = _normalised(x, is_channel, epsilon) * tl.load(biases + channels) + tl.load(biases + PADDED + channels)
    x = tl.where(frames < num_frames, x, 0.0)
    biases += 2 * PADDED
    at = tl.arange(0, PADDED)[:, None] * PADDED + channels
    planes += sequence.to(tl.int64) * num_tiles * (CHUNKS * CHANNELS * TILE)
    offsets = place(frames, channels, CHUNKS * CHANNELS)
    is_inside = is_channel & (frames < num_tiles * TILE)
    for chunk in tl.static_range(CHUNKS):
        sums = tl.zeros((BLOCK, PADDED), tl.float32) + tl.load(biases + chunk * PADDED + channels)
        sums = _product(x, weights + chunk * (PADDED * PADDED), SIZE, at, sums, EXACT)
        tl.store(
            planes + chunk * (CHANNELS * TILE) + offsets, sums.to(planes.dtype.element_ty), mask=is_inside
        )


@kernel
def stem_frequency(
    spectrogram, output, weights, biases, num_frames, num_tiles, num_sequences, BLOCK: tl.constexpr,
    EXACT: tl.constexpr,
):  # fmt: skip
    """Convolutions 0 and 1 with their maxima and ELU.

    From float32 (tracks * instruments, tiles, 81, 32), to float32 (sequences, tiles, 5 * 24, 32). A program gives one
    of the five bands. Weights of a fold: convolution 0 as (3, 16, 16): for each band under the maximum, inputs (frame,
    band) and outputs; convolution 1 as (16, 16, 32): for each of its 12 bands between two of zeros at either end,
    inputs and outputs.
    """
    frames = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    band, sequence = tl.program_id(1), tl.program_id(2)
    fold = sequence // num_sequences
    spectrogram += (sequence % num_sequences).to(tl.int64) * num_tiles * (BANDS * TILE)
    SIZE: tl.constexpr = 3 * 16 * 16 + 16 * 16 * 32
    weights += fold * (2 * SIZE)
    biases += fold * (16 + 32)
    inputs = tl.arange(0, 16)[None, :]
    outputs = tl.arange(0, 16)[None, :]
    wide = tl.arange(0, PADDED)[None, :]
    seen = frames + inputs // 5 - 1
    is_input = (inputs < 15) & (seen >= 0) & (seen < num_frames)
    offsets = place(tl.where(is_input, seen, 0), inputs % 5, BANDS)
    at = tl.arange(0, 16)[:, None] * 16 + outputs
    at_wide = tl.arange(0, 16)[:, None] * 32 + wide
    bias = tl.load(biases + outputs)
    first = tl.zeros((BLOCK, PADDED), tl.float32)
    second = tl.zeros((BLOCK, PADDED), tl.float32)
    third = tl.zeros((BLOCK, PADDED), tl.float32)
    for step in range(14):
        highest = tl.full((BLOCK, 16), float("-inf"), tl.float32)
        # The window of a band is three bands wide, so three windows see five.
        patch = tl.load(spectrogram + (3 * (3 * band + step)) * TILE + offsets, mask=is_input, other=0.0)
        for under in tl.static_range(3):
            sums = tl.zeros((BLOCK, 16), tl.float32)
            sums = _product(patch, weights + under * 256, SIZE, at, sums, EXACT)
            highest = larger(highest, sums)
        x = elu(highest + bias)
        kernels = weights + 3 * 256
        first = _product(x, kernels + (step + 2) * 512, SIZE, at_wide, first, EXACT)
        second = _product(x, kernels + (step + 1) * 512, SIZE, at_wide, second, EXACT)
        third = _product(x, kernels + step * 512, SIZE, at_wide, third, EXACT)
    x = elu(larger(larger(first, second), third) + tl.load(biases + 16 + wide))
    output += sequence.to(tl.int64) * num_tiles * (STEM_BANDS * CHANNELS * TILE)
    at = place(frames, band * CHANNELS + wide, STEM_BANDS * CHANNELS)
    tl.store(output + at, x, mask=(wide < CHANNELS) & (frames < num_tiles * TILE))


@kernel
def stem_time(
    x, hidden, planes, weights, biases, next_weights, next_biases, num_frames, num_tiles, num_sequences, epsilon,
    CHUNKS: tl.constexpr, BLOCK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Convolution 2 with its maximum and ELU, and the layer norm; then `_project` for the first layer.

    From float32 (sequences, tiles, 5 * 24, 32), to float32 (sequences, tiles, 24, 32). Weights of a fold: (3, 3, 32,
    32), by frame, band, inputs and outputs; biases: (3, 32), of the convolution, and weight and bias of the norm.
    """
    frames = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    sequence = tl.program_id(1)
    fold = sequence // num_sequences
    SIZE: tl.constexpr = 9 * 32 * 32
    weights += fold * (2 * SIZE)
    biases += fold * (3 * PADDED)
    x += sequence.to(tl.int64) * num_tiles * (STEM_BANDS * CHANNELS * TILE)
    channels = tl.arange(0, PADDED)[None, :]
    is_channel = channels < CHANNELS
    at = tl.arange(0, PADDED)[:, None] * PADDED + channels
    first = tl.zeros((BLOCK, PADDED), tl.float32)
    second = tl.zeros((BLOCK, PADDED), tl.float32)
    third = tl.zeros((BLOCK, PADDED), tl.float32)
    for tap in range(3):
        seen = frames + tap - 1
        is_seen = is_channel & (seen >= 0) & (seen < num_frames)
        seen = tl.where((seen >= 0) & (seen < num_frames), seen, 0)
        for band in tl.static_range(5):
            offsets = place(seen, band * CHANNELS + channels, STEM_BANDS * CHANNELS)
            part = tl.load(x + offsets, mask=is_seen, other=0.0)
            kernel = weights + tap * (3 * 1024)
            if band < 3:
                first = _product(part, kernel + band * 1024, SIZE, at, first, EXACT)
            if band >= 1 and band < 4:
                second = _product(part, kernel + (band - 1) * 1024, SIZE, at, second, EXACT)
            if band >= 2:
                third = _product(part, kernel + (band - 2) * 1024, SIZE, at, third, EXACT)
    sums = elu(larger(larger(first, second), third) + tl.load(biases + channels))
    gain, shift = tl.load(biases + PADDED + channels), tl.load(biases + 2 * PADDED + channels)
    result = _normalised(tl.where(is_channel, sums, 0.0), is_channel, 1e-5) * gain + shift
    hidden += sequence.to(tl.int64) * num_tiles * (CHANNELS * TILE)
    offsets = place(frames, channels, CHANNELS)
    tl.store(hidden + offsets, result, mask=is_channel & (frames < num_tiles * TILE))
    _project(result, frames, sequence, fold, planes, next_weights, next_biases, num_frames, num_tiles, epsilon, CHUNKS,
             EXACT, BLOCK)  # fmt: skip


@triton.jit
def _feed_forward(x, y, weights, biases, sums, START: tl.constexpr, SIZE: tl.constexpr, CHUNKS: tl.constexpr,
                  TWICE: tl.constexpr, EXACT: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """sums + down(gelu(up(x, y))), a chunk of the inner width at a time.

    Of each chunk the weights are those of x, those of y if TWICE, and those of the way down, (32, 32) each.
    """
    columns = tl.arange(0, PADDED)[None, :]
    at = tl.arange(0, PADDED)[:, None] * PADDED + columns
    PARTS: tl.constexpr = 3 if TWICE else 2
    for chunk in range(CHUNKS):
        part = weights + START + chunk * (PARTS * 1024)
        inner = tl.zeros((BLOCK, PADDED), tl.float32) + tl.load(biases + chunk * PADDED + columns)
        inner = _product(x, part, SIZE, at, inner, EXACT)
        if TWICE:
            inner = _product(y, part + 1024, SIZE, at, inner, EXACT)
        sums = _product(gelu(inner, EXACT), part + (PARTS - 1) * 1024, SIZE, at, sums, EXACT)
    return sums


@kernel
def feed_forward_time(
    hidden, attended, planes, weights, biases, next_weights, next_biases, num_frames, num_tiles, num_sequences, epsilon,
    CHUNKS: tl.constexpr, BLOCK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Output projections of both attentions, residuals, layer norm over the 48, and the feed-forward layer, in place.
    Then `_project` for the next layer.

    `hidden` is (sequences, tiles, 24, 32), `attended` (sequences, tiles, 2 * 24, 32). Weights of a fold: (2, 32, 32) of
    the projections, then (6, 3, 32, 32), as `_feed_forward` has them; biases: (3, 32), of the projections and of the
    layer's output, then (6, 32).
    """
    frames = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    sequence = tl.program_id(1)
    fold = sequence // num_sequences
    SIZE: tl.constexpr = (2 + 3 * 6) * 1024
    weights += fold * (2 * SIZE)
    biases += fold * (9 * PADDED)
    channels = tl.arange(0, PADDED)[None, :]
    is_channel = channels < CHANNELS
    is_inside = is_channel & (frames < num_tiles * TILE)
    at = tl.arange(0, PADDED)[:, None] * PADDED + channels
    hidden += sequence.to(tl.int64) * num_tiles * (CHANNELS * TILE)
    attended += sequence.to(tl.int64) * num_tiles * (2 * CHANNELS * TILE)
    offsets = place(frames, channels, CHANNELS)
    x = tl.load(hidden + offsets, mask=is_inside, other=0.0)
    offsets_2 = place(frames, channels, 2 * CHANNELS)
    one = tl.load(attended + offsets_2, mask=is_inside, other=0.0).to(tl.float32)
    other = tl.load(attended + CHANNELS * TILE + offsets_2, mask=is_inside, other=0.0).to(tl.float32)
    one = _product(one, weights, SIZE, at, x + tl.load(biases + channels), EXACT)
    other = _product(other, weights + 1024, SIZE, at, x + tl.load(biases + PADDED + channels), EXACT)
    mean = (tl.sum(one, axis=1) + tl.sum(other, axis=1))[:, None] * (0.5 / CHANNELS)
    first = tl.where(is_channel, one - mean, 0.0)
    second = tl.where(is_channel, other - mean, 0.0)
    variance = (tl.sum(first * first, axis=1) + tl.sum(second * second, axis=1)) * (0.5 / CHANNELS)
    scale = tl.rsqrt(variance + epsilon)[:, None]
    sums = (one + other) * 0.5 + tl.load(biases + 2 * PADDED + channels)
    sums = _feed_forward(
        first * scale,
        second * scale,
        weights,
        biases + 3 * PADDED,
        sums,
        2 * 1024,
        SIZE,
        6,
        True,
        EXACT,
        BLOCK,
    )
    tl.store(hidden + offsets, sums, mask=is_inside)
    _project(sums, frames, sequence, fold, planes, next_weights, next_biases, num_frames, num_tiles, epsilon, CHUNKS,
             EXACT, BLOCK)  # fmt: skip


@kernel
def feed_forward_instruments(
    hidden, attended, planes, weights, biases, next_weights, next_biases, num_frames, num_tiles, num_sequences, epsilon,
    CHUNKS: tl.constexpr, BLOCK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """As `feed_forward_time`, of one attention: `attended` is (sequences, tiles, 24, 32), weights (32, 32), then
    (3, 2, 32, 32), biases (2, 32), then (3, 32). Without CHUNKS nothing follows."""
    frames = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    sequence = tl.program_id(1)
    fold = sequence // num_sequences
    SIZE: tl.constexpr = (1 + 2 * 3) * 1024
    weights += fold * (2 * SIZE)
    biases += fold * (5 * PADDED)
    channels = tl.arange(0, PADDED)[None, :]
    is_channel = channels < CHANNELS
    is_inside = is_channel & (frames < num_tiles * TILE)
    at = tl.arange(0, PADDED)[:, None] * PADDED + channels
    hidden += sequence.to(tl.int64) * num_tiles * (CHANNELS * TILE)
    attended += sequence.to(tl.int64) * num_tiles * (CHANNELS * TILE)
    offsets = place(frames, channels, CHANNELS)
    x = tl.load(hidden + offsets, mask=is_inside, other=0.0)
    one = tl.load(attended + offsets, mask=is_inside, other=0.0).to(tl.float32)
    x = _product(one, weights, SIZE, at, x + tl.load(biases + channels), EXACT)
    normalised = _normalised(x, is_channel, epsilon)
    sums = x + tl.load(biases + PADDED + channels)
    sums = _feed_forward(
        normalised, normalised, weights, biases + 2 * PADDED, sums, 1024, SIZE, 3, False, EXACT, BLOCK
    )
    tl.store(hidden + offsets, sums, mask=is_inside)
    if CHUNKS:
        _project(sums, frames, sequence, fold, planes, next_weights, next_biases, num_frames, num_tiles, epsilon,
                 CHUNKS, EXACT, BLOCK)  # fmt: skip


@kernel
def heads(
    hidden, logits, embeddings, weights, biases, num_frames, num_tiles, num_folds, all_folds, first_fold,
    with_embeddings, epsilon, BLOCK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Final layer norm and the heads, added to the mean over all folds: logits float32 (tracks, 13, frames).

    `embeddings`, if asked for, are float32 (tracks, 4, frames, 24, all folds). Weights of a fold: (4, 32, 16) by
    instrument; biases: (2, 32), weight and bias of the norm, then (16,).
    """
    frames = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    track, num_tracks = tl.program_id(1), tl.num_programs(1)
    SIZE: tl.constexpr = INSTRUMENTS * PADDED * LOGITS_PADDED
    channels = tl.arange(0, PADDED)[None, :]
    outputs = tl.arange(0, LOGITS_PADDED)[None, :]
    is_channel = channels < CHANNELS
    is_inside = is_channel & (frames < num_frames)
    at = tl.arange(0, PADDED)[:, None] * LOGITS_PADDED + outputs
    offsets = place(frames, channels, CHANNELS)
    sums = tl.zeros((BLOCK, LOGITS_PADDED), tl.float32)
    for fold in range(num_folds):
        bias = biases + fold * (2 * PADDED + LOGITS_PADDED)
        gain, shift = tl.load(bias + channels), tl.load(bias + PADDED + channels)
        sums += tl.load(bias + 2 * PADDED + outputs)
        for instrument in range(INSTRUMENTS):
            sequence = (fold * num_tracks + track) * INSTRUMENTS + instrument
            at_hidden = hidden + sequence.to(tl.int64) * num_tiles * (CHANNELS * TILE)
            x = tl.load(at_hidden + offsets, mask=is_inside, other=0.0)
            x = _normalised(x, is_channel, epsilon) * gain + shift
            if with_embeddings:
                row = ((track * INSTRUMENTS + instrument) * num_frames).to(tl.int64) + frames
                to = (row * CHANNELS + channels) * all_folds + first_fold + fold
                tl.store(embeddings + to, x, mask=is_inside)
            part = weights + fold * (2 * SIZE) + instrument * (PADDED * LOGITS_PADDED)
            sums = _product(x, part, SIZE, at, sums, EXACT)
    to = logits + (track * LOGITS + outputs).to(tl.int64) * num_frames + frames
    mask = (outputs < LOGITS) & (frames < num_frames)
    sums = sums / all_folds
    if first_fold > 0:
        sums += tl.load(to, mask=mask, other=0.0)
    tl.store(to, sums, mask=mask)
