/* The log spectrogram of frames on a CPU, from samples to bands without leaving the cache.
 *
 * A real frame y of L = 2048 samples is transformed as L/2 complex numbers z[n] = y[2n] + i y[2n + 1]. With Z the
 * transform of z, w = exp(-2 pi i / L) and * the conjugate,
 *
 *     X[k]       = (Z[k] + Z*[L/2 - k]) / 2 - i w^k (Z[k] - Z*[L/2 - k]) / 2
 *     X*[L/2 - k] = (Z[k] + Z*[L/2 - k]) / 2 + i w^k (Z[k] - Z*[L/2 - k]) / 2
 *
 * for k <= L/4: the first term is the transform of the even samples, the second that of the odd ones, turned. The
 * division by 2 lies in the window. L/2 = 4^5, so the complex transform is five steps in radix 4; it leaves
 * frequencies in the order of reversed base-4 digits, which the formula above reads through a table.
 *
 * A triangle of the filterbank is a sum over consecutive bins, and bins above the last triangle are not computed. */
#ifndef ALLIN1_TRANSFORM_H
#define ALLIN1_TRANSFORM_H

#include "../simd/dispatch.h"

enum { FRAME_SIZE = 2048, HALF = FRAME_SIZE / 2, ALIGNMENT = 64 };
/* Bytes of scratch of a thread: the transform and the magnitudes of a register of frames, and room to align. */
enum { SCRATCH_BYTES = (2 * HALF + HALF) * ALIGNMENT + ALIGNMENT };

/* REAL is double or float throughout a call. */
struct frames_t {
    ptrdiff_t num_frames;
    ptrdiff_t is_float;         /* samples are float, else int16_t */
    const void *samples;
    const int64_t *starts;      /* (num_frames): a frame's first sample; all of its samples exist */
    const void *taper;          /* REAL (FRAME_SIZE): half of the window */
    const void *twiddles;       /* REAL: of all steps but the last, three complex factors a butterfly */
    const void *turns;          /* REAL (HALF / 2 + 1, 2): w^k */
    const int32_t *positions;   /* (HALF): where frequency k lies */
    ptrdiff_t num_bins;         /* as many as the bands reach */
    ptrdiff_t num_bands;
    const int32_t *band_starts; /* (num_bands) */
    const int32_t *band_sizes;  /* (num_bands) */
    const void *weights;        /* REAL, band after band */
    float multiplier, offset;
    float *output;
    ptrdiff_t output_stride;
};

/* For REAL double and float. `scratch` is aligned to ALIGNMENT. */
struct kernels_t {
    void (*frames_double)(const frames_t *, void *scratch);
    void (*frames_float)(const frames_t *, void *scratch);
};

#define KERNELS "../spectrogram/frame_kernels.h"
#include "../simd/targets.h"

#endif
