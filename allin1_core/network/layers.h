/* Layers of the network on columns of frames; passes.h includes this for each instruction set.
 *
 * LANES is the vector length in floats, VECTORS the vectors that a linear layer accumulates side by side for each of
 * OUTPUTS outputs: as many as the set's 16 or 32 registers hold. */
typedef vector<float> vec;
constexpr int LANES = VECTOR_BYTES / sizeof(float);
#if defined(__aarch64__)
constexpr int VECTORS = 4;
#else
constexpr int VECTORS = VECTOR_BYTES == 64 ? 4 : 2;
#endif
constexpr int BLOCK = LANES * VECTORS; /* columns that a linear layer computes at a time */

/* Arrays of rows, a channel each; columns are frames. */
typedef rows<const float> input_t;
typedef rows<float> output_t;

/* x Phi(x), Phi the normal distribution function: the exact GELU. With a = |x| it is max(x, 0) - a Phi(-a), and the eighth
 * root of Phi(-a) is nearly a ratio of polynomials of degrees 1 and 5: fitted to 6e-8 of a Phi(-a) for all a. Beyond
 * |x| = 6 it falls below 1e-8 and stays there, so that nothing is clamped. */
ALLIN1_INLINE vec gelu(vec x) {
    vec a = maximum(x, -x);
    vec p = a * -1.0754696194518151e-1f + 9.170035396872495e-1f;
    vec q = a * 1.3742387914197752e-4f + -1.5549010475767122e-4f;
    q = q * a + 3.3942258064156437e-3f;
    q = q * a + 3.308753725721615e-2f;
    q = q * a + -1.755157008894677e-2f;
    q = q * a + 1.0f;
    vec root = p / q, square = root * root, fourth = square * square;
    return maximum(x, broadcast(0.0f)) - a * (fourth * fourth);
}

/* x where x > 0, else e^x - 1. */
ALLIN1_INLINE vec elu(vec x) {
    vec zero = broadcast(0.0f);
    return maximum(x, zero) + (power_of_two(minimum(x, zero) * 1.44269504f) - 1.0f);
}

/* accumulated[n][v] += sum over k of weights[k][n] * x[k][columns of v]: the inner loop of everything linear. */
ALLIN1_INLINE void accumulate(vec accumulated[OUTPUTS][VECTORS], const float *weights, input_t x, int num_inputs) {
    for (int k = 0; k < num_inputs; k++) {
        vec columns[VECTORS];
        for (int v = 0; v < VECTORS; v++)
            columns[v] = load(x.at(k) + v * LANES);
        for (int n = 0; n < OUTPUTS; n++)
            for (int v = 0; v < VECTORS; v++)
                accumulated[n][v] += weights[k * OUTPUTS + n] * columns[v];
    }
}

/* What a later tile reads from memory, fetched into the cache a few rows at a time while another tile is computed: rows
 * lie too far apart for the processor to foresee them. Rows of keys and values, those of one attention below another's,
 * stand at the first window's first column. */
struct ahead_t {
    input_t hidden, keys_values[2];
    ptrdiff_t dilation[2];
    int row, num_rows;

    static ALLIN1_INLINE void fetch(const float *from, ptrdiff_t columns) {
        const uintptr_t line = 64, stop = (uintptr_t)(from + columns);
        for (uintptr_t at = (uintptr_t)from & -line; at < stop; at += line)
            __builtin_prefetch((const void *)at);
    }

    /* So many rows that all are fetched within the layers of a tile. Not inline: across a call GCC holds no constants of
     * GELU or layer norm in registers, which the accumulators need. */
    __attribute__((noinline)) void fetch_some() {
        for (int i = 0; i < (3 * BLOCK + 63) / 64 && row < num_rows; i++, row++) {
            const int attention = row / (2 * CHANNELS);
            const ptrdiff_t step = dilation[attention];
            const float *windows = keys_values[attention].at(row % (2 * CHANNELS));
            if (row < CHANNELS)
                fetch(hidden.at(row), TILE);
            for (int j = 0; j < (step < TILE ? 1 : KEYS); j++)
                fetch(windows + j * step, step < TILE ? (KEYS - 1) * step + TILE : TILE);
        }
    }
};

