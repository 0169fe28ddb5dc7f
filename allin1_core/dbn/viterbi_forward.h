/* The forward recursion for one instruction set; `viterbi_kernel.h` derives it, and simd/targets.h includes this.
 *
 * Register arrays have constant sizes, and everything but the entry point is inlined. */
typedef vector<double> values_t;
typedef vector<int64_t> lanes_t;
constexpr ptrdiff_t LANES = VECTOR_BYTES / sizeof(double);

/* Run `task.run<N>(v)` for `vectors` vectors in groups of equal size N (the last may be smaller) from v on, at most
 * MOST, which is at most 6. Each size is its own copy of the code, so that the group lives in registers. */
template <ptrdiff_t MOST, typename Task> ALLIN1_INLINE void for_groups(ptrdiff_t vectors, const Task &task) {
    const ptrdiff_t groups = (vectors + MOST - 1) / MOST, group = (vectors + groups - 1) / groups;
    for (ptrdiff_t v = 0; v < vectors; v += group) {
        const ptrdiff_t left = vectors - v;
        switch (left < group ? left : group) {
        case 1: task.template run<1>(v); break;
        case 2: task.template run<2>(v); break;
        case 3: task.template run<3>(v); break;
        case 4: task.template run<4>(v); break;
        case 5: if constexpr (MOST > 4) task.template run<5>(v); break;
        default: if constexpr (MOST > 4) task.template run<6>(v); break;
        }
    }
}

ALLIN1_INLINE bool any(lanes_t lanes) {
    int64_t found = 0;
    if constexpr (LANES == 8) { /* of which GCC would take out one after the other */
        const vector<int8_t, LANES> bytes = __builtin_convertvector(lanes != 0, vector<int8_t, LANES>);
        memcpy(&found, &bytes, sizeof found);
    } else
        for (ptrdiff_t lane = 0; lane < LANES; lane++) found |= lanes[lane];
    return found != 0;
}

/* The low bytes, or low 16 bits, of all lanes. */
template <typename T> ALLIN1_INLINE void store_choices(T *to, lanes_t lanes) {
    if constexpr (LANES == 4 && sizeof(T) == 1) { /* which GCC would convert one by one */
        index_vec<int32_t> words = index_vec<int32_t>{};
        index_vec<int8_t> bytes = index_vec<int8_t>{};
        for (int lane = 0; lane < 8 * LANES; lane++) bytes[lane] = (int8_t)(lane < LANES ? 4 * lane : lane);
        for (int lane = 0; lane < 2 * LANES; lane++) words[lane] = 2 * lane % (2 * LANES);
        const vector<int32_t> halves = (vector<int32_t>)lanes, first = shuffle<int32_t>(halves, halves, words);
        const vector<int8_t> packed = shuffle<int8_t>((vector<int8_t>)first, (vector<int8_t>)first, bytes);
        memcpy(to, &packed, LANES);
    } else
        store(to, __builtin_convertvector(lanes, vector<T, LANES>));
}

#include "viterbi_fixed_point.h"

/* The choice of one entry in the frames of a block. */
struct choice_t {
    ptrdiff_t count; /* of candidates, each with an origin and a transition */
    const int32_t *origins;
    const double *log_transitions;
    rows<const double> exits;
    const double *density;
    double *entry;
    char *choices;
    int wide;

    /* Best candidate in VECTORS vectors of frames: strict >, in the order of the candidates. */
    template <ptrdiff_t VECTORS> ALLIN1_INLINE void run(ptrdiff_t first) const {
        values_t best[VECTORS], seen[VECTORS];
        lanes_t choice[VECTORS], ordinal = lanes_t{} + last_ordinal(wide);
        for (ptrdiff_t v = 0; v < VECTORS; v++) {
            best[v] = values_t{} - INFINITY;
            seen[v] = load(density + (first + v) * LANES);
            choice[v] = ordinal;
        }
        for (ptrdiff_t c = 0; c < count; c++) {
            const double *exit = exits.at(origins[c], first * LANES);
            const double log_transition = log_transitions[c];
            for (ptrdiff_t v = 0; v < VECTORS; v++) {
                const values_t candidate = (load(exit + v * LANES) + log_transition) + seen[v];
                const lanes_t better = candidate > best[v];
                best[v] = better ? candidate : best[v];
                choice[v] = better ? ordinal : choice[v];
            }
            ordinal -= 1;
        }
        for (ptrdiff_t v = 0; v < VECTORS; v++) {
            const ptrdiff_t at = (first + v) * LANES;
            store(entry + at, best[v]);
            if (wide)
                store_choices((uint16_t *)choices + at, choice[v]);
            else
                store_choices((uint8_t *)choices + at, choice[v]);
        }
    }
};

