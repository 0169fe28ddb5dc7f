/* The kernels of fused.h for one instruction set (ISA, VECTOR_BYTES). Included several times.
 *
 * LANES is the vector length in floats, VECTORS the vectors that a linear layer accumulates side by side for each of
 * OUTPUTS outputs: as many as the set's 16 or 32 registers hold. */

#define NAME(name) PASTE(name, ISA)
#define LANES (VECTOR_BYTES / 4)
#if VECTOR_BYTES == 64 || defined(__aarch64__)
#define VECTORS 4
#else
#define VECTORS 2
#endif
#define vec NAME(vec)
#define unaligned_vec NAME(unaligned_vec)
#define int_vec NAME(int_vec)
#define BLOCK (LANES * VECTORS) /* columns that a linear layer computes at a time */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float unaligned_vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t int_vec __attribute__((vector_size(4 * LANES)));

#define load NAME(load)
ALLIN1_INLINE vec load(const float *from) { return *(const unaligned_vec *)from; }

#define store NAME(store)
ALLIN1_INLINE void store(float *to, vec value) { *(unaligned_vec *)to = value; }

#define maximum NAME(maximum)
ALLIN1_INLINE vec maximum(vec a, vec b) {
    int_vec greater = a > b;
    return (vec)(((int_vec)a & greater) | ((int_vec)b & ~greater));
}

#define minimum NAME(minimum)
ALLIN1_INLINE vec minimum(vec a, vec b) {
    int_vec less = a < b;
    return (vec)(((int_vec)a & less) | ((int_vec)b & ~less));
}

#define broadcast NAME(broadcast)
ALLIN1_INLINE vec broadcast(float value) { return (vec){} + value; }

/* e^x for x <= 0, relative error 2e-7. With n = round(x / ln 2) and r = x - n ln 2, e^x = 2^n e^r; on |r| <= ln 2 / 2,
 * e^r = 1 + r + r^2 p(r) with p of degree 4 fitted to 3e-9. Adding 1.5 * 2^23 rounds to an integer and leaves it in the
 * low bits; ln 2 is subtracted in two parts so that n ln 2 is exact enough. Below -87 the result is about e^-87. */
#define exponential NAME(exponential)
ALLIN1_INLINE vec exponential(vec x) {
    const float magic = 12582912.0f;
    x = maximum(x, broadcast(-87.0f));
    vec shifted = x * 1.44269504f + magic;
    vec n = shifted - magic;
    vec r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vec p = r * 1.381446704e-3f + 8.368780605e-3f;
    p = p * r + 4.166839423e-2f;
    p = p * r + 1.666652011e-1f;
    p = p * r + 4.999999341e-1f;
    p = p * (r * r) + r + 1.0f;
    int_vec power = ((int_vec)shifted - 0x4B400000) << 23;
    return (vec)((int_vec)p + power);
}

/* x Phi(x), Phi the normal distribution function: the exact GELU. Phi(x) = 1/2 + x P(x^2) / Q(x^2) with P and Q of degree
 * 5 fitted to a relative 2.2e-8 of Phi - 1/2 on |x| <= 5.6, beyond which Phi is 0 or 1 to float32's precision. */
#define gelu NAME(gelu)
ALLIN1_INLINE vec gelu(vec x) {
    vec c = maximum(minimum(x, broadcast(5.6f)), broadcast(-5.6f));
    vec z = c * c;
    vec p = z * 2.229734012e-8f + 6.289801756e-6f;
    p = p * z + 1.689312440e-4f;
    p = p * z + 4.677362663e-3f;
    p = p * z + 3.392921310e-2f;
    p = p * z + 3.989422719e-1f;
    vec q = z * 1.179656617e-6f + 7.334488897e-5f;
    q = q * z + 1.885503173e-3f;
    q = q * z + 2.867766436e-2f;
    q = q * z + 2.517142515e-1f;
    q = q * z + 1.0f;
    return x * (c * p / q + 0.5f);
}

/* x where x > 0, else e^x - 1. */
#define elu NAME(elu)
ALLIN1_INLINE vec elu(vec x) {
    vec zero = broadcast(0.0f);
    return maximum(x, zero) + (exponential(minimum(x, zero)) - 1.0f);
}

