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

/* x Phi(x), Phi the normal distribution function: the exact GELU. Phi(x) = 1/2 + x P(x^2) / Q(x^2) with P and Q of degree
 * 5 fitted to a relative 2.2e-8 of Phi - 1/2 on |x| <= 5.6, beyond which Phi is 0 or 1 to float32's precision. */
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
ALLIN1_INLINE vec elu(vec x) {
    vec zero = broadcast(0.0f);
    return maximum(x, zero) + (exponential(minimum(x, zero)) - 1.0f);
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

enum linear_t { PLAIN, GELU, ADD };

/* A linear layer on `columns` columns (rounded up to BLOCK): y = weights x + bias; with GELU y = gelu(..); with ADD
 * y += ..; a residual, if there is one, is added. Parameters: bias (outputs), then weights
 * (outputs / OUTPUTS, inputs, OUTPUTS). */
template <linear_t WHAT = PLAIN>
ALLIN1_INLINE void linear(const float *parameters, int num_inputs, int num_outputs, input_t x, output_t y, int columns,
                          input_t residual = {NULL, 0}) {
    const float *bias = parameters, *weights = parameters + num_outputs;
    for (int first = 0; first < num_outputs; first += OUTPUTS, weights += num_inputs * OUTPUTS)
        for (int column = 0; column < columns; column += BLOCK) {
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

/* (x - mean) / sqrt(variance + epsilon) over the rows, for each column. */
ALLIN1_INLINE void normalise(input_t x, int num_rows, output_t y, int columns, float epsilon) {
    for (int column = 0; column < columns; column += LANES) {
        vec mean = broadcast(0.0f), variance = broadcast(0.0f), inverse;
        for (int row = 0; row < num_rows; row++)
            mean += load(x.at(row, column));
        mean *= 1.0f / (float)num_rows;
        for (int row = 0; row < num_rows; row++) {
            vec centred = load(x.at(row, column)) - mean;
            variance += centred * centred;
        }
        variance = variance * (1.0f / (float)num_rows) + epsilon;
        for (int lane = 0; lane < LANES; lane++)
            inverse[lane] = 1.0f / __builtin_sqrtf(variance[lane]);
        for (int row = 0; row < num_rows; row++)
            store(y.at(row, column), (load(x.at(row, column)) - mean) * inverse);
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
 * bias of its first key. With `constant_key`, one more row has the same keys and values in all columns. */
struct windows_t {
    const float *const *keys, *const *values, *const *bias;
    ptrdiff_t stride; /* of keys and values */
    int num_rows, num_keys, channels;
    ptrdiff_t step;
    const float *constant_key, *constant_value;
};

/* Attention for the columns [start, stop). */
ALLIN1_INLINE void attend(const windows_t &windows, input_t queries, output_t output, int start, int stop) {
    const int num_rows = windows.num_rows, num_keys = windows.num_keys;
    const float *constant_key = windows.constant_key;
    int total = (num_rows + (constant_key != NULL)) * num_keys;
    for (int column = start; column < stop; column += LANES) {
        vec scores[MAX_KEYS];
        for (int row = 0; row < num_rows; row++)
            for (int j = 0; j < num_keys; j++)
                scores[row * num_keys + j] = broadcast(windows.bias[row][j]);
        vec constant = broadcast(0.0f);
        for (int c = 0; c < windows.channels; c++) {
            vec query = load(queries.at(c, column));
            for (int row = 0; row < num_rows; row++)
                for (int j = 0; j < num_keys; j++)
                    scores[row * num_keys + j] +=
                        query * load(windows.keys[row] + c * windows.stride + column + j * windows.step);
            if (constant_key)
                constant += query * constant_key[c];
        }
        if (constant_key)
            for (int j = 0; j < num_keys; j++)
                scores[num_rows * num_keys + j] = constant + windows.bias[num_rows][j];
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
        for (int c = 0; c < windows.channels; c++) {
            vec attended = constant_key ? constant_weight * windows.constant_value[c] : broadcast(0.0f);
            for (int row = 0; row < num_rows; row++)
                for (int j = 0; j < num_keys; j++)
                    attended += scores[row * num_keys + j] *
                                load(windows.values[row] + c * windows.stride + column + j * windows.step);
            store(output.at(c, column), attended * inverse);
        }
    }
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