enum linear_t { PLAIN, GELU, ADD };

/* A linear layer on `columns` columns (rounded up to BLOCK): y = weights x + bias; with GELU y = gelu(..); with ADD
 * y += ..; a residual, if there is one, is added, and what is `ahead` fetched on the way. Parameters: bias (outputs), then
 * weights (outputs / OUTPUTS, inputs, OUTPUTS). */
template <linear_t WHAT = PLAIN>
ALLIN1_INLINE void linear(const float *parameters, int num_inputs, int num_outputs, input_t x, output_t y, int columns,
                          input_t residual = {NULL, 0}, ahead_t *ahead = NULL) {
    const float *bias = parameters, *weights = parameters + num_outputs;
    for (int first = 0; first < num_outputs; first += OUTPUTS, weights += num_inputs * OUTPUTS)
        for (int column = 0; column < columns; column += BLOCK) {
            if (ahead)
                ahead->fetch_some();
            vec accumulated[OUTPUTS][VECTORS];
            for (int n = 0; n < OUTPUTS; n++)
                for (int v = 0; v < VECTORS; v++) {
                    accumulated[n][v] =
                        WHAT == ADD ? load(y.at(first + n, column) + v * LANES) : broadcast(bias[first + n]);
                    if (residual.data)
                        accumulated[n][v] += load(residual.at(first + n, column) + v * LANES);
                }
            accumulate(accumulated, weights, x.from(0, column), num_inputs);
            for (int n = 0; n < OUTPUTS; n++)
                for (int v = 0; v < VECTORS; v++) {
                    vec value = accumulated[n][v];
                    store(y.at(first + n, column) + v * LANES, WHAT == GELU ? gelu(value) : value);
                }
        }
}

/* (x - mean) / sqrt(variance + epsilon) over the rows, for each column (rounded up to BLOCK). */
ALLIN1_INLINE void normalise(input_t x, int num_rows, output_t y, int columns, float epsilon) {
    for (int column = 0; column < columns; column += BLOCK) {
        vec mean[VECTORS], inverse[VECTORS]; /* side by side, since each is one long chain of sums */
        for (int v = 0; v < VECTORS; v++)
            mean[v] = inverse[v] = broadcast(0.0f);
        for (int row = 0; row < num_rows; row++)
            for (int v = 0; v < VECTORS; v++)
                mean[v] += load(x.at(row, column) + v * LANES);
        for (int v = 0; v < VECTORS; v++)
            mean[v] *= 1.0f / (float)num_rows;
        for (int row = 0; row < num_rows; row++)
            for (int v = 0; v < VECTORS; v++) {
                vec centred = load(x.at(row, column) + v * LANES) - mean[v];
                inverse[v] += centred * centred;
            }
        for (int v = 0; v < VECTORS; v++) {
            vec variance = inverse[v] * (1.0f / (float)num_rows) + epsilon;
            for (int lane = 0; lane < LANES; lane++)
                inverse[v][lane] = 1.0f / __builtin_sqrtf(variance[lane]);
        }
        for (int row = 0; row < num_rows; row++)
            for (int v = 0; v < VECTORS; v++)
                store(y.at(row, column) + v * LANES, (load(x.at(row, column) + v * LANES) - mean[v]) * inverse[v]);
    }
}

/* y = y * weight + bias, row by row. */
ALLIN1_INLINE void scale(output_t y, int num_rows, int columns, const float *weight, const float *bias) {
    for (int row = 0; row < num_rows; row++)
        for (int column = 0; column < columns; column += LANES)
            store(y.at(row, column), load(y.at(row, column)) * weight[row] + bias[row]);
}

ALLIN1_INLINE void copy_columns(output_t to, input_t from, int num_rows, int columns) {
    for (int row = 0; row < num_rows; row++)
        memcpy(to.at(row), from.at(row), (size_t)columns * sizeof(float));
}