/* accumulated[n][v] += sum over k of weights[k][n] * x[k][columns of v]: the inner loop of everything linear. */
#define accumulate NAME(accumulate)
ALLIN1_INLINE void accumulate(vec accumulated[OUTPUTS][VECTORS], const float *weights, const float *x, ptrdiff_t stride,
                              int num_inputs) {
    for (int k = 0; k < num_inputs; k++) {
        vec columns[VECTORS];
        for (int v = 0; v < VECTORS; v++)
            columns[v] = load(x + k * stride + v * LANES);
        for (int n = 0; n < OUTPUTS; n++)
            for (int v = 0; v < VECTORS; v++)
                accumulated[n][v] += weights[k * OUTPUTS + n] * columns[v];
    }
}

enum { NAME(PLAIN), NAME(GELU), NAME(ADD) };

/* A linear layer on `columns` columns (rounded up to BLOCK): y = weights x + bias; with GELU y = gelu(..); with ADD
 * y += ..; a residual, if there is one, is added. Parameters: bias (outputs), then weights
 * (outputs / OUTPUTS, inputs, OUTPUTS). */
#define linear NAME(linear)
ALLIN1_INLINE void linear(const float *parameters, int num_inputs, int num_outputs, const float *x, ptrdiff_t x_stride,
                          float *y, ptrdiff_t y_stride, int columns, int what, const float *residual,
                          ptrdiff_t residual_stride) {
    const float *bias = parameters, *weights = parameters + num_outputs;
    for (int first = 0; first < num_outputs; first += OUTPUTS, weights += num_inputs * OUTPUTS)
        for (int column = 0; column < columns; column += BLOCK) {
            vec accumulated[OUTPUTS][VECTORS];
            for (int n = 0; n < OUTPUTS; n++)
                for (int v = 0; v < VECTORS; v++) {
                    if (what == NAME(ADD))
                        accumulated[n][v] = load(y + (first + n) * y_stride + column + v * LANES);
                    else
                        accumulated[n][v] = broadcast(bias[first + n]);
                    if (residual)
                        accumulated[n][v] += load(residual + (first + n) * residual_stride + column + v * LANES);
                }
            accumulate(accumulated, weights, x + column, x_stride, num_inputs);
            for (int n = 0; n < OUTPUTS; n++)
                for (int v = 0; v < VECTORS; v++) {
                    vec value = accumulated[n][v];
                    if (what == NAME(GELU))
                        value = gelu(value);
                    store(y + (first + n) * y_stride + column + v * LANES, value);
                }
        }
}

/* (x - mean) / sqrt(variance + epsilon) over the rows, for each column. */
#define normalise NAME(normalise)
ALLIN1_INLINE void normalise(const float *x, ptrdiff_t x_stride, int rows, float *y, ptrdiff_t y_stride, int columns,
                             float epsilon) {
    for (int column = 0; column < columns; column += LANES) {
        vec mean = broadcast(0.0f), variance = broadcast(0.0f), inverse;
        for (int row = 0; row < rows; row++)
            mean += load(x + row * x_stride + column);
        mean *= 1.0f / (float)rows;
        for (int row = 0; row < rows; row++) {
            vec centred = load(x + row * x_stride + column) - mean;
            variance += centred * centred;
        }
        variance = variance * (1.0f / (float)rows) + epsilon;
        for (int lane = 0; lane < LANES; lane++)
            inverse[lane] = 1.0f / sqrtf(variance[lane]);
        for (int row = 0; row < rows; row++)
            store(y + row * y_stride + column, (load(x + row * x_stride + column) - mean) * inverse);
    }
}

/* y = y * weight + bias, row by row. */
#define scale NAME(scale)
ALLIN1_INLINE void scale(float *y, ptrdiff_t stride, int rows, int columns, const float *weight, const float *bias) {
    for (int row = 0; row < rows; row++)
        for (int column = 0; column < columns; column += LANES)
            store(y + row * stride + column, load(y + row * stride + column) * weight[row] + bias[row]);
}

