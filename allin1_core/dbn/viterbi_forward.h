/* The forward recursion for one vector width; `viterbi_kernel.h` derives it, and includes this once for each width.
 *
 * Before: VECTOR_BYTES, VERSION(name) (the name for this width) and TARGET (attribute of the entry point).
 * Register arrays below have constant sizes at each call, and everything but the entry point is inlined. */
#define LANES (VECTOR_BYTES / (ptrdiff_t)sizeof(double))
#define values_t VERSION(values_t)
#define lanes_t VERSION(lanes_t)
#define bytes_t VERSION(bytes_t)
#define words_t VERSION(words_t)
#define load VERSION(load)
#define store VERSION(store)
#define choose VERSION(choose)
#define carry VERSION(carry)
#define carry_beats VERSION(carry_beats)
#define carry_initial VERSION(carry_initial)
#define decode_block VERSION(decode_block)

typedef double values_t __attribute__((vector_size(VECTOR_BYTES)));
typedef int64_t lanes_t __attribute__((vector_size(VECTOR_BYTES)));
typedef uint8_t bytes_t __attribute__((vector_size(VECTOR_BYTES / 8)));
typedef uint16_t words_t __attribute__((vector_size(VECTOR_BYTES / 4)));

ALLIN1_INLINE values_t load(const double *source) {
    values_t value;
    memcpy(&value, source, sizeof value);
    return value;
}

ALLIN1_INLINE void store(double *target, values_t value) { memcpy(target, &value, sizeof value); }

/* Best candidate of one entry, in `vectors` * LANES frames: strict >, in the order of the candidates. */
ALLIN1_INLINE void choose(ptrdiff_t vectors, ptrdiff_t count, const int32_t *origins,
                          const double *log_transitions, const double *block, ptrdiff_t width,
                          const double *density, double *entry, void *choices, int wide) {
    values_t best[MAX_GROUP], seen[MAX_GROUP];
    lanes_t choice[MAX_GROUP], ordinal = (lanes_t){0};
    for (ptrdiff_t v = 0; v < vectors; v++) {
        best[v] = (values_t){0} - INFINITY;
        seen[v] = load(density + v * LANES);
        choice[v] = (lanes_t){0};
    }
    for (ptrdiff_t c = 0; c < count; c++) {
        const double *exits = block + origins[c] * width;
        const double log_transition = log_transitions[c];
        for (ptrdiff_t v = 0; v < vectors; v++) {
            const values_t candidate = (load(exits + v * LANES) + log_transition) + seen[v];
            const lanes_t better = (lanes_t)(candidate > best[v]);
            best[v] = (values_t)((better & (lanes_t)candidate) | (~better & (lanes_t)best[v]));
            choice[v] = (better & ordinal) | (~better & choice[v]);
        }
        ordinal += 1;
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

/* Carry the entries of `together` beats at one interval, made in `vectors` * LANES frames from `frame` on, to their
 * exits. Beats and vectors go side by side because an addition has to wait for the one before it. */
ALLIN1_INLINE void carry(ptrdiff_t together, ptrdiff_t vectors, ptrdiff_t interval, const int32_t *borders,
                         ptrdiff_t borders_stride, const double *const *inside, const double *outside,
                         ptrdiff_t frame, const double *entries, ptrdiff_t entries_stride, double *exits,
                         ptrdiff_t exits_stride) {
    values_t value[MAX_TOGETHER][MAX_GROUP];
    ptrdiff_t common = 1;
    for (ptrdiff_t b = 0; b < together; b++)
        if (borders[b * borders_stride] > common) common = borders[b * borders_stride];
    for (ptrdiff_t b = 0; b < together; b++) {
        const ptrdiff_t border = borders[b * borders_stride];
        ptrdiff_t position = 1;
        for (ptrdiff_t v = 0; v < vectors; v++) value[b][v] = load(entries + b * entries_stride + v * LANES);
        for (; position < border; position++)
            for (ptrdiff_t v = 0; v < vectors; v++) value[b][v] += load(inside[b] + frame + position + v * LANES);
        for (; position < common; position++)
            for (ptrdiff_t v = 0; v < vectors; v++) value[b][v] += load(outside + frame + position + v * LANES);
    }
    for (ptrdiff_t position = common; position < interval; position++) {
        for (ptrdiff_t v = 0; v < vectors; v++) {
            const values_t density = load(outside + frame + position + v * LANES);
            for (ptrdiff_t b = 0; b < together; b++) value[b][v] += density;
        }
    }
    for (ptrdiff_t b = 0; b < together; b++)
        for (ptrdiff_t v = 0; v < vectors; v++) store(exits + b * exits_stride + v * LANES, value[b][v]);
}

/* Run STATEMENT(v, group) over `vectors` vectors in groups of equal size (the last may be smaller), at most `most`,
 * which is at most 4. Each size is its own copy of the code, so that the group lives in registers. */
#define FOR_GROUPS(vectors, most, STATEMENT)                                                                  \
    do {                                                                                                      \
        const ptrdiff_t groups_ = ((vectors) + (most)-1) / (most), group_ = ((vectors) + groups_ - 1) / groups_; \
        for (ptrdiff_t v_ = 0; v_ < (vectors); v_ += group_) {                                                \
            const ptrdiff_t left_ = (vectors) - v_;                                                           \
            switch (left_ < group_ ? left_ : group_) {                                                        \
            case 1: STATEMENT(v_, 1); break;                                                                  \
            case 2: STATEMENT(v_, 2); break;                                                                  \
            case 3: STATEMENT(v_, 3); break;                                                                  \
            default: STATEMENT(v_, 4); break;                                                                 \
            }                                                                                                 \
        }                                                                                                     \
    } while (0)

/* Entries of all beats at interval j, `width` frames from `frame` on, carried to `exits`. */
ALLIN1_INLINE void carry_beats(const viterbi_model_t *model, const viterbi_observations_t *seen, ptrdiff_t j,
                               ptrdiff_t frame, ptrdiff_t width, const double *entries, double *exits,
                               ptrdiff_t exits_stride) {
    const ptrdiff_t intervals = model->num_intervals;
    ptrdiff_t together;
    for (ptrdiff_t b = 0; b < model->num_beats; b += together) {
        const ptrdiff_t left = model->num_beats - b;
        const double *inside[MAX_TOGETHER];
        together = left < MAX_TOGETHER ? left : MAX_TOGETHER;
        for (ptrdiff_t i = 0; i < together; i++)
            inside[i] = seen->densities + seen->inside_rows[b + i] * seen->row_stride;
#define CARRY(TOGETHER, V, VECTORS)                                                                           \
    carry(TOGETHER, VECTORS, model->intervals[j], model->borders + b * intervals + j, intervals, inside,      \
          seen->densities, frame + (V)*LANES, entries + b * width + (V)*LANES, width,                         \
          exits + b * exits_stride + (V)*LANES, exits_stride)
#define CARRY_1(V, VECTORS) CARRY(1, V, VECTORS)
#define CARRY_2(V, VECTORS) CARRY(2, V, VECTORS)
#define CARRY_3(V, VECTORS) CARRY(3, V, VECTORS)
#define CARRY_4(V, VECTORS) CARRY(4, V, VECTORS)
        switch (together) { /* at most 12 vectors at a time: what the 16 registers of AVX2 and SSE2 hold */
        case 1: FOR_GROUPS(width / LANES, 4, CARRY_1); break;
        case 2: FOR_GROUPS(width / LANES, 4, CARRY_2); break;
        case 3: FOR_GROUPS(width / LANES, 4, CARRY_3); break;
        default: FOR_GROUPS(width / LANES, 3, CARRY_4); break;
        }
#undef CARRY
#undef CARRY_1
#undef CARRY_2
#undef CARRY_3
#undef CARRY_4
    }
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
            carry(1, 1, interval, model->borders + chain, 0, &inside, seen->densities, done - interval, entries,
                  LANES, work->exits + chain * work->exits_stride + done, work->exits_stride);
        }
    }
}