/* One head's windows in a span of frames whose windows begin at the same offset: column f sees, in each of `num_rows`
 * rows, the columns f + j * step of keys and values, j < num_keys. Pointers stand at the first one, `bias[row]` at the
 * bias of its first key. With `constant_key`, one more row has the same keys and values in all columns. Vectors of queries
 * side by side are the next columns, or SHARED, which halves the loads of keys and values: other queries with the same
 * windows, `next_queries` and `next_bias` from one to the next. */
struct windows_t {
    const float *const *keys, *const *values, *const *bias;
    ptrdiff_t stride; /* of keys and values */
    int num_rows, num_keys, channels;
    ptrdiff_t step;
    const float *constant_key, *constant_value;
    ptrdiff_t next_queries, next_bias;
};

/* Keeps a loaded vector in a register, where GCC would load it again for each use. */
ALLIN1_INLINE void keep(vec &loaded) {
#if defined(__aarch64__)
    __asm__("" : "+w"(loaded));
#elif defined(__x86_64__)
    __asm__("" : "+v"(loaded));
#endif
}

/* scores[j][v], j < NUM: bias and products of queries with the keys from the first one on, for the queries of v. */
template <int NUM, int VECS, bool SHARED>
ALLIN1_INLINE void score(vec scores[][VECS], const windows_t &windows, input_t queries, const float *keys,
                         const float *bias) {
    const ptrdiff_t next_queries = SHARED ? windows.next_queries : LANES;
    vec sums[NUM][VECS];
    for (int j = 0; j < NUM; j++)
        for (int v = 0; v < VECS; v++)
            sums[j][v] = broadcast(bias[j + (SHARED ? v * windows.next_bias : 0)]);
    for (int c = 0; c < windows.channels; c++) {
        vec query[VECS];
        for (int v = 0; v < VECS; v++)
            query[v] = load(queries.at(c) + v * next_queries);
        for (int j = 0; j < NUM; j++) {
            const float *at = keys + c * windows.stride + j * windows.step;
            vec key = load(at);
            if (SHARED)
                keep(key);
            for (int v = 0; v < VECS; v++)
                sums[j][v] += query[v] * (SHARED ? key : load(at + v * LANES));
        }
    }
    for (int j = 0; j < NUM; j++)
        for (int v = 0; v < VECS; v++)
            scores[j][v] = sums[j][v];
}

/* Weighted sums of the values of NUM channels from `first` on, for the queries of v. */
template <int NUM, int VECS, bool SHARED>
ALLIN1_INLINE void weigh(const vec weights[][VECS], const vec constant_weight[VECS], const vec inverse[VECS],
                         const windows_t &windows, int first, ptrdiff_t column, output_t output) {
    const ptrdiff_t next_output = SHARED ? windows.next_queries : LANES;
    vec sums[NUM][VECS];
    for (int n = 0; n < NUM; n++)
        for (int v = 0; v < VECS; v++)
            sums[n][v] = windows.constant_value ? constant_weight[v] * windows.constant_value[first + n] : broadcast(0.0f);
    for (int row = 0; row < windows.num_rows; row++)
#pragma GCC unroll 1 /* several steps at a time need more registers than there are */
        for (int j = 0; j < windows.num_keys; j++) {
            const float *values = windows.values[row] + first * windows.stride + column + j * windows.step;
            for (int n = 0; n < NUM; n++) {
                const float *at = values + n * windows.stride;
                vec value = load(at);
                if (SHARED)
                    keep(value);
                for (int v = 0; v < VECS; v++)
                    sums[n][v] += weights[row * windows.num_keys + j][v] * (SHARED ? value : load(at + v * LANES));
            }
        }
    for (int n = 0; n < NUM; n++)
        for (int v = 0; v < VECS; v++)
            store(output.at(first + n, column) + v * next_output, sums[n][v] * inverse[v]);
}

