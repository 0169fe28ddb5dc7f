/* The kernels of transform.h for one instruction set; simd/targets.h includes this.
 *
 * A register holds one number of LANES frames. Nothing is ever summed across a register, a butterfly is the same
 * instruction for every frame, and a frame's result does not depend on its neighbours: cutting the work elsewhere,
 * or among threads, leaves every bit. */
template <typename REAL> struct frame_kernels {
    static constexpr int LANES = VECTOR_BYTES / sizeof(REAL);
    typedef vector<REAL> vec;
    typedef vector<float, LANES> float_vec;
    typedef vector<double, LANES> double_vec;

    /* Rows i and i + D exchange the squares of D lanes that lie off the diagonal of a square of 2 D. */
    template <int D> static ALLIN1_INLINE void exchange(vec square[LANES]) {
        index_vec<REAL> iota;
        for (int lane = 0; lane < LANES; lane++)
            iota[lane] = lane;
        const index_vec<REAL> inside = (iota & D) == 0;
        const index_vec<REAL> upper = (inside & iota) | (~inside & (iota + LANES - D));
        const index_vec<REAL> lower = (inside & (iota + D)) | (~inside & (iota + LANES));
        for (int i = 0; i < LANES; i++)
            if (!(i & D)) {
                vec a = square[i], b = square[i + D];
                square[i] = shuffle<REAL>(a, b, upper);
                square[i + D] = shuffle<REAL>(a, b, lower);
            }
    }

    /* Transposes LANES registers, by exchanging ever larger squares. */
    static ALLIN1_INLINE void transpose(vec square[LANES]) {
        exchange<1>(square);
        if constexpr (LANES > 2) exchange<2>(square);
        if constexpr (LANES > 4) exchange<4>(square);
        if constexpr (LANES > 8) exchange<8>(square);
    }

    /* Windowed samples of LANES frames, sample by sample: z[n] = y[2n] + i y[2n + 1]. Where there are fewer frames, the last
     * one fills the register. */
    static ALLIN1_INLINE void pack(const frames_t *call, ptrdiff_t first, vec *packed) {
        const REAL *taper = (const REAL *)call->taper;
        ptrdiff_t starts[LANES];
        for (int lane = 0; lane < LANES; lane++)
            starts[lane] = (ptrdiff_t)call->starts[first + lane < call->num_frames ? first + lane : call->num_frames - 1];
        for (int n = 0; n < FRAME_SIZE; n += LANES) {
            const vec window = load(taper + n);
            vec square[LANES];
            for (int lane = 0; lane < LANES; lane++) {
                if (call->is_float) {
                    const float *samples = (const float *)call->samples + starts[lane] + n;
                    square[lane] = __builtin_convertvector(load<float, LANES>(samples), vec) * window;
                } else {
                    const int16_t *samples = (const int16_t *)call->samples + starts[lane] + n;
                    square[lane] = __builtin_convertvector(load<int16_t, LANES>(samples), vec) * window;
                }
            }
            transpose(square);
            for (int lane = 0; lane < LANES; lane++)
                packed[n + lane] = square[lane];
        }
    }

    /* One decimation-in-frequency step in radix 4 over blocks of `length` points, in place. The four outputs of a butterfly
     * stay where its inputs were, so that frequencies end up in the order of their reversed digits in base 4. */
    static ALLIN1_INLINE void radix4(vec *z, int points, int length, const REAL *twiddles) {
        const int quarter = length / 4;
        for (vec *block = z; block < z + 2 * points; block += 2 * length)
            for (int j = 0; j < quarter; j++) {
                vec *a = block + 2 * j, *b = a + 2 * quarter, *c = b + 2 * quarter, *d = c + 2 * quarter;
                vec sum_ac_re = a[0] + c[0], sum_ac_im = a[1] + c[1];
                vec sum_bd_re = b[0] + d[0], sum_bd_im = b[1] + d[1];
                vec difference_ac_re = a[0] - c[0], difference_ac_im = a[1] - c[1];
                /* -i (b - d) */
                vec turned_re = b[1] - d[1], turned_im = d[0] - b[0];
                vec y1_re = difference_ac_re + turned_re, y1_im = difference_ac_im + turned_im;
                vec y2_re = sum_ac_re - sum_bd_re, y2_im = sum_ac_im - sum_bd_im;
                vec y3_re = difference_ac_re - turned_re, y3_im = difference_ac_im - turned_im;
                a[0] = sum_ac_re + sum_bd_re;
                a[1] = sum_ac_im + sum_bd_im;
                if (length == 4) { /* every factor is 1 */
                    b[0] = y1_re, b[1] = y1_im;
                    c[0] = y2_re, c[1] = y2_im;
                    d[0] = y3_re, d[1] = y3_im;
                } else {
                    const REAL *w = twiddles + 6 * j;
                    b[0] = w[0] * y1_re - w[1] * y1_im, b[1] = w[0] * y1_im + w[1] * y1_re;
                    c[0] = w[2] * y2_re - w[3] * y2_im, c[1] = w[2] * y2_im + w[3] * y2_re;
                    d[0] = w[4] * y3_re - w[5] * y3_im, d[1] = w[4] * y3_im + w[5] * y3_re;
                }
            }
    }

    /* The complex transform. After the first step the quarters are independent, and one of them fits the first cache. */
    static ALLIN1_INLINE void transform(vec *z, const REAL *twiddles) {
        radix4(z, HALF, HALF, twiddles);
        for (int quarter = 0; quarter < 4; quarter++) {
            const REAL *w = twiddles + 6 * HALF / 4;
            vec *block = z + 2 * quarter * (HALF / 4);
            radix4(block, HALF / 4, HALF / 4, w);
            w += 6 * HALF / 16;
            radix4(block, HALF / 4, HALF / 16, w);
            w += 6 * HALF / 64;
            radix4(block, HALF / 4, HALF / 64, w);
            radix4(block, HALF / 4, 4, w);
        }
    }

    static ALLIN1_INLINE vec root(vec x) {
        for (int lane = 0; lane < LANES; lane++)
            x[lane] = sizeof(REAL) == 8 ? (REAL)__builtin_sqrt(x[lane]) : (REAL)__builtin_sqrtf((float)x[lane]);
        return x;
    }

    /* Magnitudes of the first `num_bins` bins: those of the real transform from the complex one, see transform.h. */
    static ALLIN1_INLINE void magnitudes(const frames_t *call, const vec *z, vec *out) {
        const REAL *turn = (const REAL *)call->turns;
        for (int k = 0; k <= HALF / 2 && k < call->num_bins; k++) {
            const int mirror = HALF - k;
            const vec *a = z + 2 * call->positions[k], *b = z + 2 * call->positions[mirror % HALF];
            vec even_re = a[0] + b[0], even_im = a[1] - b[1];
            vec p = a[1] + b[1], q = b[0] - a[0];
            vec odd_re = turn[2 * k] * p - turn[2 * k + 1] * q, odd_im = turn[2 * k] * q + turn[2 * k + 1] * p;
            vec re = even_re + odd_re, im = even_im + odd_im;
            out[k] = root(re * re + im * im);
            if (mirror < call->num_bins) {
                re = even_re - odd_re, im = even_im - odd_im;
                out[mirror] = root(re * re + im * im);
            }
        }
    }

    /* Bands of LANES frames: sums over their bins, then log10(multiplier x + offset), where the sum with the offset is
     * rounded to float32 first, as in the oracle. */
    static ALLIN1_INLINE void bands(const frames_t *call, const vec *magnitude, ptrdiff_t first) {
        const REAL *weight = (const REAL *)call->weights;
        const ptrdiff_t left = call->num_frames - first;
        const int count = left < LANES ? (int)left : LANES;
        for (ptrdiff_t band = 0; band < call->num_bands; band++) {
            const vec *bin = magnitude + call->band_starts[band];
            vec sum = {};
            for (int32_t n = 0; n < call->band_sizes[band]; n++)
                sum += weight[n] * bin[n];
            weight += call->band_sizes[band];
            float_vec scaled = __builtin_convertvector(sum, float_vec) * call->multiplier + call->offset;
            double_vec exact = logarithm<LANES>(__builtin_convertvector(scaled, double_vec));
            float_vec value = __builtin_convertvector(exact, float_vec);
            for (int lane = 0; lane < count; lane++)
                call->output[(first + lane) * call->output_stride + band] = value[lane];
        }
    }

    /* Frames to bands. `scratch` is aligned to ALIGNMENT. */
    static void frames(const frames_t *call, void *scratch) {
        vec *z = (vec *)scratch, *magnitude = z + 2 * HALF;
        for (ptrdiff_t first = 0; first < call->num_frames; first += LANES) {
            pack(call, first, z);
            transform(z, (const REAL *)call->twiddles);
            magnitudes(call, z, magnitude);
            bands(call, magnitude, first);
        }
    }
};

constexpr kernels_t kernels = {frame_kernels<double>::frames, frame_kernels<float>::frames};
