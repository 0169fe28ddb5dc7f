/* The exact Viterbi recursion of a bar model, carried from beat to beat instead of from state to state.
 *
 * A chain is one beat of the bar at one tempo: L states, passed one per frame with log transition 0. Only its first
 * state has a choice of predecessors, the last states of the beat before. With d the log density that a state sees,
 *
 *     entry(t) = max_i ((exit_i(t - 1) + log_transition_i) + d_0(t))
 *     exit(t + L - 1) = (...((entry(t) + d_1(t + 1)) + d_2(t + 2)) + ...) + d_{L-1}(t + L - 1)
 *
 * which are the additions of the textbook recursion, each rounded as there, in the same order. All densities are
 * known beforehand, so an entry is carried to its exit at once, in a register; the states between are never stored.
 * Entries of up to L_min successive frames do not depend on each other's exits (an entry at t leaves at
 * t + L_min - 1 at the earliest and is first chosen from at t + L_min), so the lanes of a vector are frames.
 *
 * Before the first frame every state holds its initial value: the state at position p is an entry at frame -1 - p.
 * Densities outside the sequence are 0, and adding 0 changes nothing, so those entries are carried like all others,
 * and after the last frame T - 1 the value of position p stands where its chain would be left, T + L - 2 - p. */
#ifndef ALLIN1_VITERBI_KERNEL_H
#define ALLIN1_VITERBI_KERNEL_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../dispatch.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi" /* vectors never cross a function boundary: all of these are inlined */
#endif

#define LANES 8        /* frames in a vector */
#define MAX_VECTORS 4  /* vectors in a block of frames */
#define MAX_TOGETHER 4 /* beats carried together, sharing the densities they see */

typedef double values_t __attribute__((vector_size(64)));
typedef int64_t lanes_t __attribute__((vector_size(64)));
typedef uint8_t bytes_t __attribute__((vector_size(8)));
typedef uint16_t words_t __attribute__((vector_size(16)));

typedef struct {
    ptrdiff_t num_beats, num_intervals;
    const int32_t *intervals;      /* (num_intervals,) states of a chain, ascending */
    const int32_t *borders;        /* (num_beats, num_intervals) states of a chain that see the beat density */
    const int64_t *offsets;        /* (num_beats * num_intervals + 1,) candidates of each entry, in the next two */
    const int32_t *origins;        /* interval index in the beat before */
    const double *log_transitions; /* as long as `origins` */
} viterbi_model_t;

typedef struct {
    ptrdiff_t num_frames;
    ptrdiff_t row_stride;
    const double *densities;    /* rows; [0] is frame 0; L_max zeros before, L_max + 32 after the frames */
    const int32_t *entry_rows;  /* (num_beats,) row seen by the first state of a beat */
    const int32_t *inside_rows; /* (num_beats,) row seen by the other states within the border; row 0 beyond it */
} viterbi_observations_t;

typedef struct {
    ptrdiff_t vectors;      /* vectors in a block */
    ptrdiff_t step;         /* frames in a block: at most LANES * vectors and at most the shortest interval */
    ptrdiff_t exits_stride; /* frames held per chain: L_max + LANES * MAX_VECTORS + 1 or more */
    double *exits;          /* (chains, exits_stride) */
    double *block;          /* (chains, LANES * vectors) exits of the frames that a block chooses from */
    void *choices;          /* (blocks, chains, LANES * vectors) ordinal of the best candidate */
    int wide;               /* choices are uint16 instead of uint8 */
} viterbi_work_t;

ALLIN1_INLINE values_t load(const double *source) {
    values_t value;
    memcpy(&value, source, sizeof value);
    return value;
}

ALLIN1_INLINE void store(double *target, values_t value) { memcpy(target, &value, sizeof value); }

ALLIN1_INLINE values_t spread(double value) {
    return (values_t){value, value, value, value, value, value, value, value};
}

ALLIN1_INLINE values_t pick_value(lanes_t mask, values_t yes, values_t no) {
    return (values_t)((mask & (lanes_t)yes) | (~mask & (lanes_t)no));
}

