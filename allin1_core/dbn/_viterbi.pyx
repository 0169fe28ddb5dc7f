# cython: language_level=3, boundscheck=False, wraparound=False
"""The decoder's compiled kernels, Viterbi and forward: buffers for `viterbi_kernel.h`, and calls into it without the GIL.

The arrays have been checked by `allin1_core.dbn.viterbi` and the processors; they are not checked here.
"""

import numpy as np

from libc.math cimport INFINITY
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from allin1_core.simd.instruction_sets import checked, instruction_set, instruction_sets


cdef extern from "viterbi_kernel.h":
    enum:
        FRAMES_UNIT
        MAX_BLOCK_UNITS
        FORWARD_BLOCK
        FORWARD_HEAD
        FORWARD_ENTRIES
        FORWARD_ROOM

    ctypedef struct viterbi_model_t:
        ptrdiff_t num_beats
        ptrdiff_t num_intervals
        const int32_t *intervals
        const int32_t *borders
        const int64_t *offsets
        const int32_t *origins
        const double *log_transitions
        ptrdiff_t longest_border

    ctypedef struct viterbi_candidate_t:
        pass

    ctypedef struct viterbi_observations_t:
        ptrdiff_t num_frames
        ptrdiff_t row_stride
        const double *densities
        const int32_t *entry_rows
        const int32_t *inside_rows

    ctypedef struct viterbi_work_t:
        ptrdiff_t width
        ptrdiff_t step
        ptrdiff_t exits_stride
        ptrdiff_t sums_stride
        double *exits
        double *block
        double *entries
        void *choices
        int wide
        int64_t *sums
        viterbi_candidate_t *candidates
        int64_t *ties

    ctypedef struct forward_head_t:
        pass

    ctypedef struct forward_model_t:
        ptrdiff_t num_states
        ptrdiff_t num_intervals
        ptrdiff_t num_heads
        const forward_head_t *heads
        const int64_t *firsts
        const int64_t *origins
        const int64_t *offsets
        const double *transitions
        double *exits
        double *entries
        double *made_heads
        double *greatest
        uint8_t *growing
        double *room

    ctypedef struct forward_place_t:
        ptrdiff_t first
        double factor
        ptrdiff_t begin

    ctypedef struct kernels_t:
        ptrdiff_t (*forward)(const viterbi_model_t *, const viterbi_observations_t *, const viterbi_work_t *,
                             const double *) noexcept nogil
        ptrdiff_t (*forward_frame)(const forward_model_t *, forward_place_t *, double, double) noexcept nogil

    const kernels_t *kernels_for(const char *)
    double viterbi_backtrack(const viterbi_model_t *, const viterbi_observations_t *, const viterbi_work_t *,
                             ptrdiff_t, uint32_t *) noexcept nogil

cdef object np_log = np.log, np_exp = np.exp
cdef object single_dtype = np.dtype(np.float32), double_dtype = np.dtype(np.float64)

# Frames that the exits move ahead before they are copied back to the front; the rows' common stride is an odd
# number of cache lines, so that the rows of a bar do not compete for the same few sets of the cache.
cdef enum:
    FRAMES_BETWEEN_MOVES = 192


def _aligned(Py_ssize_t size):
    """A float64 array of that size, zero-filled, that starts on a cache line."""
    buffer = np.zeros(size + 8)
    start = -buffer.ctypes.data % 64 // 8
    return buffer[start:start + size]


