/* The network's passes for one instruction set; simd/targets.h includes this. fused.h says how they work. */
#include "layers.h"

/* First frame of the span in which windows begin `steps` steps before their query; see fused.h. */
ALLIN1_INLINE ptrdiff_t span_start(int steps, int kernel_size, ptrdiff_t dilation, ptrdiff_t length) {
    return steps <= kernel_size / 2 ? steps * dilation : length - (kernel_size - steps) * dilation;
}

ALLIN1_INLINE ptrdiff_t larger(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

ALLIN1_INLINE ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* Parameters of one linear layer, and a step to the next. */
ALLIN1_INLINE const float *take(const float **parameters, ptrdiff_t size) {
    const float *taken = *parameters;
    *parameters += size;
    return taken;
}

/* Rows of scratch, and a step behind them. */
ALLIN1_INLINE output_t reserve(float **scratch, int num_rows, ptrdiff_t stride) {
    const output_t reserved = {*scratch, stride};
    *scratch += num_rows * stride;
    return reserved;
}

/* First frame of the next chunk or tile, of `size` frames, that no thread has taken, or -1. */
ALLIN1_INLINE ptrdiff_t next_frame(const pass_t *pass, ptrdiff_t size) {
    const ptrdiff_t frame = (ptrdiff_t)__atomic_fetch_add(pass->counter, 1, __ATOMIC_RELAXED) * size;
    return frame < pass->frames ? frame : -1;
}

/* An instrument's columns [0, count) of `hidden`, as the next block reads them: with keys and values for its time
 * attentions. Behind the track's end more columns may be written. */
ALLIN1_INLINE void pass_on(const pass_t *pass, int instrument, ptrdiff_t frame, int count, int columns, input_t hidden,
                           output_t normalised, output_t projected) {
    const output_t next_hidden = {pass->hidden + frame, pass->stride};
    const output_t next = {pass->keys_values + instrument * KEY_VALUE_ROWS * pass->stride + frame, pass->stride};
    copy_columns(next_hidden.from(instrument * CHANNELS), hidden, CHANNELS, count);
    normalise(hidden, CHANNELS, normalised, columns, pass->epsilon);
    const int whole = count == columns || frame + count == pass->frames;
    const output_t to = {whole ? next.data : projected.data, whole ? next.stride : projected.stride};
    linear(pass->next_parameters, CHANNELS, KEY_VALUE_ROWS, normalised, to, columns);
    if (!whole)
        copy_columns(next, projected, KEY_VALUE_ROWS, count);
}

/* The stem: three convolutions, layer norm, and the first block's keys and values. */
void stem(const pass_t *pass, float *scratch) {
    enum { INPUT_STRIDE = TILE_STRIDE + 16, INNER_STRIDE = CHUNK_STRIDE + 16 };
    const float *parameters = pass->parameters;
    const float *convolution0 = take(&parameters, LINEAR_SIZE(9, CHANNELS / 2));
    const float *convolution1 = take(&parameters, LINEAR_SIZE(12 * CHANNELS / 2, CHANNELS));
    const float *convolution2 = take(&parameters, LINEAR_SIZE(9 * CHANNELS, CHANNELS));
    const float *norm_weight = take(&parameters, CHANNELS), *norm_bias = take(&parameters, CHANNELS);
    const output_t input = reserve(&scratch, BANDS, INPUT_STRIDE); /* column 0 a frame early */
    const output_t outer = reserve(&scratch, POOLED0 * CHANNELS / 2, TILE_STRIDE);
    const output_t inner = reserve(&scratch, POOLED1 * CHANNELS, INNER_STRIDE); /* of the chunk, a frame early */
    const output_t hidden = reserve(&scratch, CHANNELS, TILE_STRIDE);
    const output_t normalised = reserve(&scratch, CHANNELS, TILE_STRIDE);
    const output_t projected = reserve(&scratch, KEY_VALUE_ROWS, TILE_STRIDE);

    for (ptrdiff_t start; (start = next_frame(pass, CHUNK)) >= 0;) {
        ptrdiff_t stop = smaller(start + CHUNK, pass->frames);
        for (int instrument = 0; instrument < INSTRUMENTS; instrument++) {
            const float *spectrogram = pass->spectrogram + instrument * pass->frames * BANDS;
            for (ptrdiff_t tile = start - 1; tile < stop + 1; tile += TILE) {
                int columns = (int)((smaller(TILE, stop + 1 - tile) + BLOCK - 1) / BLOCK * BLOCK);
                for (int column = 0; column < columns + 2; column++) {
                    ptrdiff_t frame = tile - 1 + column;
                    if (frame >= 0 && frame < pass->frames)
                        for (int band = 0; band < BANDS; band++)
                            input.data[band * INPUT_STRIDE + column] = spectrogram[frame * BANDS + band];
                    else
                        for (int band = 0; band < BANDS; band++)
                            input.data[band * INPUT_STRIDE + column] = 0.0f;
                }
                for (int band = 0; band < POOLED0; band++)
                    convolve(convolution0, 3, 3, CHANNELS / 2, input.from(3 * band), 1, outer.from(band * (CHANNELS / 2)),
                             columns);
                for (int band = 0; band < POOLED1; band++)
                    convolve(convolution1, 1, 12 * CHANNELS / 2, CHANNELS, outer.from(3 * band * (CHANNELS / 2)),
                             CHANNELS / 2, inner.from(band * CHANNELS, tile - start + 1), columns);
            }
            /* What lies outside the track is zero to the third convolution, not a convolution of zeros. */
            for (int row = 0; row < POOLED1 * CHANNELS; row++) {
                if (start == 0)
                    *inner.at(row) = 0.0f;
                if (stop == pass->frames)
                    *inner.at(row, stop - start + 1) = 0.0f;
            }
            for (ptrdiff_t tile = start; tile < stop; tile += TILE) {
                int count = (int)smaller(TILE, stop - tile), columns = (count + BLOCK - 1) / BLOCK * BLOCK;
                convolve(convolution2, 3, 3 * CHANNELS, CHANNELS, inner.from(0, tile - start), CHANNELS, hidden, columns);
                normalise(hidden, CHANNELS, hidden, columns, 1e-5f);
                scale(hidden, CHANNELS, columns, norm_weight, norm_bias);
                pass_on(pass, instrument, tile, count, columns, hidden, normalised, projected);
            }
        }
    }
}

/* Parameters of a block, in the order of BLOCK_SIZE. */
struct block_t {
    const float *queries, *time_bias, *output1, *output2, *time_up, *time_down;
    const float *instrument_keys_values, *constant_key, *constant_value, *instrument_queries, *instrument_bias;
    const float *instrument_output, *instrument_up, *instrument_down;
};

ALLIN1_INLINE block_t read_block(const float *parameters) {
    block_t block;
    block.queries = take(&parameters, LINEAR_SIZE(CHANNELS, 2 * CHANNELS));
    block.time_bias = take(&parameters, 2 * HEADS * BIASES);
    block.output1 = take(&parameters, LINEAR_SIZE(CHANNELS, CHANNELS));
    block.output2 = take(&parameters, LINEAR_SIZE(CHANNELS, CHANNELS));
    block.time_up = take(&parameters, LINEAR_SIZE(2 * CHANNELS, TIME_INNER));
    block.time_down = take(&parameters, LINEAR_SIZE(TIME_INNER, CHANNELS));
    block.instrument_keys_values = take(&parameters, LINEAR_SIZE(CHANNELS, 2 * CHANNELS));
    block.constant_key = take(&parameters, CHANNELS);
    block.constant_value = take(&parameters, CHANNELS);
    block.instrument_queries = take(&parameters, LINEAR_SIZE(CHANNELS, CHANNELS));
    block.instrument_bias = take(&parameters, HEADS * BIASES * BIASES);
    block.instrument_output = take(&parameters, LINEAR_SIZE(CHANNELS, CHANNELS));
    block.instrument_up = take(&parameters, LINEAR_SIZE(CHANNELS, INSTRUMENT_INNER));
    block.instrument_down = take(&parameters, LINEAR_SIZE(INSTRUMENT_INNER, CHANNELS));
    return block;
}

/* output += down(gelu(up(x))), a slice of the inner width at a time. `up` and `down` lie slice by slice, each slice a
 * linear layer of its own; the bias of `down` is in its first slice. */
ALLIN1_INLINE void feed_forward(const float *up, const float *down, int num_inputs, int inner, input_t x,
                                output_t slice, output_t output, int columns, ahead_t *ahead) {
    for (int first = 0; first < inner; first += SLICE) {
        linear<GELU>(up, num_inputs, SLICE, x, slice, columns, {NULL, 0}, ahead);
        linear<ADD>(down - CHANNELS, SLICE, CHANNELS, slice, output, columns);
        up += LINEAR_SIZE(num_inputs, SLICE);
        down += SLICE * CHANNELS;
    }
}

/* One instrument's time layer on the columns of a tile that begins at `frame`, and keys and values of its result. */
ALLIN1_INLINE void time_layer(const pass_t *pass, const block_t *block, int instrument, ptrdiff_t frame,
                              int count, int columns, output_t work, output_t output, ahead_t *ahead) {
    const output_t normalised = work, queries = normalised.from(2 * CHANNELS);
    const output_t attended = queries.from(2 * CHANNELS), both = attended.from(2 * CHANNELS);
    const output_t slice = both.from(2 * CHANNELS);
    const output_t hidden = {pass->hidden + instrument * CHANNELS * pass->stride + frame, pass->stride};

    normalise(hidden, CHANNELS, normalised, columns, pass->epsilon);
    linear(block->queries, CHANNELS, 2 * CHANNELS, normalised, queries, columns, {NULL, 0}, ahead);
    for (int attention = 0; attention < 2; attention++) {
        ptrdiff_t dilation = pass->dilation << attention;
        const float *keys = pass->keys_values + (instrument * KEY_VALUE_ROWS + attention * 2 * CHANNELS) * pass->stride;
        for (int steps = 0; steps < KEYS; steps++) {
            ptrdiff_t start = larger(span_start(steps, KEYS, dilation, pass->length), frame);
            ptrdiff_t stop = smaller(span_start(steps + 1, KEYS, dilation, pass->length), frame + count);
            if (start >= stop)
                continue;
            for (int head = 0; head < HEADS; head++) {
                const float *head_keys = keys + head * HEAD * pass->stride + frame - steps * dilation;
                const float *head_values = head_keys + CHANNELS * pass->stride;
                const float *bias = block->time_bias + (attention * HEADS + head) * BIASES + KEYS - 1 - steps;
                const windows_t windows = {&head_keys, &head_values, &bias, pass->stride, 1, KEYS, HEAD, dilation, NULL, NULL,
                                           0, 0};
                const ptrdiff_t row = (attention * HEADS + head) * HEAD;
                attend(windows, queries.from(row), attended.from(row), (int)(start - frame), (int)(stop - frame));
            }
        }
    }
    linear(block->output1, CHANNELS, CHANNELS, attended, both, columns, hidden);
    linear(block->output2, CHANNELS, CHANNELS, attended.from(CHANNELS), both.from(CHANNELS), columns, hidden);
    for (int row = 0; row < CHANNELS; row++)
        for (int column = 0; column < columns; column += LANES)
            store(output.at(row, column), (load(both.at(row, column)) + load(both.at(CHANNELS + row, column))) * 0.5f +
                                              block->time_down[row]);
    normalise(both, 2 * CHANNELS, normalised, columns, pass->epsilon);
    feed_forward(block->time_up, block->time_down + CHANNELS, 2 * CHANNELS, TIME_INNER, normalised, slice, output, columns,
                 ahead);
    copy_columns(hidden, output, CHANNELS, columns);
    normalise(output, CHANNELS, normalised, columns, pass->epsilon);
    const output_t keys_values = {pass->instrument_keys_values + frame, pass->stride};
    linear(block->instrument_keys_values, CHANNELS, 2 * CHANNELS, normalised,
           keys_values.from(instrument * 2 * CHANNELS), columns);
}

/* Attention of two instruments, `first` and the next one, on the columns of a tile that begins at `frame`. */
ALLIN1_INLINE void attend_instruments(const pass_t *pass, const block_t *block, int first, ptrdiff_t frame, int count,
                                      int columns, output_t normalised, output_t queries, output_t attended,
                                      ahead_t *ahead) {
    const input_t hidden = {pass->hidden + frame, pass->stride};
    const input_t keys_values = {pass->instrument_keys_values + frame, pass->stride};
    ptrdiff_t length = larger(pass->frames, KEYS);

    for (int i = 0; i < 2; i++) {
        normalise(hidden.from((first + i) * CHANNELS), CHANNELS, normalised, columns, pass->epsilon);
        linear(block->instrument_queries, CHANNELS, CHANNELS, normalised, queries.from(i * CHANNELS), columns, {NULL, 0},
               ahead);
    }
    for (int steps = 0; steps < KEYS; steps++) {
        ptrdiff_t start = larger(span_start(steps, KEYS, 1, length), frame);
        ptrdiff_t stop = smaller(span_start(steps + 1, KEYS, 1, length), frame + count);
        if (start >= stop)
            continue;
        for (int head = 0; head < HEADS; head++) {
            const float *keys[INSTRUMENTS], *values[INSTRUMENTS], *bias[INSTRUMENTS + 1];
            for (int row = 0; row < INSTRUMENTS; row++) {
                keys[row] = keys_values.at(row * 2 * CHANNELS + head * HEAD, -steps);
                values[row] = keys_values.at((row * 2 + 1) * CHANNELS + head * HEAD, -steps);
            }
            for (int row = 0; row < INSTRUMENTS + 1; row++)
                bias[row] = block->instrument_bias + (head * BIASES + row - first + KEYS - 1) * BIASES + KEYS - 1 - steps;
            const windows_t windows = {keys, values, bias, keys_values.stride, INSTRUMENTS, KEYS, HEAD, 1,
                                       block->constant_key + head * HEAD, block->constant_value + head * HEAD,
                                       CHANNELS * queries.stride, -BIASES};
            for (ptrdiff_t column = start - frame; column < stop - frame; column += LANES)
                attend_columns<2, true>(windows, queries.from(head * HEAD), attended.from(head * HEAD), column);
        }
    }
}

/* What follows attention in one instrument's instrument layer. */
ALLIN1_INLINE void after_instruments(const pass_t *pass, const block_t *block, int instrument, ptrdiff_t frame, int columns,
                                     input_t attended, output_t normalised, output_t slice, output_t output,
                                     ahead_t *ahead) {
    const input_t hidden = {pass->hidden + instrument * CHANNELS * pass->stride + frame, pass->stride};
    linear(block->instrument_output, CHANNELS, CHANNELS, attended, output, columns, hidden);
    normalise(output, CHANNELS, normalised, columns, pass->epsilon);
    for (int row = 0; row < CHANNELS; row++)
        for (int column = 0; column < columns; column += LANES)
            store(output.at(row, column), load(output.at(row, column)) + block->instrument_down[row]);
    feed_forward(block->instrument_up, block->instrument_down + CHANNELS, CHANNELS, INSTRUMENT_INNER, normalised, slice,
                 output, columns, ahead);
}

/* Final layer norm of one instrument's tile, its share of the logits, and its embeddings if they are wanted. */
ALLIN1_INLINE void finish(const pass_t *pass, int instrument, ptrdiff_t frame, int count, int columns, output_t hidden,
                          output_t logits) {
    const float *parameters = pass->next_parameters;
    const float *weight = take(&parameters, CHANNELS), *bias = take(&parameters, CHANNELS);
    normalise(hidden, CHANNELS, hidden, columns, pass->epsilon);
    scale(hidden, CHANNELS, columns, weight, bias);
    /* Bias once, then each instrument's weights. */
    if (instrument == 0)
        for (int row = 0; row < LOGITS_PADDED; row++)
            for (int column = 0; column < columns; column += LANES)
                store(logits.at(row, column), broadcast(parameters[row]));
    parameters += instrument * CHANNELS * LOGITS_PADDED;
    linear<ADD>(parameters, CHANNELS, LOGITS_PADDED, hidden, logits, columns);
    if (instrument == INSTRUMENTS - 1)
        for (int row = 0; row < LOGITS; row++)
            for (int column = 0; column < count; column++)
                pass->logits[row * pass->frames + frame + column] += *logits.at(row, column);
    if (pass->embeddings)
        for (int column = 0; column < count; column++) {
            float *to = pass->embeddings + (instrument * pass->frames + frame + column) * CHANNELS * pass->embedding_step;
            for (int row = 0; row < CHANNELS; row++)
                to[row * pass->embedding_step] = *hidden.at(row, column);
        }
}

/* What an instrument's tile at `frame` will read; nothing if that is -1. `keys_values` has 2 * CHANNELS rows for each
 * instrument and attention, and the dilation doubles from one attention to the next. */
ALLIN1_INLINE ahead_t look_ahead(const pass_t *pass, int instrument, ptrdiff_t frame, const float *keys_values,
                                 int attentions, ptrdiff_t dilation, ptrdiff_t length) {
    const input_t hidden = {pass->hidden, pass->stride}, windows = {keys_values, pass->stride};
    ahead_t ahead = {};
    if (frame < 0)
        return ahead;
    ahead.num_rows = attentions * 2 * CHANNELS;
    ahead.hidden = hidden.from(instrument * CHANNELS, frame);
    for (int attention = 0; attention < attentions; attention++, dilation *= 2) {
        int steps = 0;
        while (steps < KEYS - 1 && span_start(steps + 1, KEYS, dilation, length) <= frame)
            steps++;
        ahead.dilation[attention] = dilation;
        ahead.keys_values[attention] =
            windows.from((instrument * attentions + attention) * 2 * CHANNELS, frame - steps * dilation);
    }
    return ahead;
}

/* A block's time layers. */
void time_layers(const pass_t *pass, float *scratch) {
    const block_t block = read_block(pass->parameters);
    const output_t output = reserve(&scratch, CHANNELS, TILE_STRIDE), work = {scratch, TILE_STRIDE};

    for (ptrdiff_t frame = next_frame(pass, TILE), next; frame >= 0; frame = next) {
        next = next_frame(pass, TILE);
        const int count = (int)smaller(TILE, pass->frames - frame), columns = (count + BLOCK - 1) / BLOCK * BLOCK;
        for (int instrument = 0; instrument < INSTRUMENTS; instrument++) {
            const int following = (instrument + 1) % INSTRUMENTS;
            ahead_t ahead = look_ahead(pass, following, following ? frame : next, pass->keys_values, 2, pass->dilation,
                                       pass->length);
            time_layer(pass, &block, instrument, frame, count, columns, work, output, &ahead);
            /* Zeros appended before the projections: keys and values are then the projections' biases. */
            const output_t keys_values = {pass->instrument_keys_values, pass->stride};
            for (ptrdiff_t column = pass->frames; column < KEYS; column++)
                for (int row = 0; row < CHANNELS; row++) {
                    *keys_values.at(instrument * 2 * CHANNELS + row, column) = block.constant_key[row];
                    *keys_values.at((instrument * 2 + 1) * CHANNELS + row, column) = block.constant_value[row];
                }
        }
    }
}

/* A block's instrument layers, and what comes next: the following block's keys and values, or the heads. */
void instrument_layers(const pass_t *pass, float *scratch) {
    const block_t block = read_block(pass->parameters);
    const output_t output = reserve(&scratch, CHANNELS, TILE_STRIDE);
    const output_t logits = reserve(&scratch, LOGITS_PADDED, TILE_STRIDE), work = {scratch, TILE_STRIDE};
    const output_t queries = work.from(CHANNELS), attended = queries.from(2 * CHANNELS);
    const output_t slice = attended.from(2 * CHANNELS), projected = queries;

    for (ptrdiff_t frame = next_frame(pass, TILE), next; frame >= 0; frame = next) {
        next = next_frame(pass, TILE);
        const int count = (int)smaller(TILE, pass->frames - frame), columns = (count + BLOCK - 1) / BLOCK * BLOCK;
        for (int instrument = 0; instrument < INSTRUMENTS; instrument++) {
            ahead_t ahead = look_ahead(pass, instrument, next, pass->instrument_keys_values, 1, 1,
                                       larger(pass->frames, KEYS));
            if (instrument % 2 == 0)
                attend_instruments(pass, &block, instrument, frame, count, columns, work, queries, attended, &ahead);
            after_instruments(pass, &block, instrument, frame, columns, attended.from(instrument % 2 * CHANNELS), work, slice,
                              output, &ahead);
            if (pass->logits)
                finish(pass, instrument, frame, count, columns, output, logits);
            else
                pass_on(pass, instrument, frame, count, columns, output, work, projected);
        }
    }
}

/* Neighbourhood attention of any shape, for one sequence and head; the network itself does not use it. */
void attention(const attention_t *call) {
    for (ptrdiff_t row = 0; row < call->rows; row++)
        for (int steps = 0; steps < call->kernel_size; steps++) {
            int kernel_size = (int)call->kernel_size;
            ptrdiff_t start = span_start(steps, kernel_size, call->dilation, call->frames);
            ptrdiff_t stop = span_start(steps + 1, kernel_size, call->dilation, call->frames);
            const float *keys[MAX_KEYS], *values[MAX_KEYS], *bias[MAX_KEYS];
            for (ptrdiff_t r = 0; r < call->row_keys; r++) {
                ptrdiff_t offset = call->row_windows[row * call->row_keys + r] * call->channels * call->stride -
                                   steps * call->dilation;
                keys[r] = call->keys + offset;
                values[r] = call->values + offset;
                bias[r] = call->bias + call->row_biases[row * call->row_keys + r] * (2 * kernel_size - 1) +
                          kernel_size - 1 - steps;
            }
            const windows_t windows = {keys, values, bias, call->stride, (int)call->row_keys, kernel_size,
                                       (int)call->channels, call->dilation, NULL, NULL, 0, 0};
            const input_t queries = {call->queries, call->stride};
            const output_t output = {call->output, call->stride};
            attend(windows, queries.from(row * call->channels), output.from(row * call->channels), (int)start, (int)stop);
        }
}

constexpr kernels_t kernels = {stem, time_layers, instrument_layers, attention};