/* The entries of TOGETHER beats at one interval, made in successive frames, on the way to their exits. */
template <ptrdiff_t TOGETHER> struct carry_t {
    ptrdiff_t interval;
    rows<const int32_t> borders;
    const double *inside[TOGETHER], *outside; /* densities from the entries' first frame on */
    rows<const double> entries;
    rows<double> exits;

    /* Beats and vectors go side by side because an addition has to wait for the one before it. */
    template <ptrdiff_t VECTORS> ALLIN1_INLINE void run(ptrdiff_t first) const {
        const ptrdiff_t at = first * LANES;
        values_t value[TOGETHER][VECTORS];
        ptrdiff_t common = 1;
        for (ptrdiff_t b = 0; b < TOGETHER; b++)
            if (*borders.at(b) > common) common = *borders.at(b);
        for (ptrdiff_t b = 0; b < TOGETHER; b++) {
            const ptrdiff_t border = *borders.at(b);
            ptrdiff_t position = 1;
            for (ptrdiff_t v = 0; v < VECTORS; v++) value[b][v] = load(entries.at(b, at + v * LANES));
            for (; position < border; position++)
                for (ptrdiff_t v = 0; v < VECTORS; v++) value[b][v] += load(inside[b] + at + position + v * LANES);
            for (; position < common; position++)
                for (ptrdiff_t v = 0; v < VECTORS; v++) value[b][v] += load(outside + at + position + v * LANES);
        }
        for (ptrdiff_t position = common; position < interval; position++) {
            for (ptrdiff_t v = 0; v < VECTORS; v++) {
                const values_t density = load(outside + at + position + v * LANES);
                for (ptrdiff_t b = 0; b < TOGETHER; b++) value[b][v] += density;
            }
        }
        for (ptrdiff_t b = 0; b < TOGETHER; b++)
            for (ptrdiff_t v = 0; v < VECTORS; v++) store(exits.at(b, at + v * LANES), value[b][v]);
    }
};

/* Entries of TOGETHER beats from beat b on at interval j, `width` frames from `frame` on, carried to `exits`. */
template <ptrdiff_t TOGETHER>
ALLIN1_INLINE void carry_beats(const viterbi_model_t *model, const viterbi_observations_t *seen, ptrdiff_t b,
                               ptrdiff_t j, ptrdiff_t frame, rows<const double> entries, rows<double> exits) {
    carry_t<TOGETHER> carry;
    carry.interval = model->intervals[j];
    carry.borders = {model->borders + b * model->num_intervals + j, model->num_intervals};
    for (ptrdiff_t i = 0; i < TOGETHER; i++)
        carry.inside[i] = seen->densities + seen->inside_rows[b + i] * seen->row_stride + frame;
    carry.outside = seen->densities + frame;
    carry.entries = {entries.at(b), entries.stride};
    carry.exits = {exits.at(b), exits.stride};
    /* At most 12 vectors at a time: what the 16 registers of AVX2 and SSE2 hold. */
    for_groups<TOGETHER == 4 ? 3 : 4>(entries.stride / LANES, carry);
}

/* All states' initial values, as entries before frame 0. Column 0 of the exits is then frame -1. */
ALLIN1_INLINE void carry_initial(const viterbi_model_t *model, const viterbi_observations_t *seen,
                                 const viterbi_work_t *work, const double *initial) {
    const double *last = initial - 1; /* last state of the chain */
    for (ptrdiff_t chain = 0; chain < model->num_beats * model->num_intervals; chain++) {
        const ptrdiff_t interval = model->intervals[chain % model->num_intervals];
        const ptrdiff_t row = seen->inside_rows[chain / model->num_intervals];
        const double *inside = seen->densities + row * seen->row_stride;
        last += interval;
        for (ptrdiff_t done = 0; done < interval; done += LANES) {
            double entries[LANES];
            for (ptrdiff_t lane = 0; lane < LANES; lane++)
                entries[lane] = done + lane < interval ? last[-(done + lane)] : -INFINITY;
            const ptrdiff_t frame = done - interval;
            const carry_t<1> carry = {interval, {model->borders + chain, 0}, {inside + frame}, seen->densities + frame,
                                      {entries, LANES}, {work->exits + chain * work->exits_stride + done, 0}};
            carry.template run<1>(0);
        }
    }
}

