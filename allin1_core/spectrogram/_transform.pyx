# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Entry points of the kernels in frame_kernels.h. Sizes are checked in fused_backend.py, which is the only caller."""

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int16_t, int32_t, int64_t, uintptr_t

from allin1_core.simd.instruction_sets import checked, instruction_set, instruction_sets

ctypedef fused sample:
    int16_t
    float

ctypedef fused real:
    float
    double


cdef extern from "transform.h" nogil:
    enum:
        ALIGNMENT
        SCRATCH_BYTES

    ctypedef struct frames_t:
        ptrdiff_t num_frames, is_float
        const void *samples
        const int64_t *starts
        const void *taper
        const void *twiddles
        const void *turns
        const int32_t *positions
        ptrdiff_t num_bins, num_bands
        const int32_t *band_starts
        const int32_t *band_sizes
        const void *weights
        float multiplier, offset
        float *output
        ptrdiff_t output_stride

    ctypedef struct kernels_t:
        void (*frames_double)(const frames_t *, void *) noexcept nogil
        void (*frames_float)(const frames_t *, void *) noexcept nogil

    const kernels_t *kernels_for(const char *)


SCRATCH_SIZE = SCRATCH_BYTES


def run(
    instruction_set,
    const sample[::1] samples,
    const int64_t[::1] starts,
    const real[::1] taper,
    const real[::1] twiddles,
    const real[::1] turns,
    const int32_t[::1] positions,
    ptrdiff_t num_bins,
    const int32_t[::1] band_starts,
    const int32_t[::1] band_sizes,
    const real[::1] weights,
    double multiplier,
    double offset,
    float[:, ::1] output,
    unsigned char[::1] scratch,
):
    """Log bands of the frames that begin at `starts`, into `output` (frames, bands).

    `instruction_set` names one of `instruction_sets`, None the best; any other is a ValueError.
    """
    cdef frames_t call
    cdef uintptr_t aligned = (<uintptr_t>&scratch[0] + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    cdef const kernels_t *kernels = kernels_for(checked(instruction_set).encode())
    call.num_frames = starts.shape[0]
    call.is_float = sample is float
    call.samples = &samples[0]
    call.starts = &starts[0]
    call.taper = &taper[0]
    call.twiddles = &twiddles[0]
    call.turns = &turns[0]
    call.positions = &positions[0]
    call.num_bins = num_bins
    call.num_bands = band_starts.shape[0]
    call.band_starts = &band_starts[0]
    call.band_sizes = &band_sizes[0]
    call.weights = &weights[0]
    call.multiplier = multiplier
    call.offset = offset
    call.output = &output[0, 0]
    call.output_stride = output.shape[1]
    with nogil:
        if real is double:
            kernels.frames_double(&call, <void *>aligned)
        else:
            kernels.frames_float(&call, <void *>aligned)