#define copy_columns NAME(copy_columns)
ALLIN1_INLINE void copy_columns(float *to, ptrdiff_t to_stride, const float *from, ptrdiff_t from_stride, int rows,
                                int columns) {
    for (int row = 0; row < rows; row++)
        memcpy(to + row * to_stride, from + row * from_stride, (size_t)columns * sizeof(float));
}

/* One head's attention for the columns [start, stop) of one span, where windows begin at the same offset. Column f of
 * `queries` and `output` sees, in each of `num_rows` rows, the columns f + j * step of keys and values, j < num_keys;
 * the pointers already stand at the first one. `bias[row]` points to the bias of its first key. With `constant`, one
 * more row has the same keys and values in all columns. */
#define attend NAME(attend)
ALLIN1_INLINE void attend(const float *queries, ptrdiff_t query_stride, const float *const *keys,
                          const float *const *values, ptrdiff_t stride, const float *const *bias, int num_rows,
                          int num_keys, int channels, ptrdiff_t step, const float *constant_key,
                          const float *constant_value, int start, int stop, float *output, ptrdiff_t output_stride) {
    int total = (num_rows + (constant_key != NULL)) * num_keys;
    for (int column = start; column < stop; column += LANES) {
        vec scores[MAX_KEYS];
        for (int row = 0; row < num_rows; row++)
            for (int j = 0; j < num_keys; j++)
                scores[row * num_keys + j] = broadcast(bias[row][j]);
        vec constant = broadcast(0.0f);
        for (int c = 0; c < channels; c++) {
            vec query = load(queries + c * query_stride + column);
            for (int row = 0; row < num_rows; row++)
                for (int j = 0; j < num_keys; j++)
                    scores[row * num_keys + j] += query * load(keys[row] + c * stride + column + j * step);
            if (constant_key)
                constant += query * constant_key[c];
        }
        if (constant_key)
            for (int j = 0; j < num_keys; j++)
                scores[num_rows * num_keys + j] = constant + bias[num_rows][j];
        vec largest = scores[0];
        for (int s = 1; s < total; s++)
            largest = maximum(largest, scores[s]);
        vec sum = broadcast(0.0f);
        for (int s = 0; s < total; s++) {
            scores[s] = exponential(scores[s] - largest);
            sum += scores[s];
        }
        vec inverse = 1.0f / sum;
        vec constant_weight = broadcast(0.0f);
        if (constant_key)
            for (int j = 0; j < num_keys; j++)
                constant_weight += scores[num_rows * num_keys + j];
        for (int c = 0; c < channels; c++) {
            vec attended = constant_key ? constant_weight * constant_value[c] : broadcast(0.0f);
            for (int row = 0; row < num_rows; row++)
                for (int j = 0; j < num_keys; j++)
                    attended += scores[row * num_keys + j] * load(values[row] + c * stride + column + j * step);
            store(output + c * output_stride + column, attended * inverse);
        }
    }
}

/* First frame of the span in which windows begin `steps` steps before their query; see fused.h. */
#define span_start NAME(span_start)
ALLIN1_INLINE ptrdiff_t span_start(int steps, int kernel_size, ptrdiff_t dilation, ptrdiff_t length) {
    return steps <= kernel_size / 2 ? steps * dilation : length - (kernel_size - steps) * dilation;
}