ALLIN1_INLINE lanes_t pick_lane(lanes_t mask, lanes_t yes, lanes_t no) { return (mask & yes) | (~mask & no); }

/* Best candidate of one entry in `vectors` * LANES frames: strict >, in the order of the candidates. */
ALLIN1_INLINE void choose(ptrdiff_t count, const int32_t *origins, const double *log_transitions,
                          const double *block, const double *density, ptrdiff_t vectors, double *entry,
                          void *choices, int wide) {
    values_t best[MAX_VECTORS], seen[MAX_VECTORS];
    lanes_t choice[MAX_VECTORS];
    for (ptrdiff_t v = 0; v < vectors; v++) {
        best[v] = spread(-INFINITY);
        seen[v] = load(density + v * LANES);
        choice[v] = (lanes_t){0};
    }
    for (ptrdiff_t c = 0; c < count; c++) {
        const double *exits = block + origins[c] * (vectors * LANES);
        const values_t log_transition = spread(log_transitions[c]);
        const lanes_t ordinal = (lanes_t){c, c, c, c, c, c, c, c};
        for (ptrdiff_t v = 0; v < vectors; v++) {
            const values_t candidate = (load(exits + v * LANES) + log_transition) + seen[v];
            const lanes_t better = (lanes_t)(candidate > best[v]);
            best[v] = pick_value(better, candidate, best[v]);
            choice[v] = pick_lane(better, ordinal, choice[v]);
        }
    }
    for (ptrdiff_t v = 0; v < vectors; v++) {
        store(entry + v * LANES, best[v]);
        if (wide) {
            const words_t words = __builtin_convertvector(choice[v], words_t);
            memcpy((uint16_t *)choices + v * LANES, &words, sizeof words);
        } else {
            const bytes_t bytes = __builtin_convertvector(choice[v], bytes_t);
            memcpy((uint8_t *)choices + v * LANES, &bytes, sizeof bytes);
        }
    }
}

/* Carry the entries of LANES successive frames, for `together` beats at one tempo, to their exits. */
ALLIN1_INLINE void carry(ptrdiff_t together, ptrdiff_t interval, const int32_t *borders, ptrdiff_t borders_stride,
                         const double *const *inside, const double *outside, const double *entries,
                         ptrdiff_t entries_stride, double *exits, ptrdiff_t exits_stride) {
    values_t value[MAX_TOGETHER];
    ptrdiff_t common = 1;
    for (ptrdiff_t b = 0; b < together; b++) {
        const ptrdiff_t border = borders[b * borders_stride];
        if (border > common) common = border;
    }
    for (ptrdiff_t b = 0; b < together; b++) {
        const ptrdiff_t border = borders[b * borders_stride];
        values_t carried = load(entries + b * entries_stride);
        ptrdiff_t position = 1;
        for (; position < border; position++) carried += load(inside[b] + position);
        for (; position < common; position++) carried += load(outside + position);
        value[b] = carried;
    }
    for (ptrdiff_t position = common; position < interval; position++) {
        const values_t density = load(outside + position);
        for (ptrdiff_t b = 0; b < together; b++) value[b] += density;
    }
    for (ptrdiff_t b = 0; b < together; b++) store(exits + b * exits_stride, value[b]);
}

