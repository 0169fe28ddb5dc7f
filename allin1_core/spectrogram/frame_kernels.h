/* The kernels of transform.h for one instruction set (ISA, VECTOR_BYTES) and one precision (REAL of
 * REAL_BYTES, INDEX of the same size). Included several times.
 *
 * A register holds one number of LANES frames. Nothing is ever summed across a register, a butterfly is the same
 * instruction for every frame, and a frame's result does not depend on its neighbours: cutting the work elsewhere,
 * or among threads, leaves every bit. */

#define NAME(name) PASTE(PASTE(name, REAL), ISA)
#define LANES (VECTOR_BYTES / REAL_BYTES)
#define vec NAME(vec)
#define unaligned_vec NAME(unaligned_vec)
#define index_vec NAME(index_vec)
#define float_vec NAME(float_vec)
#define unaligned_float_vec NAME(unaligned_float_vec)
#define unaligned_short_vec NAME(unaligned_short_vec)
#define double_vec NAME(double_vec)
#define long_vec NAME(long_vec)

typedef REAL vec __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL unaligned_vec __attribute__((vector_size(VECTOR_BYTES), aligned(REAL_BYTES), may_alias));
typedef INDEX index_vec __attribute__((vector_size(VECTOR_BYTES)));
typedef float float_vec __attribute__((vector_size(4 * (VECTOR_BYTES / REAL_BYTES))));
typedef float unaligned_float_vec
    __attribute__((vector_size(4 * (VECTOR_BYTES / REAL_BYTES)), aligned(4), may_alias));
typedef int16_t unaligned_short_vec
    __attribute__((vector_size(2 * (VECTOR_BYTES / REAL_BYTES)), aligned(2), may_alias));
typedef double double_vec __attribute__((vector_size(8 * (VECTOR_BYTES / REAL_BYTES))));
typedef int64_t long_vec __attribute__((vector_size(8 * (VECTOR_BYTES / REAL_BYTES))));

/* Lanes of a and b by the numbers in a constant mask, those of b counted from LANES. */
#if defined(__clang__)
#define shuffle NAME(shuffle)
ALLIN1_INLINE vec shuffle(vec a, vec b, index_vec mask) {
    vec out;
    for (int lane = 0; lane < LANES; lane++)
        out[lane] = mask[lane] < LANES ? a[mask[lane]] : b[mask[lane] - LANES];
    return out;
}
#else
#define shuffle __builtin_shuffle
#endif

/* Rows i and i + d exchange the squares of d lanes that lie off the diagonal of a square of 2 d. */
#define EXCHANGE(d)                                                                                                    \
    do {                                                                                                               \
        const index_vec inside = (iota & (d)) == 0;                                                                    \
        const index_vec upper = (inside & iota) | (~inside & (iota + LANES - (d)));                                    \
        const index_vec lower = (inside & (iota + (d))) | (~inside & (iota + LANES));                                  \
        for (int i = 0; i < LANES; i++)                                                                                \
            if (!(i & (d))) {                                                                                          \
                vec a = rows[i], b = rows[i + (d)];                                                                    \
                rows[i] = shuffle(a, b, upper);                                                                        \
                rows[i + (d)] = shuffle(a, b, lower);                                                                  \
            }                                                                                                          \
    } while (0)

/* Transposes LANES registers, by exchanging ever larger squares. */
#define transpose NAME(transpose)
ALLIN1_INLINE void transpose(vec rows[LANES]) {
    index_vec iota;
    for (int lane = 0; lane < LANES; lane++)
        iota[lane] = lane;
    EXCHANGE(1);
#if VECTOR_BYTES > 16 || REAL_BYTES == 4
    EXCHANGE(2);
#endif
#if VECTOR_BYTES / REAL_BYTES > 4
    EXCHANGE(4);
#endif
#if VECTOR_BYTES / REAL_BYTES > 8
    EXCHANGE(8);
#endif
}

/* Windowed samples of LANES frames, sample by sample: z[n] = y[2n] + i y[2n + 1]. Where there are fewer frames, the last
 * one fills the register. */
#define pack NAME(pack)
ALLIN1_INLINE void pack(const frames_t *call, ptrdiff_t first, vec *packed) {
    const REAL *taper = (const REAL *)call->taper;
    ptrdiff_t starts[LANES];
    for (int lane = 0; lane < LANES; lane++)
        starts[lane] = (ptrdiff_t)call->starts[first + lane < call->num_frames ? first + lane : call->num_frames - 1];
    for (int n = 0; n < FRAME_SIZE; n += LANES) {
        const vec window = *(const unaligned_vec *)(taper + n);
        vec rows[LANES];
        for (int lane = 0; lane < LANES; lane++) {
            if (call->is_float) {
                const float *samples = (const float *)call->samples + starts[lane] + n;
                rows[lane] = __builtin_convertvector(*(const unaligned_float_vec *)samples, vec) * window;
            } else {
                const int16_t *samples = (const int16_t *)call->samples + starts[lane] + n;
                rows[lane] = __builtin_convertvector(*(const unaligned_short_vec *)samples, vec) * window;
            }
        }
        transpose(rows);
        for (int lane = 0; lane < LANES; lane++)
            packed[n + lane] = rows[lane];
    }
}