#define larger NAME(larger)
ALLIN1_INLINE ptrdiff_t larger(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

#define smaller NAME(smaller)
ALLIN1_INLINE ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* Parameters of one linear layer, and a step to the next. */
#define take NAME(take)
ALLIN1_INLINE const float *take(const float **parameters, ptrdiff_t size) {
    const float *taken = *parameters;
    *parameters += size;
    return taken;
}

/* A convolution, the maximum over three bands, and ELU. Rows of x: (band, channel) with `band_rows` rows a band.
 * Output band 0 of the pool takes the convolution at bands 0, 1 and 2. Each of `taps` taps in time is a linear layer on
 * `inputs` rows from the band on, one column later than the tap before. Parameters: bias, then
 * (outputs / OUTPUTS, taps, inputs, OUTPUTS). */
#define convolve NAME(convolve)
ALLIN1_INLINE void convolve(const float *parameters, int taps, int inputs, int num_outputs, const float *x,
                            ptrdiff_t x_stride, int band_rows, float *y, ptrdiff_t y_stride, int columns) {
    const float *bias = parameters, *weights = parameters + num_outputs;
    for (int first = 0; first < num_outputs; first += OUTPUTS, weights += taps * inputs * OUTPUTS)
        for (int column = 0; column < columns; column += BLOCK)
            for (int band = 0; band < 3; band++) {
                vec accumulated[OUTPUTS][VECTORS];
                for (int n = 0; n < OUTPUTS; n++)
                    for (int v = 0; v < VECTORS; v++)
                        accumulated[n][v] = broadcast(bias[first + n]);
                for (int tap = 0; tap < taps; tap++)
                    accumulate(accumulated, weights + tap * inputs * OUTPUTS,
                               x + band * band_rows * x_stride + column + tap, x_stride, inputs);
                for (int n = 0; n < OUTPUTS; n++)
                    for (int v = 0; v < VECTORS; v++) {
                        float *to = y + (first + n) * y_stride + column + v * LANES;
                        vec value = accumulated[n][v];
                        if (band > 0)
                            value = maximum(value, load(to));
                        if (band == 2)
                            value = elu(value);
                        store(to, value);
                    }
            }
}

/* Number of the next chunk that no thread has taken, or -1. */
#define next_chunk NAME(next_chunk)
ALLIN1_INLINE ptrdiff_t next_chunk(const pass_t *pass) {
    ptrdiff_t chunk = (ptrdiff_t)__atomic_fetch_add(pass->chunk_counter, 1, __ATOMIC_RELAXED);
    return chunk * CHUNK < pass->frames ? chunk : -1;
}

/* Keys and values for the next block's time attentions: columns [0, count) of `hidden` (one instrument's rows). */
#define project_keys_values NAME(project_keys_values)
ALLIN1_INLINE void project_keys_values(const float *parameters, const float *hidden, ptrdiff_t hidden_stride,
                                       float *normalised, float *projected, float *keys_values, ptrdiff_t stride,
                                       int count, int columns, float epsilon) {
    normalise(hidden, hidden_stride, CHANNELS, normalised, TILE_STRIDE, columns, epsilon);
    int whole = count == columns;
    float *to = whole ? keys_values : projected;
    ptrdiff_t to_stride = whole ? stride : TILE_STRIDE;
    linear(parameters, CHANNELS, KEY_VALUE_ROWS, normalised, TILE_STRIDE, to, to_stride, columns, NAME(PLAIN), NULL, 0);
    if (!whole)
        copy_columns(keys_values, stride, projected, TILE_STRIDE, KEY_VALUE_ROWS, count);
}

/* The stem: three convolutions, layer norm, and the first block's keys and values. */
static void NAME(stem)(const pass_t *pass, float *scratch) {
    enum { INPUT_STRIDE = TILE_STRIDE + 16, INNER_STRIDE = CHUNK_STRIDE + 16 };
    const float *parameters = pass->parameters;
    const float *convolution0 = take(&parameters, LINEAR_SIZE(9, CHANNELS / 2));
    const float *convolution1 = take(&parameters, LINEAR_SIZE(12 * CHANNELS / 2, CHANNELS));
    const float *convolution2 = take(&parameters, LINEAR_SIZE(9 * CHANNELS, CHANNELS));
    const float *norm_weight = take(&parameters, CHANNELS), *norm_bias = take(&parameters, CHANNELS);
    float *input = scratch;                                       /* (BANDS), column 0 a frame early */
    float *outer = input + BANDS * INPUT_STRIDE;                  /* (POOLED0, CHANNELS / 2) */
    float *inner = outer + POOLED0 * CHANNELS / 2 * TILE_STRIDE;  /* (POOLED1, CHANNELS), of the chunk, a frame early */
    float *hidden = inner + POOLED1 * CHANNELS * INNER_STRIDE;
    float *normalised = hidden + CHANNELS * TILE_STRIDE;
    float *projected = normalised + CHANNELS * TILE_STRIDE;

    for (ptrdiff_t chunk; (chunk = next_chunk(pass)) >= 0;) {
        ptrdiff_t start = chunk * CHUNK, stop = smaller(start + CHUNK, pass->frames);
        for (int instrument = 0; instrument < INSTRUMENTS; instrument++) {
            const float *spectrogram = pass->spectrogram + instrument * pass->frames * BANDS;
            for (ptrdiff_t tile = start - 1; tile < stop + 1; tile += TILE) {
                int columns = (int)((smaller(TILE, stop + 1 - tile) + BLOCK - 1) / BLOCK * BLOCK);
                for (int column = 0; column < columns + 2; column++) {
                    ptrdiff_t frame = tile - 1 + column;
                    if (frame >= 0 && frame < pass->frames)
                        for (int band = 0; band < BANDS; band++)
                            input[band * INPUT_STRIDE + column] = spectrogram[frame * BANDS + band];
                    else
                        for (int band = 0; band < BANDS; band++)
                            input[band * INPUT_STRIDE + column] = 0.0f;
                }
                for (int band = 0; band < POOLED0; band++)
                    convolve(convolution0, 3, 3, CHANNELS / 2, input + 3 * band * INPUT_STRIDE, INPUT_STRIDE, 1,
                             outer + band * (CHANNELS / 2) * TILE_STRIDE, TILE_STRIDE, columns);
                for (int band = 0; band < POOLED1; band++)
                    convolve(convolution1, 1, 12 * CHANNELS / 2, CHANNELS,
                             outer + 3 * band * (CHANNELS / 2) * TILE_STRIDE, TILE_STRIDE, CHANNELS / 2,
                             inner + band * CHANNELS * INNER_STRIDE + (tile - start + 1), INNER_STRIDE, columns);
            }
            /* What lies outside the track is zero to the third convolution, not a convolution of zeros. */
            for (int row = 0; row < POOLED1 * CHANNELS; row++) {
                if (start == 0)
                    inner[row * INNER_STRIDE] = 0.0f;
                if (stop == pass->frames)
                    inner[row * INNER_STRIDE + (stop - start) + 1] = 0.0f;
            }
            for (ptrdiff_t tile = start; tile < stop; tile += TILE) {
                int count = (int)smaller(TILE, stop - tile), columns = (count + BLOCK - 1) / BLOCK * BLOCK;
                convolve(convolution2, 3, 3 * CHANNELS, CHANNELS, inner + (tile - start), INNER_STRIDE, CHANNELS, hidden,
                         TILE_STRIDE, columns);
                normalise(hidden, TILE_STRIDE, CHANNELS, hidden, TILE_STRIDE, columns, 1e-5f);
                scale(hidden, TILE_STRIDE, CHANNELS, columns, norm_weight, norm_bias);
                copy_columns(pass->next_hidden + instrument * CHANNELS * pass->stride + tile, pass->stride, hidden,
                             TILE_STRIDE, CHANNELS, count);
                project_keys_values(pass->next_parameters, hidden, TILE_STRIDE, normalised, projected,
                                    pass->next_keys_values + instrument * KEY_VALUE_ROWS * pass->stride + tile,
                                    pass->stride, count, columns, pass->epsilon);
            }
        }
    }
}

/* Parameters of a block, in the order of BLOCK_SIZE. */
#define block_parameters NAME(block_parameters)
typedef struct {
    const float *queries, *time_bias, *output1, *output2, *time_up, *time_down;
    const float *instrument_keys_values, *constant_key, *constant_value, *instrument_queries, *instrument_bias;
    const float *instrument_output, *instrument_up, *instrument_down;
} block_parameters;

#define read_block NAME(read_block)
ALLIN1_INLINE block_parameters read_block(const float *parameters) {
    block_parameters block;
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
#define feed_forward NAME(feed_forward)
ALLIN1_INLINE void feed_forward(const float *up, const float *down, int num_inputs, int inner, const float *x,
                                float *slice, float *output, int columns) {
    for (int first = 0; first < inner; first += SLICE) {
        linear(up, num_inputs, SLICE, x, TILE_STRIDE, slice, TILE_STRIDE, columns, NAME(GELU), NULL, 0);
        linear(down - CHANNELS, SLICE, CHANNELS, slice, TILE_STRIDE, output, TILE_STRIDE, columns, NAME(ADD), NULL, 0);
        up += LINEAR_SIZE(num_inputs, SLICE);
        down += SLICE * CHANNELS;
    }
}

/* One instrument's time layer on the columns of a tile that begins at `frame`. */
#define time_layer NAME(time_layer)
ALLIN1_INLINE void time_layer(const pass_t *pass, const block_parameters *block, int instrument, ptrdiff_t frame,
                              int count, int columns, float *work, float *output) {
    float *normalised = work, *queries = normalised + 2 * CHANNELS * TILE_STRIDE;
    float *attended = queries + 2 * CHANNELS * TILE_STRIDE, *both = attended + 2 * CHANNELS * TILE_STRIDE;
    float *slice = both + 2 * CHANNELS * TILE_STRIDE;
    const float *hidden = pass->hidden + instrument * CHANNELS * pass->stride + frame;

    normalise(hidden, pass->stride, CHANNELS, normalised, TILE_STRIDE, columns, pass->epsilon);
    linear(block->queries, CHANNELS, 2 * CHANNELS, normalised, TILE_STRIDE, queries, TILE_STRIDE, columns, NAME(PLAIN), NULL, 0);
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
                ptrdiff_t row = (attention * HEADS + head) * HEAD * TILE_STRIDE;
                attend(queries + row, TILE_STRIDE, &head_keys, &head_values, pass->stride, &bias, 1, KEYS, HEAD, dilation,
                       NULL, NULL, (int)(start - frame), (int)(stop - frame), attended + row, TILE_STRIDE);
            }
        }
    }
    linear(block->output1, CHANNELS, CHANNELS, attended, TILE_STRIDE, both, TILE_STRIDE, columns, NAME(PLAIN), hidden,
           pass->stride);
    linear(block->output2, CHANNELS, CHANNELS, attended + CHANNELS * TILE_STRIDE, TILE_STRIDE,
           both + CHANNELS * TILE_STRIDE, TILE_STRIDE, columns, NAME(PLAIN), hidden, pass->stride);
    for (int row = 0; row < CHANNELS; row++)
        for (int column = 0; column < columns; column += LANES) {
            const float *at = both + row * TILE_STRIDE + column;
            store(output + row * TILE_STRIDE + column,
                  (load(at) + load(at + CHANNELS * TILE_STRIDE)) * 0.5f + block->time_down[row]);
        }
    normalise(both, TILE_STRIDE, 2 * CHANNELS, normalised, TILE_STRIDE, columns, pass->epsilon);
    feed_forward(block->time_up, block->time_down + CHANNELS, 2 * CHANNELS, TIME_INNER, normalised, slice, output, columns);
}