/* Entries of all beats at interval j, `vectors` * LANES frames from `frame` on, carried to exits, `held` from there. */
ALLIN1_INLINE void carry_beats(const viterbi_model_t *model, const viterbi_observations_t *seen, ptrdiff_t j,
                               ptrdiff_t frame, ptrdiff_t vectors, const double *entries,
                               ptrdiff_t entries_stride, double *exits, ptrdiff_t exits_stride) {
    const ptrdiff_t intervals = model->num_intervals;
    for (ptrdiff_t b = 0; b < model->num_beats; b += MAX_TOGETHER) {
        const ptrdiff_t left = model->num_beats - b;
        for (ptrdiff_t v = 0; v < vectors; v++) {
            const ptrdiff_t start = frame + v * LANES;
            const double *inside[MAX_TOGETHER];
            for (ptrdiff_t i = 0; i < left && i < MAX_TOGETHER; i++)
                inside[i] = seen->densities + seen->inside_rows[b + i] * seen->row_stride + start;
#define CARRY(TOGETHER)                                                                                       \
    carry(TOGETHER, model->intervals[j], model->borders + b * intervals + j, intervals, inside,               \
          seen->densities + start, entries + b * entries_stride + v * LANES, entries_stride,                  \
          exits + b * exits_stride + v * LANES, exits_stride)
            if (left >= 4) CARRY(4);
            else if (left == 3) CARRY(3);
            else if (left == 2) CARRY(2);
            else CARRY(1);
#undef CARRY
        }
    }
}

/* All states' initial values, as entries before frame 0. Column 0 of the exits is then frame -1. */
ALLIN1_INLINE void carry_initial(const viterbi_model_t *model, const viterbi_observations_t *seen,
                                 const viterbi_work_t *work, const double *initial) {
    const ptrdiff_t intervals = model->num_intervals;
    ptrdiff_t first = 0, states = 0;
    for (ptrdiff_t j = 0; j < intervals; j++) states += model->intervals[j];
    for (ptrdiff_t j = 0; j < intervals; j++) {
        const ptrdiff_t interval = model->intervals[j];
        for (ptrdiff_t done = 0; done < interval; done += LANES) {
            for (ptrdiff_t b = 0; b < model->num_beats; b += MAX_TOGETHER) {
                double entries[MAX_TOGETHER][LANES];
                const double *inside[MAX_TOGETHER];
                const ptrdiff_t left = model->num_beats - b;
                const ptrdiff_t start = done - interval;
                for (ptrdiff_t i = 0; i < left && i < MAX_TOGETHER; i++) {
                    const double *last = initial + (b + i) * states + first + interval - 1;
                    for (ptrdiff_t lane = 0; lane < LANES; lane++)
                        entries[i][lane] = done + lane < interval ? last[-(done + lane)] : -INFINITY;
                    inside[i] = seen->densities + seen->inside_rows[b + i] * seen->row_stride + start;
                }
                for (ptrdiff_t i = 0; i < left && i < MAX_TOGETHER; i++)
                    carry(1, interval, model->borders + (b + i) * intervals + j, intervals, inside + i,
                          seen->densities + start, entries[i], LANES,
                          work->exits + ((b + i) * intervals + j) * work->exits_stride + done,
                          work->exits_stride);
            }
        }
        first += interval;
    }
}

/* One block of frames: choose every entry, carry it to its exit. `column` of the exits is frame - 1. */
ALLIN1_INLINE void decode_block(const viterbi_model_t *model, const viterbi_observations_t *seen,
                                const viterbi_work_t *work, ptrdiff_t frame, ptrdiff_t column, ptrdiff_t vectors,
                                char *choices, double *entries) {
    const ptrdiff_t beats = model->num_beats, intervals = model->num_intervals, width = vectors * LANES;
    const ptrdiff_t bytes = work->wide ? 2 : 1;
    for (ptrdiff_t chain = 0; chain < beats * intervals; chain++)
        for (ptrdiff_t v = 0; v < vectors; v++)
            store(work->block + chain * width + v * LANES,
                  load(work->exits + chain * work->exits_stride + column + v * LANES));
    for (ptrdiff_t j = 0; j < intervals; j++) {
        for (ptrdiff_t b = 0; b < beats; b++) {
            const ptrdiff_t chain = b * intervals + j, before = (b ? b : beats) - 1;
            const int64_t offset = model->offsets[chain];
            choose(model->offsets[chain + 1] - offset, model->origins + offset, model->log_transitions + offset,
                   work->block + before * intervals * width,
                   seen->densities + seen->entry_rows[b] * seen->row_stride + frame, vectors, entries + b * width,
                   choices + chain * width * bytes, work->wide);
        }
        carry_beats(model, seen, j, frame, vectors, entries, width,
                    work->exits + j * work->exits_stride + column + model->intervals[j],
                    intervals * work->exits_stride);
    }
}