/* Attention for VECS vectors of queries: KEYS scores, then OUTPUTS channels at a time are what registers hold. */
template <int VECS, bool SHARED = false>
ALLIN1_INLINE void attend_columns(const windows_t &windows, input_t queries, output_t output, ptrdiff_t column) {
    const int num_rows = windows.num_rows, num_keys = windows.num_keys, channels = windows.channels;
    const ptrdiff_t next_queries = SHARED ? windows.next_queries : LANES;
    int total = (num_rows + (windows.constant_key != NULL)) * num_keys;
    vec scores[MAX_KEYS][VECS], largest[VECS], sum[VECS], constant_weight[VECS];
    for (int row = 0; row < num_rows; row++) {
        const float *keys = windows.keys[row] + column, *bias = windows.bias[row];
        int j = 0;
        for (; j + KEYS <= num_keys; j += KEYS)
            score<KEYS, VECS, SHARED>(scores + row * num_keys + j, windows, queries.from(0, column),
                                      keys + j * windows.step, bias + j);
        for (; j < num_keys; j++)
            score<1, VECS, SHARED>(scores + row * num_keys + j, windows, queries.from(0, column),
                                   keys + j * windows.step, bias + j);
    }
    for (int v = 0; v < VECS; v++)
        constant_weight[v] = broadcast(0.0f);
    if (windows.constant_key) {
        for (int c = 0; c < channels; c++)
            for (int v = 0; v < VECS; v++)
                constant_weight[v] += load(queries.at(c, column) + v * next_queries) * windows.constant_key[c];
        for (int j = 0; j < num_keys; j++)
            for (int v = 0; v < VECS; v++)
                scores[num_rows * num_keys + j][v] = constant_weight[v] + windows.bias[num_rows][j + (SHARED ? v * windows.next_bias : 0)];
        for (int v = 0; v < VECS; v++)
            constant_weight[v] = broadcast(0.0f);
    }
    for (int v = 0; v < VECS; v++) {
        largest[v] = scores[0][v];
        sum[v] = broadcast(0.0f);
    }
    for (int s = 1; s < total; s++)
        for (int v = 0; v < VECS; v++)
            largest[v] = maximum(largest[v], scores[s][v]);
    for (int s = 0; s < total; s++)
        for (int v = 0; v < VECS; v++) {
            scores[s][v] = power_of_two(scores[s][v] - largest[v]);
            sum[v] += scores[s][v];
            if (s >= num_rows * num_keys)
                constant_weight[v] += scores[s][v];
        }
    for (int v = 0; v < VECS; v++)
        sum[v] = 1.0f / sum[v];
    int first = 0;
    for (; first + OUTPUTS <= channels; first += OUTPUTS)
        weigh<OUTPUTS, VECS, SHARED>(scores, constant_weight, sum, windows, first, column, output);
    for (; first < channels; first++)
        weigh<1, VECS, SHARED>(scores, constant_weight, sum, windows, first, column, output);
}

/* Attention for the columns [start, stop); scores are logarithms to base 2. */
ALLIN1_INLINE void attend(const windows_t &windows, input_t queries, output_t output, int start, int stop) {
    int column = start;
    for (; column + LANES < stop; column += 2 * LANES)
        attend_columns<2>(windows, queries, output, column);
    if (column < stop)
        attend_columns<1>(windows, queries, output, column);
}

/* A convolution, the maximum over three bands, and ELU. Rows of x: (band, channel) with `band_rows` rows a band.
 * Output band 0 of the pool takes the convolution at bands 0, 1 and 2. Each of `taps` taps in time is a linear layer on
 * `inputs` rows from the band on, one column later than the tap before. Parameters: bias, then
 * (outputs / OUTPUTS, taps, inputs, OUTPUTS). */
ALLIN1_INLINE void convolve(const float *parameters, int taps, int inputs, int num_outputs, input_t x, int band_rows,
                            output_t y, int columns) {
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
                               x.from(band * band_rows, column + tap), inputs);
                for (int n = 0; n < OUTPUTS; n++)
                    for (int v = 0; v < VECTORS; v++) {
                        float *to = y.at(first + n, column) + v * LANES;
                        vec value = accumulated[n][v];
                        if (band > 0)
                            value = maximum(value, load(to));
                        if (band == 2)
                            value = elu(value);
                        store(to, value);
                    }
            }
}