/* One instrument's instrument layer on the columns of a tile that begins at `frame`, column `at` of the chunk's arrays:
 * `middle` (INSTRUMENTS, CHANNELS) and `keys_values` (INSTRUMENTS, 2 * CHANNELS). */
#define instrument_layer NAME(instrument_layer)
ALLIN1_INLINE void instrument_layer(const pass_t *pass, const block_parameters *block, int instrument, ptrdiff_t frame,
                                    ptrdiff_t at, int count, int columns, const float *middle, const float *keys_values,
                                    float *work, float *output) {
    float *normalised = work, *queries = normalised + 2 * CHANNELS * TILE_STRIDE;
    float *attended = queries + 2 * CHANNELS * TILE_STRIDE, *slice = attended + 4 * CHANNELS * TILE_STRIDE;
    const float *hidden = middle + instrument * CHANNELS * CHUNK_STRIDE + at;
    ptrdiff_t length = larger(pass->frames, KEYS);

    normalise(hidden, CHUNK_STRIDE, CHANNELS, normalised, TILE_STRIDE, columns, pass->epsilon);
    linear(block->instrument_queries, CHANNELS, CHANNELS, normalised, TILE_STRIDE, queries, TILE_STRIDE, columns,
           NAME(PLAIN), NULL, 0);
    for (int steps = 0; steps < KEYS; steps++) {
        ptrdiff_t start = larger(span_start(steps, KEYS, 1, length), frame);
        ptrdiff_t stop = smaller(span_start(steps + 1, KEYS, 1, length), frame + count);
        if (start >= stop)
            continue;
        for (int head = 0; head < HEADS; head++) {
            const float *keys[INSTRUMENTS], *values[INSTRUMENTS], *bias[INSTRUMENTS + 1];
            for (int row = 0; row < INSTRUMENTS; row++) {
                keys[row] = keys_values + (row * 2 * CHANNELS + head * HEAD) * CHUNK_STRIDE + at - steps;
                values[row] = keys[row] + CHANNELS * CHUNK_STRIDE;
            }
            for (int row = 0; row < INSTRUMENTS + 1; row++)
                bias[row] = block->instrument_bias + (head * BIASES + row - instrument + KEYS - 1) * BIASES + KEYS - 1 - steps;
            attend(queries + head * HEAD * TILE_STRIDE, TILE_STRIDE, keys, values, CHUNK_STRIDE, bias, INSTRUMENTS, KEYS,
                   HEAD, 1, block->constant_key + head * HEAD, block->constant_value + head * HEAD, (int)(start - frame),
                   (int)(stop - frame), attended + head * HEAD * TILE_STRIDE, TILE_STRIDE);
        }
    }
    linear(block->instrument_output, CHANNELS, CHANNELS, attended, TILE_STRIDE, output, TILE_STRIDE, columns, NAME(PLAIN),
           hidden, CHUNK_STRIDE);
    normalise(output, TILE_STRIDE, CHANNELS, normalised, TILE_STRIDE, columns, pass->epsilon);
    for (int row = 0; row < CHANNELS; row++)
        for (int column = 0; column < columns; column += LANES)
            store(output + row * TILE_STRIDE + column,
                  load(output + row * TILE_STRIDE + column) + block->instrument_down[row]);
    feed_forward(block->instrument_up, block->instrument_down + CHANNELS, CHANNELS, INSTRUMENT_INNER, normalised, slice,
                 output, columns);
}