/* One block of frames, from the copy of its exits: choose every entry, carry it to its exit. `column` of the exits is
 * frame - 1. */
ALLIN1_INLINE void decode_block(const viterbi_model_t *model, const viterbi_observations_t *seen,
                                const viterbi_work_t *work, ptrdiff_t frame, ptrdiff_t column, char *choices) {
    const ptrdiff_t beats = model->num_beats, intervals = model->num_intervals, width = work->width;
    const ptrdiff_t bytes = work->wide ? 2 : 1;
    const rows<const double> entries = {work->entries, width};
    for (ptrdiff_t j = 0; j < intervals; j++) {
        for (ptrdiff_t b = 0; b < beats; b++) {
            const ptrdiff_t chain = b * intervals + j;
            const int64_t offset = model->offsets[chain], count = model->offsets[chain + 1] - offset;
            const choice_t choice = {count, model->origins + offset, model->log_transitions + offset,
                                     {work->block, width},
                                     seen->densities + seen->entry_rows[b] * seen->row_stride + frame,
                                     work->entries + b * width, choices + chain * width * bytes, work->wide};
            for_groups<4>(width / LANES, choice);
        }
        const rows<double> exits = {work->exits + j * work->exits_stride + column + model->intervals[j],
                                    intervals * work->exits_stride};
        for (ptrdiff_t b = 0; b < beats; b += MAX_TOGETHER)
            switch (beats - b) {
            case 1: carry_beats<1>(model, seen, b, j, frame, entries, exits); break;
            case 2: carry_beats<2>(model, seen, b, j, frame, entries, exits); break;
            case 3: carry_beats<3>(model, seen, b, j, frame, entries, exits); break;
            default: carry_beats<4>(model, seen, b, j, frame, entries, exits); break;
            }
    }
}

ALLIN1_INLINE void copy_exits(const viterbi_model_t *model, const viterbi_work_t *work, ptrdiff_t column) {
    for (ptrdiff_t chain = 0; chain < model->num_beats * model->num_intervals; chain++)
        for (ptrdiff_t i = 0; i < work->width; i += LANES)
            store(work->block + chain * work->width + i, load(work->exits + chain * work->exits_stride + column + i));
}

/* Run the recursion over all frames; returns the column of the exits that is the last frame. */
ptrdiff_t forward(const viterbi_model_t *model, const viterbi_observations_t *seen, const viterbi_work_t *work,
                  const double *initial) {
    const ptrdiff_t chains = model->num_beats * model->num_intervals;
    const ptrdiff_t longest = model->intervals[model->num_intervals - 1];
    const bool may_be_keys = !work->wide && work->step == work->width;
    fixed_point_t point = {0, 0.0, 0.0};
    bool are_keys = false;
    ptrdiff_t column = 0;
    char *choices = (char *)work->choices;
    carry_initial(model, seen, work, initial);
    for (ptrdiff_t frame = 0;; frame += work->step) {
        if (column + longest + work->width > work->exits_stride) { /* move the columns in use to the front */
            for (ptrdiff_t chain = 0; chain < chains; chain++) {
                double *row = work->exits + chain * work->exits_stride;
                memmove(row, row + column, (size_t)longest * sizeof *row);
            }
            column = 0;
        }
        const int exponent = are_keys ? point.exponent : may_be_keys ? common_exponent(model, work, column) : 0;
        if (exponent && exponent != point.exponent) point = transitions_as_keys(model, work, exponent);
        const bool as_keys = exponent && sum_densities(model, seen, work, point, frame);
        if (as_keys && !are_keys) exits_to_keys(model, work, column);
        if (!as_keys && are_keys) exits_to_values(model, work, column, exponent);
        are_keys = as_keys;
        copy_exits(model, work, column);
        if (are_keys && !decode_keys(model, seen, work, column, (uint8_t *)choices)) {
            exits_to_values(model, work, column, exponent);
            copy_exits(model, work, column);
            are_keys = false;
        }
        if (!are_keys) decode_block(model, seen, work, frame, column, choices);
        if (frame + work->step >= seen->num_frames) {
            column += seen->num_frames - frame;
            if (are_keys) exits_to_values(model, work, column, exponent);
            return column;
        }
        column += work->step;
        choices += chains * work->width * (work->wide ? 2 : 1);
    }
}

#include "forward_algorithm.h"

constexpr kernels_t kernels = {forward, forward_frame};