/* One block of frames: choose every entry, carry it to its exit. `column` of the exits is frame - 1. */
ALLIN1_INLINE void decode_block(const viterbi_model_t *model, const viterbi_observations_t *seen,
                                const viterbi_work_t *work, ptrdiff_t frame, ptrdiff_t column, char *choices) {
    const ptrdiff_t beats = model->num_beats, intervals = model->num_intervals, width = work->width;
    const ptrdiff_t bytes = work->wide ? 2 : 1;
    for (ptrdiff_t chain = 0; chain < beats * intervals; chain++)
        for (ptrdiff_t i = 0; i < width; i += LANES)
            store(work->block + chain * width + i, load(work->exits + chain * work->exits_stride + column + i));
    for (ptrdiff_t j = 0; j < intervals; j++) {
        for (ptrdiff_t b = 0; b < beats; b++) {
            const ptrdiff_t chain = b * intervals + j;
            const int64_t offset = model->offsets[chain], count = model->offsets[chain + 1] - offset;
            const double *before = work->block + ((b ? b : beats) - 1) * intervals * width;
            const double *density = seen->densities + seen->entry_rows[b] * seen->row_stride + frame;
#define CHOOSE(V, VECTORS)                                                                                    \
    choose(VECTORS, count, model->origins + offset, model->log_transitions + offset, before + (V)*LANES,      \
           width, density + (V)*LANES, work->entries + b * width + (V)*LANES,                                 \
           choices + (chain * width + (V)*LANES) * bytes, work->wide)
            FOR_GROUPS(width / LANES, 4, CHOOSE);
#undef CHOOSE
        }
        carry_beats(model, seen, j, frame, width, work->entries,
                    work->exits + j * work->exits_stride + column + model->intervals[j],
                    intervals * work->exits_stride);
    }
}

/* Run the recursion over all frames; returns the column of the exits that is the last frame. */
TARGET static ptrdiff_t VERSION(forward)(const viterbi_model_t *model, const viterbi_observations_t *seen,
                                         const viterbi_work_t *work, const double *initial) {
    const ptrdiff_t chains = model->num_beats * model->num_intervals;
    const ptrdiff_t longest = model->intervals[model->num_intervals - 1];
    ptrdiff_t column = 0;
    char *choices = work->choices;
    carry_initial(model, seen, work, initial);
    for (ptrdiff_t frame = 0;; frame += work->step) {
        if (column + longest + work->width > work->exits_stride) { /* move the columns in use to the front */
            for (ptrdiff_t chain = 0; chain < chains; chain++) {
                double *row = work->exits + chain * work->exits_stride;
                memmove(row, row + column, (size_t)longest * sizeof *row);
            }
            column = 0;
        }
        decode_block(model, seen, work, frame, column, choices);
        if (frame + work->step >= seen->num_frames) return column + seen->num_frames - frame;
        column += work->step;
        choices += chains * work->width * (work->wide ? 2 : 1);
    }
}

#undef LANES
#undef values_t
#undef lanes_t
#undef bytes_t
#undef words_t
#undef load
#undef store
#undef choose
#undef carry
#undef carry_beats
#undef carry_initial
#undef decode_block
#undef FOR_GROUPS