/* Run the recursion over all frames; returns the column of the exits that is frame T - 1. */
ALLIN1_MULTIVERSION
static ptrdiff_t viterbi_forward(const viterbi_model_t *model, const viterbi_observations_t *seen,
                                 const viterbi_work_t *work, const double *initial, double *entries) {
    const ptrdiff_t chains = model->num_beats * model->num_intervals;
    const ptrdiff_t longest = model->intervals[model->num_intervals - 1];
    const ptrdiff_t held = longest + LANES * MAX_VECTORS; /* columns in use after `column` */
    const ptrdiff_t bytes = work->wide ? 2 : 1;
    ptrdiff_t column = 0;
    char *choices = work->choices;
    carry_initial(model, seen, work, initial);
    for (ptrdiff_t frame = 0;; frame += work->step) {
        if (column + held > work->exits_stride) { /* out of columns: move those in use to the front */
            for (ptrdiff_t chain = 0; chain < chains; chain++) {
                double *row = work->exits + chain * work->exits_stride;
                memmove(row, row + column, (size_t)(longest + LANES) * sizeof *row);
            }
            column = 0;
        }
        switch (work->vectors) {
        case 1: decode_block(model, seen, work, frame, column, 1, choices, entries); break;
        case 2: decode_block(model, seen, work, frame, column, 2, choices, entries); break;
        case 3: decode_block(model, seen, work, frame, column, 3, choices, entries); break;
        default: decode_block(model, seen, work, frame, column, 4, choices, entries); break;
        }
        if (frame + work->step >= seen->num_frames) return column + seen->num_frames - frame;
        column += work->step;
        choices += chains * work->vectors * LANES * bytes;
    }
}

/* The best last state (the first of equals, in the order of the states) and the path that led there.
 * Returns its log probability; the path is written only if that is not -inf. */
static double viterbi_backtrack(const viterbi_model_t *model, const viterbi_observations_t *seen,
                                const viterbi_work_t *work, ptrdiff_t last_column, uint32_t *path) {
    const ptrdiff_t beats = model->num_beats, intervals = model->num_intervals, chains = beats * intervals;
    const ptrdiff_t width = work->vectors * LANES;
    ptrdiff_t best_chain = 0, position = 0, states = 0, first = 0;
    double best = -INFINITY;
    for (ptrdiff_t chain = 0; chain < chains; chain++) {
        const ptrdiff_t interval = model->intervals[chain % intervals];
        const double *value = work->exits + chain * work->exits_stride + last_column + interval - 1;
        for (ptrdiff_t p = 0; p < interval; p++) {
            if (value[-p] > best) {
                best = value[-p];
                best_chain = chain;
                position = p;
            }
        }
    }
    if (best == -INFINITY) return best;
    for (ptrdiff_t j = 0; j < intervals; j++) states += model->intervals[j];
    ptrdiff_t beat = best_chain / intervals, j = best_chain % intervals;
    for (ptrdiff_t frame = seen->num_frames - 1;;) {
        first = beat * states;
        for (ptrdiff_t i = 0; i < j; i++) first += model->intervals[i];
        for (; position > 0 && frame >= 0; position--, frame--) path[frame] = (uint32_t)(first + position);
        if (frame < 0) return best;
        path[frame] = (uint32_t)first;
        const ptrdiff_t chain = beat * intervals + j;
        const ptrdiff_t at = ((frame / work->step) * chains + chain) * width + frame % work->step;
        const ptrdiff_t ordinal =
            work->wide ? ((const uint16_t *)work->choices)[at] : ((const uint8_t *)work->choices)[at];
        j = model->origins[model->offsets[chain] + ordinal];
        beat = (beat ? beat : beats) - 1;
        position = model->intervals[j] - 1;
        if (--frame < 0) return best;
    }
}

#endif