/* Final layer norm of one instrument's tile, its share of the logits, and its embeddings if they are wanted. */
#define finish NAME(finish)
ALLIN1_INLINE void finish(const pass_t *pass, int instrument, ptrdiff_t frame, int count, int columns, float *hidden,
                          float *logits) {
    const float *parameters = pass->next_parameters;
    const float *weight = take(&parameters, CHANNELS), *bias = take(&parameters, CHANNELS);
    normalise(hidden, TILE_STRIDE, CHANNELS, hidden, TILE_STRIDE, columns, pass->epsilon);
    scale(hidden, TILE_STRIDE, CHANNELS, columns, weight, bias);
    /* Bias once, then each instrument's weights. */
    if (instrument == 0)
        for (int row = 0; row < LOGITS_PADDED; row++)
            for (int column = 0; column < columns; column += LANES)
                store(logits + row * TILE_STRIDE + column, broadcast(parameters[row]));
    parameters += instrument * CHANNELS * LOGITS_PADDED;
    linear(parameters, CHANNELS, LOGITS_PADDED, hidden, TILE_STRIDE, logits, TILE_STRIDE, columns, NAME(ADD), NULL, 0);
    if (instrument == INSTRUMENTS - 1)
        for (int row = 0; row < LOGITS; row++)
            for (int column = 0; column < count; column++)
                pass->logits[row * pass->frames + frame + column] += logits[row * TILE_STRIDE + column];
    if (pass->embeddings)
        for (int column = 0; column < count; column++) {
            float *to = pass->embeddings + (instrument * pass->frames + frame + column) * CHANNELS * pass->embedding_step;
            for (int row = 0; row < CHANNELS; row++)
                to[row * pass->embedding_step] = hidden[row * TILE_STRIDE + column];
        }
}