/* One decimation-in-frequency step in radix 4 over blocks of `length` points, in place. The four outputs of a butterfly
 * stay where its inputs were, so that frequencies end up in the order of their reversed digits in base 4. */
#define radix4 NAME(radix4)
ALLIN1_INLINE void radix4(vec *z, int points, int length, const REAL *twiddles) {
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
#define transform NAME(transform)
ALLIN1_INLINE void transform(vec *z, const REAL *twiddles) {
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

#define root NAME(root)
ALLIN1_INLINE vec root(vec x) {
    for (int lane = 0; lane < LANES; lane++)
        x[lane] = REAL_BYTES == 8 ? (REAL)sqrt(x[lane]) : (REAL)sqrtf((float)x[lane]);
    return x;
}

/* Magnitudes of the first `num_bins` bins: those of the real transform from the complex one, see transform.h. */
#define magnitudes NAME(magnitudes)
ALLIN1_INLINE void magnitudes(const frames_t *call, const vec *z, vec *out) {
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

/* log10 of positive normal numbers, to 1e-13. With y = 2^e m, m between sqrt(1/2) and sqrt(2), and s = (m - 1) / (m + 1),
 * log m = 2 artanh s = 2 (s + s^3 / 3 + s^5 / 5 + ..), and |s| < 0.172. At y = 1 it is 0 without error. */
#define logarithm NAME(logarithm)
ALLIN1_INLINE double_vec logarithm(double_vec y) {
    const int64_t root_half = 0x3FE6A09E667F3BCDLL, integer_bias = 0x4338000000000000LL;
    long_vec bits = (long_vec)y;
    long_vec exponent = (bits - root_half) >> 52;
    double_vec m = (double_vec)(bits - (exponent << 52));
    /* Adding 1.5 * 2^52 in the exponent's place turns a small integer into a double. */
    double_vec e = (double_vec)(exponent + integer_bias) - 6755399441055744.0;
    double_vec s = (m - 1.0) / (m + 1.0), z = s * s;
    double_vec p = z * (1.0 / 15.0) + 1.0 / 13.0;
    p = p * z + 1.0 / 11.0;
    p = p * z + 1.0 / 9.0;
    p = p * z + 1.0 / 7.0;
    p = p * z + 1.0 / 5.0;
    p = p * z + 1.0 / 3.0;
    p = p * z + 1.0;
    double_vec value = e * 0.30102999566398119521 + 0.86858896380650365530 * (s * p);
    long_vec finite = y < HUGE_VAL;
    return (double_vec)(((long_vec)value & finite) | (bits & ~finite));
}

/* Bands of LANES frames: sums over their bins, then log10(multiplier x + offset), where the sum with the offset is
 * rounded to float32 first, as in the oracle. */
#define bands NAME(bands)
ALLIN1_INLINE void bands(const frames_t *call, const vec *magnitude, ptrdiff_t first) {
    const REAL *weight = (const REAL *)call->weights;
    const ptrdiff_t left = call->num_frames - first;
    const int count = left < LANES ? (int)left : LANES;
    for (ptrdiff_t band = 0; band < call->num_bands; band++) {
        const vec *bin = magnitude + call->band_starts[band];
        vec sum = {0};
        for (int32_t n = 0; n < call->band_sizes[band]; n++)
            sum += weight[n] * bin[n];
        weight += call->band_sizes[band];
        float_vec scaled = __builtin_convertvector(sum, float_vec) * call->multiplier + call->offset;
        float_vec value = __builtin_convertvector(logarithm(__builtin_convertvector(scaled, double_vec)), float_vec);
        for (int lane = 0; lane < count; lane++)
            call->output[(first + lane) * call->output_stride + band] = value[lane];
    }
}

/* Frames to bands. `scratch` is aligned to ALIGNMENT. */
static void NAME(frames)(const frames_t *call, void *scratch) {
    vec *z = (vec *)scratch, *magnitude = z + 2 * HALF;
    for (ptrdiff_t first = 0; first < call->num_frames; first += LANES) {
        pack(call, first, z);
        transform(z, (const REAL *)call->twiddles);
        magnitudes(call, z, magnitude);
        bands(call, magnitude, first);
    }
}

#undef NAME
#undef LANES
#undef vec
#undef unaligned_vec
#undef index_vec
#undef float_vec
#undef unaligned_float_vec
#undef unaligned_short_vec
#undef double_vec
#undef long_vec
#undef shuffle
#undef EXCHANGE
#undef transpose
#undef pack
#undef radix4
#undef transform
#undef root
#undef magnitudes
#undef logarithm
#undef bands
