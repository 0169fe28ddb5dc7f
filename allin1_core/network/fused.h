/* The All-In-One network on a CPU, walked in tiles of frames that stay in the cache.
 *
 * Layout. Every hidden array lies channel by channel, frames side by side: row = (instrument, channel), column =
 * frame. A vector register then holds one channel of consecutive frames. A linear layer is a sum of rows times
 * scalars; a neighbour at distance d is the same load, d frames further on; softmax and layer norm need no sums
 * across a register; and no lane is lost to heads of 12 channels.
 *
 * Passes. A layer's attention reaches other frames (the time attention 4 * dilation to either side), so keys and values
 * of the whole track must exist before any of its frames. So a block is two passes over tiles of frames: its time layer
 * in place, with keys and values for the instrument attention; then its instrument layer in place, with keys and values
 * for the next block's time attention. A tile reads what earlier passes wrote and writes only its own columns: tiles can
 * run in any order, on any number of threads, and give the same bits. They begin at a cache line, so that windows at
 * dilations from 16 on do too.
 *
 * Memory. Of the windows of a tile each row is elsewhere, too far for the processor to foresee: read as they are needed,
 * they took longer than attention's arithmetic. They are fetched into the cache while the tile before is in its
 * linear layers, which need no memory.
 *
 * Windows. With dilation d, length L and kernel size 2 h + 1, a window begins at -i steps from its query, i = h inside.
 * The first member of a residue class has t < d, the second t < 2 d, and the last has t >= L - d: so i is constant on
 * 2 h + 1 spans of frames bounded by 0, d, .., h d, L - h d, .., L - d, L. A border costs no gather, only other offsets.
 *
 * passes.h has the passes, layers.h what they are made of; simd/targets.h compiles both for each instruction set. */
#ifndef ALLIN1_FUSED_H
#define ALLIN1_FUSED_H

#include "../simd/dispatch.h"

/* Dimensions of the published architecture; the Python layer refuses any other. */
enum {
    BANDS = 81,
    INSTRUMENTS = 4,
    CHANNELS = 24,
    HEADS = 2,
    HEAD = 12,
    KEYS = 5,              /* kernel size along time */
    BIASES = 2 * KEYS - 1, /* relative positions */
    TIME_INNER = 192,
    INSTRUMENT_INNER = 96,
    LOGITS = 13,

    OUTPUTS = 6,               /* outputs that a linear layer accumulates in registers at a time */
    LOGITS_PADDED = 18,        /* a multiple of OUTPUTS */
    SLICE = 48,                /* inner width of a feed-forward layer that is computed before it is used up */
    TILE = 64,                 /* frames */
    TILE_STRIDE = TILE + 16,   /* of tile buffers: a vector may run over the tile's end */
    CHUNK_TILES = 4,
    CHUNK = CHUNK_TILES * TILE - 2, /* frames of the stem's chunks: its third convolution needs one on each side */
    CHUNK_STRIDE = CHUNK_TILES * TILE + 16,
    MAX_KEYS = 64,             /* of the general attention */

    KEY_VALUE_ROWS = 4 * CHANNELS, /* keys and values of both time attentions */
    POOLED0 = 26,                  /* bands after the first and second convolution */
    POOLED1 = 5
};

/* Sizes of packed parameters, in floats and in the order in which they lie. */
#define LINEAR_SIZE(inputs, outputs) ((outputs) * ((inputs) + 1))
enum {
    STEM_SIZE = LINEAR_SIZE(9, CHANNELS / 2) + LINEAR_SIZE(12 * CHANNELS / 2, CHANNELS) +
                LINEAR_SIZE(9 * CHANNELS, CHANNELS) + 2 * CHANNELS,
    KEY_VALUE_SIZE = LINEAR_SIZE(CHANNELS, KEY_VALUE_ROWS),
    BLOCK_SIZE = LINEAR_SIZE(CHANNELS, 2 * CHANNELS) + 2 * HEADS * BIASES + 2 * LINEAR_SIZE(CHANNELS, CHANNELS) +
                 LINEAR_SIZE(2 * CHANNELS, TIME_INNER) + LINEAR_SIZE(TIME_INNER, CHANNELS) +
                 LINEAR_SIZE(CHANNELS, 2 * CHANNELS) + 2 * CHANNELS + LINEAR_SIZE(CHANNELS, CHANNELS) +
                 HEADS * BIASES * BIASES + LINEAR_SIZE(CHANNELS, CHANNELS) +
                 LINEAR_SIZE(CHANNELS, INSTRUMENT_INNER) + LINEAR_SIZE(INSTRUMENT_INNER, CHANNELS),
    HEAD_SIZE = 2 * CHANNELS + INSTRUMENTS * CHANNELS * LOGITS_PADDED + LOGITS_PADDED,
    /* Scratch of a thread: the larger of the two passes. */
    STEM_SCRATCH = BANDS * (TILE_STRIDE + 16) + POOLED0 * CHANNELS / 2 * TILE_STRIDE +
                   POOLED1 * CHANNELS * (CHUNK_STRIDE + 16) + 2 * CHANNELS * TILE_STRIDE +
                   KEY_VALUE_ROWS * TILE_STRIDE,
    BLOCK_SCRATCH = (CHANNELS + LOGITS_PADDED + 8 * CHANNELS + SLICE) * TILE_STRIDE,
    SCRATCH_SIZE = (STEM_SCRATCH > BLOCK_SCRATCH ? STEM_SCRATCH : BLOCK_SCRATCH) + 64
};

/* What all tiles of a pass share. Hidden arrays are (INSTRUMENTS, rows, stride) with the same stride. */
struct pass_t {
    ptrdiff_t frames;
    ptrdiff_t length; /* frames with the zeros appended for short tracks: at least 10 * dilation */
    ptrdiff_t stride;
    ptrdiff_t dilation;
    float epsilon;
    const float *spectrogram;      /* (INSTRUMENTS, frames, BANDS) */
    const float *parameters;       /* STEM_SIZE or BLOCK_SIZE */
    const float *next_parameters;  /* KEY_VALUE_SIZE of the next block, or HEAD_SIZE after the last */
    float *hidden;                 /* CHANNELS rows */
    float *keys_values;            /* KEY_VALUE_ROWS rows, of the time attentions */
    float *instrument_keys_values; /* 2 * CHANNELS rows */
    float *logits;                 /* (LOGITS, frames), added to in the last block, else NULL */
    float *embeddings;             /* (INSTRUMENTS, frames, CHANNELS, embedding_step), or NULL */
    ptrdiff_t embedding_step;      /* floats from one channel to the next: the number of folds */
    int64_t *counter;              /* of chunks or tiles; shared by the threads of a pass */
};

/* General neighbourhood attention, for what is not the network's own shape. */
struct attention_t {
    ptrdiff_t rows, frames, stride, channels, kernel_size, dilation;
    const float *queries, *keys, *values; /* (rows, channels, stride) */
    const float *bias;                    /* (row distances, 2 * kernel_size - 1), or one row of them */
    const int32_t *row_windows;           /* (rows, row_keys): rows that a row's queries attend to */
    const int32_t *row_biases;            /* (rows, row_keys): their row of `bias` */
    ptrdiff_t row_keys;
    float *output;                        /* (rows, channels, stride) */
};

struct kernels_t {
    void (*stem)(const pass_t *, float *scratch);
    void (*time_layers)(const pass_t *, float *scratch);
    void (*instrument_layers)(const pass_t *, float *scratch);
    void (*attention)(const attention_t *);
};

#define KERNELS "../network/passes.h"
#include "../simd/targets.h"

#endif