/* A block: time layer, instrument layer, and what comes next: the following block's keys and values, or the heads. */
static void NAME(block)(const pass_t *pass, float *scratch) {
    const block_parameters block = read_block(pass->parameters);
    float *middle = scratch;                                                /* (INSTRUMENTS, CHANNELS) of the chunk */
    float *keys_values = middle + INSTRUMENTS * CHANNELS * CHUNK_STRIDE;    /* (INSTRUMENTS, 2 * CHANNELS) of the chunk */
    float *output = keys_values + INSTRUMENTS * 2 * CHANNELS * CHUNK_STRIDE; /* (CHANNELS) of a tile */
    float *logits = output + 2 * CHANNELS * TILE_STRIDE;
    float *projected = logits + LOGITS_PADDED * TILE_STRIDE;
    float *work = projected + KEY_VALUE_ROWS * TILE_STRIDE;

    for (ptrdiff_t chunk; (chunk = next_chunk(pass)) >= 0;) {
        ptrdiff_t start = chunk * CHUNK, stop = smaller(start + CHUNK, pass->frames);
        ptrdiff_t first = larger(start - HALO, 0), last = smaller(stop + HALO, pass->frames);
        for (ptrdiff_t tile = first; tile < last; tile += TILE) {
            int count = (int)smaller(TILE, last - tile), columns = (count + BLOCK - 1) / BLOCK * BLOCK;
            for (int instrument = 0; instrument < INSTRUMENTS; instrument++) {
                time_layer(pass, &block, instrument, tile, count, columns, work, output);
                copy_columns(middle + instrument * CHANNELS * CHUNK_STRIDE + (tile - first), CHUNK_STRIDE, output,
                             TILE_STRIDE, CHANNELS, columns);
                normalise(output, TILE_STRIDE, CHANNELS, work, TILE_STRIDE, columns, pass->epsilon);
                linear(block.instrument_keys_values, CHANNELS, 2 * CHANNELS, work, TILE_STRIDE,
                       keys_values + instrument * 2 * CHANNELS * CHUNK_STRIDE + (tile - first), CHUNK_STRIDE, columns,
                       NAME(PLAIN), NULL, 0);
            }
        }
        /* Zeros appended before the projections: keys and values are then the projections' biases. */
        for (ptrdiff_t frame = pass->frames; frame < KEYS; frame++)
            for (int instrument = 0; instrument < INSTRUMENTS; instrument++)
                for (int row = 0; row < CHANNELS; row++) {
                    float *to = keys_values + (instrument * 2 * CHANNELS + row) * CHUNK_STRIDE + frame;
                    to[0] = block.constant_key[row];
                    to[CHANNELS * CHUNK_STRIDE] = block.constant_value[row];
                }
        for (ptrdiff_t tile = start; tile < stop; tile += TILE) {
            int count = (int)smaller(TILE, stop - tile), columns = (count + BLOCK - 1) / BLOCK * BLOCK;
            for (int instrument = 0; instrument < INSTRUMENTS; instrument++) {
                instrument_layer(pass, &block, instrument, tile, tile - first, count, columns, middle, keys_values, work,
                                 output);
                if (!pass->next_keys_values) {
                    finish(pass, instrument, tile, count, columns, output, logits);
                    continue;
                }
                copy_columns(pass->next_hidden + instrument * CHANNELS * pass->stride + tile, pass->stride, output,
                             TILE_STRIDE, CHANNELS, count);
                project_keys_values(pass->next_parameters, output, TILE_STRIDE, work, projected,
                                    pass->next_keys_values + instrument * KEY_VALUE_ROWS * pass->stride + tile,
                                    pass->stride, count, columns, pass->epsilon);
            }
        }
    }
}

/* Neighbourhood attention of any shape, for one sequence and head; the network itself does not use it. */
static void NAME(attention)(const attention_t *call) {
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
            attend(call->queries + row * call->channels * call->stride, call->stride, keys, values, call->stride, bias,
                   (int)call->row_keys, kernel_size, (int)call->channels, call->dilation, NULL, NULL, (int)start, (int)stop,
                   call->output + row * call->channels * call->stride, call->stride);
        }
}

#undef NAME
#undef vec
#undef unaligned_vec
#undef int_vec
#undef BLOCK
#undef load
#undef store
#undef maximum
#undef minimum
#undef broadcast
#undef exponential
#undef gelu
#undef elu
#undef accumulate
#undef linear
#undef normalise
#undef scale
#undef copy_columns
#undef attend
#undef span_start
#undef larger
#undef smaller
#undef take
#undef convolve
#undef next_chunk
#undef project_keys_values
#undef block_parameters
#undef read_block
#undef feed_forward
#undef time_layer
#undef instrument_layer
#undef finish
#undef LANES
#undef VECTORS