def viterbi(chains, densities, const int32_t[::1] entry_rows, const int32_t[::1] inside_rows,
            const double[::1] log_initial, double[::1] last=None, *, instruction_set=None):
    """Best path through a bar model; `allin1_core.dbn.viterbi_numpy.viterbi` documents the interface.

    `instruction_set` names one of `instruction_sets`, by default the best; any other is a ValueError.
    """
    cdef const kernels_t *kernels = kernels_for(checked(instruction_set).encode())
    cdef const int32_t[::1] intervals = chains.intervals
    cdef const int32_t[:, ::1] borders = chains.borders
    cdef const int64_t[::1] offsets = chains.offsets
    cdef const int32_t[::1] origins = chains.origins
    cdef const double[::1] log_transitions = chains.log_transitions
    cdef viterbi_model_t model
    model.num_beats = borders.shape[0]
    model.num_intervals = borders.shape[1]
    model.intervals = &intervals[0]
    model.borders = &borders[0, 0]
    model.offsets = &offsets[0]
    model.origins = &origins[0]
    model.log_transitions = &log_transitions[0]
    model.longest_border = max(chains.borders.max(), 1)

    cdef ptrdiff_t shortest = intervals[0]
    cdef ptrdiff_t longest = intervals[intervals.shape[0] - 1]
    cdef ptrdiff_t num_chains = model.num_beats * model.num_intervals
    cdef ptrdiff_t num_frames = densities.shape[1]
    cdef ptrdiff_t longest_block = FRAMES_UNIT * MAX_BLOCK_UNITS
    padded_densities = np.zeros((densities.shape[0], num_frames + 2 * longest + longest_block + FRAMES_UNIT))
    padded_densities[:, longest:longest + num_frames] = densities
    cdef const double[:, ::1] padded = padded_densities
    cdef viterbi_observations_t observations
    observations.num_frames = num_frames
    observations.row_stride = padded.shape[1]
    observations.densities = &padded[0, longest]
    observations.entry_rows = &entry_rows[0]
    observations.inside_rows = &inside_rows[0]

    cdef viterbi_work_t work
    work.width = min(max(shortest // FRAMES_UNIT, 1), MAX_BLOCK_UNITS) * FRAMES_UNIT
    work.step = min(shortest, work.width)
    work.wide = chains.max_candidates > 256
    cdef ptrdiff_t num_blocks = (num_frames + work.step - 1) // work.step
    cdef ptrdiff_t lines = (longest + FRAMES_BETWEEN_MOVES + longest_block + FRAMES_UNIT) // 8 + 1
    work.exits_stride = (lines | 1) * 8
    cdef double[::1] exits = _aligned(num_chains * work.exits_stride)
    cdef double[::1] block = _aligned(num_chains * work.width)
    cdef double[::1] entries = _aligned(model.num_beats * work.width)
    choice_bytes = np.empty(num_blocks * num_chains * work.width * (2 if work.wide else 1), dtype=np.uint8)
    cdef unsigned char[::1] choices = choice_bytes
    work.exits = &exits[0]
    work.block = &block[0]
    work.entries = &entries[0]
    work.choices = &choices[0]
    work.sums_stride = longest + work.width + FRAMES_UNIT
    cdef int64_t[::1] sums = np.empty((1 + model.num_beats) * work.sums_stride, dtype=np.int64)
    cdef int64_t[::1] ties = np.empty(num_chains, dtype=np.int64)
    cdef unsigned char[::1] candidates = np.empty(len(origins) * sizeof(viterbi_candidate_t), dtype=np.uint8)
    work.sums = &sums[0]
    work.ties = &ties[0]
    work.candidates = <viterbi_candidate_t *>&candidates[0]

    path_array = np.empty(num_frames, dtype=np.uint32)
    cdef uint32_t[::1] path = path_array
    cdef ptrdiff_t last_column
    cdef double log_probability
    cdef ptrdiff_t chain, position, interval, state = 0
    with nogil:
        last_column = kernels.forward(&model, &observations, &work, &log_initial[0])
        log_probability = viterbi_backtrack(&model, &observations, &work, last_column, &path[0])
        if last is not None:
            for chain in range(num_chains):
                interval = intervals[chain % model.num_intervals]
                for position in range(interval):
                    last[state] = exits[chain * work.exits_stride + last_column + interval - 1 - position]
                    state += 1
    return path_array, log_probability


def dense_viterbi(const double[:, ::1] log_transitions, const double[:, ::1] densities, double initial):
    """Best path where there are few states; `allin1_core.dbn.viterbi_numpy.dense_viterbi` documents the interface."""
    cdef ptrdiff_t num_frames = densities.shape[0], num_states = densities.shape[1]
    cdef double[:, ::1] values = np.full((2, num_states), initial)
    cdef int64_t[:, ::1] origins = np.empty((num_frames, num_states), dtype=np.int64)
    path_array = np.empty(num_frames, dtype=np.int64)
    cdef int64_t[::1] path = path_array
    cdef ptrdiff_t frame, state, origin, best, now = 0
    cdef double value, most = -INFINITY
    with nogil:
        for frame in range(num_frames):
            for state in range(num_states):
                most = -INFINITY
                best = 0
                for origin in range(num_states):
                    value = (values[now, origin] + log_transitions[origin, state]) + densities[frame, state]
                    if value > most:
                        most = value
                        best = origin
                values[1 - now, state] = most
                origins[frame, state] = best
            now = 1 - now
        best = 0
        for state in range(1, num_states):
            if values[now, state] > values[now, best]:
                best = state
        most = values[now, best]
        for frame in range(num_frames - 1, -1, -1):
            path[frame] = best
            best = origins[frame, best]
    return path_array, most


cdef class ForwardAlgorithm:
    """The forward algorithm of a beat model; `allin1_core.dbn.forward_numpy.ForwardAlgorithm` documents the interface.

    `instruction_set` is as of `viterbi`.
    """

    cdef forward_model_t model
    cdef forward_place_t place
    cdef const kernels_t *kernels
    cdef object arguments, arrays, single_array, double_array
    cdef double[::1] room, doubles
    cdef float[::1] singles

    def __init__(self, chains, transitions, *, instruction_set=None):
        self.kernels = kernels_for(checked(instruction_set).encode())
        self.arguments = chains, transitions
        cdef const int64_t[::1] firsts = np.cumsum([0, *chains.intervals], dtype=np.int64)
        self.model.num_intervals = chains.num_intervals
        self.model.num_states = chains.num_states
        cdef const int64_t[:, ::1] heads = np.array(
            [(first + at, min(border - at, FORWARD_HEAD)) for first, border in zip(firsts, chains.borders[0])
             for at in range(0, border, FORWARD_HEAD)], dtype=np.int64)
        groups = np.split(np.pad(transitions, ((0, 0), (0, -chains.num_intervals % FORWARD_ENTRIES))),
                          range(FORWARD_ENTRIES, chains.num_intervals, FORWARD_ENTRIES), axis=1)
        leading = [np.flatnonzero(group.any(axis=1)) for group in groups]
        rows = [group[found.min():found.max() + 1] for group, found in zip(groups, leading)]
        cdef const int64_t[::1] origins = np.array([found.min() for found in leading], dtype=np.int64)
        cdef const int64_t[::1] offsets = np.cumsum([0] + [len(row) for row in rows], dtype=np.int64)
        cdef double[::1] probabilities = _aligned(sum(map(len, rows)) * FORWARD_ENTRIES)
        np.concatenate(rows, out=np.asarray(probabilities).reshape(-1, FORWARD_ENTRIES))
        cdef double[::1] exits = _aligned(len(groups) * FORWARD_ENTRIES)
        cdef double[::1] entries = _aligned(len(groups) * FORWARD_ENTRIES)
        cdef double[::1] made_heads = _aligned(heads.shape[0] * FORWARD_HEAD)
        cdef double[::1] greatest = _aligned(8 * (chains.num_states // FORWARD_BLOCK + 2))
        cdef uint8_t[::1] growing = np.zeros((FORWARD_ROOM + chains.num_states) // FORWARD_BLOCK + 1, dtype=np.uint8)
        self.room = _aligned(FORWARD_ROOM + chains.num_states + FORWARD_BLOCK)
        self.arrays = heads, firsts, origins, offsets, probabilities, exits, entries, made_heads, greatest, growing
        self.model.num_heads = heads.shape[0]
        self.model.heads = <const forward_head_t *>&heads[0, 0]
        self.model.firsts = &firsts[0]
        self.model.origins = &origins[0]
        self.model.offsets = &offsets[0]
        self.model.transitions = &probabilities[0]
        self.model.exits = &exits[0]
        self.model.entries = &entries[0]
        self.model.made_heads = &made_heads[0]
        self.model.greatest = &greatest[0]
        self.model.growing = &growing[0]
        self.model.room = &self.room[0]
        self.single_array, self.double_array = np.empty(2, dtype=np.float32), np.empty(2)
        self.singles, self.doubles = self.single_array, self.double_array
        self.reset()

    def reset(self):
        self.room[:] = 0
        self.room[FORWARD_ROOM:FORWARD_ROOM + self.model.num_states] = 1.0 / self.model.num_states
        self.place.first, self.place.factor, self.place.begin = FORWARD_ROOM, 1, 0

    def __reduce__(self):
        # With its place in the stream, for the best instruction set of where it arrives: the bits are the same.
        return ForwardAlgorithm, self.arguments, (np.asarray(self.room), self.place.first, self.place.factor)

    def __setstate__(self, state):
        cdef const double[::1] room = state[0]
        self.room[:] = room
        self.place.first, self.place.factor = state[1:]

    def advance(self, const double[:, ::1] densities):
        cdef ptrdiff_t frame
        states_array = np.empty(densities.shape[0], dtype=np.int64)
        cdef int64_t[::1] states = states_array
        with nogil:
            for frame in range(densities.shape[0]):
                states[frame] = self.kernels.forward_frame(
                    &self.model, &self.place, densities[frame, 1], densities[frame, 0])
        return states_array

    def advance_one(self, activations, double parts):
        # numpy's logarithm and exponential, because others round otherwise, in arrays that are there.
        cdef ptrdiff_t state
        if activations.ndim != 1 or len(activations) != 1:
            return None
        dtype = activations.dtype
        if dtype is not double_dtype and dtype is not single_dtype:
            return None
        cdef double beat = activations.item()
        if not 0 < beat < 1 < parts:
            return None
        cdef double others = parts - 1
        if dtype is single_dtype:
            self.singles[0], self.singles[1] = (<float>1 - <float>beat) / <float>others, <float>beat
            np_log(self.single_array, self.single_array)
            self.doubles[0], self.doubles[1] = self.singles[0], self.singles[1]
        else:
            self.doubles[0], self.doubles[1] = (1 - beat) / others, beat
            np_log(self.double_array, self.double_array)
        np_exp(self.double_array, self.double_array)
        with nogil:
            state = self.kernels.forward_frame(&self.model, &self.place, self.doubles[1], self.doubles[0])
        return state

    @property
    def is_lost(self):
        return self.room[self.place.first] != self.room[self.place.first]

    def probabilities(self):
        return np.asarray(self.room[self.place.first:self.place.first + self.model.num_states]) * self.place.factor
