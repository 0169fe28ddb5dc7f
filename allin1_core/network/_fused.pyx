# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Entry points of the kernels in passes.h. Sizes are checked in fused.py, which is the only caller.

`instruction_set` names one of `instruction_sets`, None the best; any other is a ValueError.
"""

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, int64_t

from allin1_core.simd.instruction_sets import checked, instruction_set, instruction_sets


cdef extern from "fused.h" nogil:
    enum:
        STEM_SIZE
        BLOCK_SIZE
        KEY_VALUE_SIZE
        HEAD_SIZE
        SCRATCH_SIZE
        KEY_VALUE_ROWS
        MAX_KEYS
        TILE
        CHUNK

    ctypedef struct pass_t:
        ptrdiff_t frames, length, stride, dilation
        float epsilon
        const float *spectrogram
        const float *parameters
        const float *next_parameters
        float *hidden
        float *keys_values
        float *instrument_keys_values
        float *logits
        float *embeddings
        ptrdiff_t embedding_step
        int64_t *counter

    ctypedef struct attention_t:
        ptrdiff_t rows, frames, stride, channels, kernel_size, dilation
        const float *queries
        const float *keys
        const float *values
        const float *bias
        const int32_t *row_windows
        const int32_t *row_biases
        ptrdiff_t row_keys
        float *output

    ctypedef struct kernels_t:
        void (*stem)(const pass_t *, float *) noexcept nogil
        void (*time_layers)(const pass_t *, float *) noexcept nogil
        void (*instrument_layers)(const pass_t *, float *) noexcept nogil
        void (*attention)(const attention_t *) noexcept nogil

    const kernels_t *kernels_for(const char *)

ctypedef void (*run_pass_t)(const pass_t *, float *) noexcept nogil


SIZES = {
    "stem": STEM_SIZE,
    "block": BLOCK_SIZE,
    "keys_values": KEY_VALUE_SIZE,
    "heads": HEAD_SIZE,
    "scratch": SCRATCH_SIZE,
    "tile": TILE,
    "chunk": CHUNK,
    "key_value_rows": KEY_VALUE_ROWS,
    "max_keys": MAX_KEYS,
}

_PASSES = {"stem": 0, "time_layers": 1, "instrument_layers": 2}


def run_pass(
    instruction_set,
    str name,
    ptrdiff_t frames,
    ptrdiff_t length,
    ptrdiff_t dilation,
    const float[::1] parameters,
    const float[::1] next_parameters,
    float[:, ::1] hidden,
    float[:, ::1] keys_values,
    float[:, ::1] instrument_keys_values,
    double epsilon,
    int64_t[::1] counter,
    float[::1] scratch,
    *,
    const float[:, :, ::1] spectrogram=None,
    float[:, ::1] logits=None,
    float[:, :, :, ::1] embeddings=None,
    ptrdiff_t fold=0,
):
    """A pass over the chunks or tiles that `counter` hands out. By `name`, of which any other is a KeyError:

    ``stem``: of `spectrogram`, `hidden` (4 * 24, stride) and the first `keys_values`.
    ``time_layers``: a block's, `hidden` in place, and `instrument_keys_values`.
    ``instrument_layers``: a block's, `hidden` in place and the next block's `keys_values`, in the last block, whose
    `next_parameters` are the heads', `logits` and `embeddings` instead.
    """
    cdef pass_t call
    cdef const kernels_t *kernels = kernels_for(checked(instruction_set).encode())
    cdef run_pass_t[3] passes = [kernels.stem, kernels.time_layers, kernels.instrument_layers]
    cdef run_pass_t kernel = passes[<int>_PASSES[name]]
    call.frames = frames
    call.length = length
    call.stride = hidden.shape[1]
    call.dilation = dilation
    call.epsilon = epsilon
    call.spectrogram = <const float *>NULL if spectrogram is None else &spectrogram[0, 0, 0]
    call.parameters = &parameters[0]
    call.next_parameters = <const float *>NULL if next_parameters is None else &next_parameters[0]
    call.hidden = &hidden[0, 0]
    call.keys_values = &keys_values[0, 0]
    call.instrument_keys_values = &instrument_keys_values[0, 0]
    call.logits = <float *>NULL if logits is None else &logits[0, 0]
    call.embeddings = <float *>NULL if embeddings is None else &embeddings[0, 0, 0, fold]
    call.embedding_step = 0 if embeddings is None else embeddings.shape[3]
    call.counter = &counter[0]
    with nogil:
        kernel(&call, &scratch[0])


def run_attention(
    instruction_set,
    ptrdiff_t frames,
    ptrdiff_t kernel_size,
    ptrdiff_t dilation,
    const float[:, :, ::1] queries,
    const float[:, :, ::1] keys,
    const float[:, :, ::1] values,
    const float[:, ::1] bias,
    const int32_t[:, ::1] row_windows,
    const int32_t[:, ::1] row_biases,
    float[:, :, ::1] output,
):
    """Attention of one sequence and head, (rows, channels, stride), of any shape."""
    cdef attention_t call
    cdef const kernels_t *kernels = kernels_for(checked(instruction_set).encode())
    call.rows = queries.shape[0]
    call.frames = frames
    call.stride = queries.shape[2]
    call.channels = queries.shape[1]
    call.kernel_size = kernel_size
    call.dilation = dilation
    call.queries = &queries[0, 0, 0]
    call.keys = &keys[0, 0, 0]
    call.values = &values[0, 0, 0]
    call.bias = &bias[0, 0]
    call.row_windows = &row_windows[0, 0]
    call.row_biases = &row_biases[0, 0]
    call.row_keys = row_windows.shape[1]
    call.output = &output[0, 0, 0]
    with nogil:
        kernels.attention(&call)
