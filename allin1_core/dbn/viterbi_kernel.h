/* The exact Viterbi recursion of a bar model, carried from beat to beat instead of from state to state.
 *
 * A chain is one beat of the bar at one tempo: L states, passed one per frame with log transition 0. Only its first
 * state has a choice of predecessors: the last states of the beat before, or of several beats, where bars of several
 * lengths end before it. With d the log density that a state sees,
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
 * and after the last frame T - 1 the value of position p stands where its chain would be left, T + L - 2 - p.
 *
 * Most blocks of frames are made in fixed point, with fewer instructions and the same bits: viterbi_fixed_point.h. */
#ifndef ALLIN1_VITERBI_KERNEL_H
#define ALLIN1_VITERBI_KERNEL_H

#include "../simd/dispatch.h"

enum {
    FRAMES_UNIT = 8,     /* a block of frames is this many, or a multiple */
    MAX_BLOCK_UNITS = 4, /* and at most this multiple */
    MAX_TOGETHER = 4     /* beats side by side, sharing the densities they see */
};

struct viterbi_model_t {
    ptrdiff_t num_beats, num_intervals;
    const int32_t *intervals;      /* (num_intervals,) states of a chain, ascending */
    const int32_t *borders;        /* (num_beats, num_intervals) states of a chain that see the beat density */
    const int64_t *offsets;        /* (num_beats * num_intervals + 1,) candidates of each entry, in the next two */
    const int32_t *origins;        /* chain whose last state it is */
    const double *log_transitions; /* as long as `origins` */
    ptrdiff_t longest_border;      /* the largest of `borders`, at least 1 */
};

struct viterbi_observations_t {
    ptrdiff_t num_frames;
    ptrdiff_t row_stride;
    const double *densities;    /* rows; [0] is frame 0; L_max zeros before; after, L_max + 40 */
    const int32_t *entry_rows;  /* (num_beats,) row seen by the first state of a beat */
    const int32_t *inside_rows; /* (num_beats,) row seen by the other states within the border; row 0 beyond it */
};

/* A transition in fixed point; `viterbi_fixed_point.h` says how. */
struct viterbi_candidate_t {
    ptrdiff_t offset; /* of its exits, in those of the beat before in a block */
    int64_t key;
};

struct viterbi_work_t {
    ptrdiff_t width;        /* frames that a block has room for, a multiple of FRAMES_UNIT */
    ptrdiff_t step;         /* frames in a block: at most `width`, and at most the shortest interval */
    ptrdiff_t exits_stride; /* frames held for each chain: at least L_max + width + step + FRAMES_UNIT */
    ptrdiff_t sums_stride;  /* at least L_max + width + FRAMES_UNIT */
    double *exits;          /* (chains, exits_stride) */
    double *block;          /* (chains, width) exits that a block of frames chooses from */
    double *entries;        /* (num_beats, width) */
    void *choices;          /* (blocks, chains, width) last_ordinal less the ordinal of the best candidate */
    int wide;               /* choices are uint16 instead of uint8 */
    int64_t *sums;          /* (1 + num_beats, sums_stride) of densities in fixed point */
    viterbi_candidate_t *candidates; /* as many as `origins` */
    int64_t *ties;          /* (chains,) the first candidate of each with a tie */
};

/* Choices count down from here: of equal values in fixed point the larger one wins. */
static ALLIN1_INLINE int last_ordinal(int wide) { return wide ? 65535 : 255; }

enum {
    FORWARD_BLOCK = 64,                /* states of the forward algorithm that are summed together */
    FORWARD_CHUNK = 8 * FORWARD_BLOCK, /* and that are made before the first half of them is */
    FORWARD_ROOM = 512,                /* frames until the states are moved back */
    FORWARD_HEAD = 8,                  /* states made together where a beat is seen, a multiple of all lanes */
    FORWARD_ENTRIES = 16,              /* first states whose predecessors are summed together, a multiple of all lanes */
};

/* States in a row, of which some see a beat: the first ones, of FORWARD_HEAD. */
struct forward_head_t {
    int64_t first, number;
};

/* A beat model for the forward algorithm; `forward_algorithm.h` says how it runs. */
struct forward_model_t {
    ptrdiff_t num_states, num_intervals;
    ptrdiff_t num_heads;
    const forward_head_t *heads; /* (num_heads,) all states that see a beat, ascending */
    const int64_t *firsts;     /* (num_intervals + 1,) first state of each interval, and num_states */
    const int64_t *origins;    /* (groups,) by FORWARD_ENTRIES intervals, the first that leads to one of them */
    const int64_t *offsets;    /* (groups + 1,) of its row in `transitions`, then those of the intervals after it */
    const double *transitions; /* (rows, FORWARD_ENTRIES) probabilities of entering the intervals of a group */
    double *exits, *entries;   /* (groups * FORWARD_ENTRIES,) for its use */
    double *made_heads;        /* (num_heads, FORWARD_HEAD) for its use */
    double *greatest;          /* 8 for each of the blocks that the states can lie in, for its use */
    uint8_t *growing;          /* of each block in `room` a hint, that its states multiply their sum, for its use */
    double *room;              /* (FORWARD_ROOM + num_states + FORWARD_BLOCK,) 0 but for the states */
};

/* The probability of state s is room[first + s] * factor. */
struct forward_place_t {
    ptrdiff_t first;
    double factor;
    ptrdiff_t begin; /* a hint, the block in `room` where it is worth while to begin to sum exactly */
};

/* `forward` returns the column of the exits that is the last frame, `forward_frame` the likeliest state. */
struct kernels_t {
    ptrdiff_t (*forward)(const viterbi_model_t *, const viterbi_observations_t *, const viterbi_work_t *,
                         const double *initial);
    ptrdiff_t (*forward_frame)(const forward_model_t *, forward_place_t *, double beat, double other);
};

#define KERNELS "../dbn/viterbi_forward.h"
#include "../simd/targets.h"

/* The best last state (the first of equals, in the order of the states) and the path that led there.
 * Returns its log probability; the path is written only if that is not -inf. */
static double viterbi_backtrack(const viterbi_model_t *model, const viterbi_observations_t *seen,
                                const viterbi_work_t *work, ptrdiff_t last_column, uint32_t *path) {
    const ptrdiff_t beats = model->num_beats, intervals = model->num_intervals, chains = beats * intervals;
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
    for (ptrdiff_t frame = seen->num_frames - 1, chain = best_chain;;) {
        const ptrdiff_t j = chain % intervals;
        first = chain / intervals * states;
        for (ptrdiff_t i = 0; i < j; i++) first += model->intervals[i];
        for (; position > 0 && frame >= 0; position--, frame--) path[frame] = (uint32_t)(first + position);
        if (frame < 0) return best;
        path[frame] = (uint32_t)first;
        const ptrdiff_t at = ((frame / work->step) * chains + chain) * work->width + frame % work->step;
        const ptrdiff_t choice =
            work->wide ? ((const uint16_t *)work->choices)[at] : ((const uint8_t *)work->choices)[at];
        chain = model->origins[model->offsets[chain] + last_ordinal(work->wide) - choice];
        position = model->intervals[chain % intervals] - 1;
        if (--frame < 0) return best;
    }
}

#endif
