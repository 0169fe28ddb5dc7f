/* A block of the forward recursion in fixed point, for one instruction set; viterbi_forward.h includes this.
 *
 * Numbers x of one exponent, -2^(e+1) < x <= -2^e, are multiples of u = 2^(e-52). While a sum stays among them,
 *
 *     fl(x + y) = x + u rint(y / u)        unless y / u lies halfway between two integers (a tie),
 *
 * so all roundings are known beforehand, and what is left is the arithmetic of integers. Log probabilities only fall,
 * by some 270 a second, and those held at a time are within 500 of each other: but for the while in which they pass a
 * power of two, all have one exponent. In a block of frames where they have, to the bit:
 *
 *  - An entry is carried to its exit by differences of prefix sums, however long its chain.
 *  - The density that an entry sees is added after the choice: it keeps the order of the candidates.
 *  - A candidate's value and ordinal are one integer, its key, and to choose is to take the largest:
 *
 *        key = LEAST + 256 (x / u + 2^53 - 1) + (255 - ordinal)
 *
 *    Of equal values the first wins. An exit's key has a low byte of 0.
 *
 * LEAST = 3 * 2^60 is the key of the least x. Nothing falls by 2 * 2^(e+1) between two exits, so that keys lie between
 * 2^60 and 2^62: read as float64 they are positive, normal and in the order of the integers, and the larger of two takes
 * one instruction. Keys of the exponent have bits 60 and 61 set, those below have not; each exit is held to that.
 * Nothing rises: where an exit has the exponent, so have all sums on the way to it. A candidate below loses to one that
 * leads there, as its value does.
 *
 * A transition with a tie rounds to the even sum. Taken downwards, it leaves bit 8 of the key 0 where the sum is odd;
 * setting that bit rounds up. Blocks with a tie or -inf among their densities are left to the recursion in float64. */
constexpr int64_t UNIT = 256;
constexpr int64_t LEAST = 3LL << 60;
constexpr int64_t MANTISSA = (1LL << 52) - 1;
constexpr int SMALLEST_EXPONENT = 9;
constexpr double MOST_UNITS = 1125899906842624.0;        /* 2^50, of one addend */
constexpr double MOST_UNITS_FALLEN = 9007199254740992.0; /* 2^53, from an exit to the next */
constexpr double ROUNDING = 6755399441055744.0;          /* 1.5 * 2^52: added, it leaves rint in the low bits */

/* What the addends of one exponent have in common. */
struct fixed_point_t {
    int exponent; /* 0: none yet */
    double per_unit;
    double most_fallen; /* units of a transition */
};

/* The exponent of all exits from `column` on; 0 if they have not one, are not negative, or too near 0. */
ALLIN1_INLINE int common_exponent(const viterbi_model_t *model, const viterbi_work_t *work, ptrdiff_t column) {
    const int64_t *first = (const int64_t *)(work->exits + column);
    const lanes_t one = load(first) & ~MANTISSA;
    for (ptrdiff_t chain = 0; chain < model->num_beats * model->num_intervals; chain++) {
        const int64_t *row = first + chain * work->exits_stride;
        const ptrdiff_t interval = model->intervals[chain % model->num_intervals];
        lanes_t other = lanes_t{};
        for (ptrdiff_t i = 0; i < interval; i += LANES) /* the last LANES columns overlap those before */
            other |= (load(row + (i < interval - LANES ? i : interval - LANES)) & ~MANTISSA) ^ one[0];
        if (any(other)) return 0;
    }
    const int exponent = (int)(one[0] >> 52 & 2047) - 1023;
    return one[0] < 0 && exponent >= SMALLEST_EXPONENT && exponent <= 1023 ? exponent : 0;
}

/* The exits from `column` on become keys, and from keys values. Up to LANES - 1 columns behind them change as well. */
ALLIN1_INLINE void exits_to_keys(const viterbi_model_t *model, const viterbi_work_t *work, ptrdiff_t column) {
    for (ptrdiff_t chain = 0; chain < model->num_beats * model->num_intervals; chain++) {
        int64_t *row = (int64_t *)(work->exits + chain * work->exits_stride + column);
        for (ptrdiff_t i = 0; i < model->intervals[chain % model->num_intervals]; i += LANES)
            store(row + i, LEAST + UNIT * (MANTISSA - (load(row + i) & MANTISSA)));
    }
}

ALLIN1_INLINE void exits_to_values(const viterbi_model_t *model, const viterbi_work_t *work, ptrdiff_t column,
                                   int exponent) {
    const uint64_t negative = 1ULL << 63 | (uint64_t)(exponent + 1023) << 52;
    for (ptrdiff_t chain = 0; chain < model->num_beats * model->num_intervals; chain++) {
        uint64_t *row = (uint64_t *)(work->exits + chain * work->exits_stride + column);
        for (ptrdiff_t i = 0; i < model->intervals[chain % model->num_intervals]; i += LANES)
            store(row + i, negative | (MANTISSA - ((load(row + i) - LEAST) / UNIT)));
    }
}

/* The transitions at an exponent: of each chain those without a tie, then those with one. */
ALLIN1_INLINE fixed_point_t transitions_as_keys(const viterbi_model_t *model, const viterbi_work_t *work,
                                                int exponent) {
    const int64_t bits = (int64_t)(1023 + 52 - exponent) << 52;
    fixed_point_t point = {exponent, 0.0, 0.0};
    memcpy(&point.per_unit, &bits, sizeof bits);
    for (ptrdiff_t chain = 0; chain < model->num_beats * model->num_intervals; chain++) {
        int64_t plain = model->offsets[chain], tied = model->offsets[chain + 1];
        for (int64_t c = model->offsets[chain]; c < model->offsets[chain + 1]; c++) {
            const double units = model->log_transitions[c] * point.per_unit;
            double whole = (units + ROUNDING) - ROUNDING;
            const bool tie = units - whole == 0.5 || units - whole == -0.5;
            if (tie && whole > units) whole -= 1.0;
            if (!(whole <= 0.0 && whole >= -MOST_UNITS)) {
                point.most_fallen = INFINITY;
                return point;
            }
            if (-whole > point.most_fallen) point.most_fallen = -whole;
            const int64_t ordinal = c - model->offsets[chain];
            work->candidates[tie ? --tied : plain++] = {(ptrdiff_t)model->origins[c] * work->width,
                                                        UNIT * (int64_t)whole + (UNIT - 1 - ordinal)};
        }
        work->ties[chain] = tied;
    }
    return point;
}

/* Sums of the first 0, 1, .. `count` of these densities, as parts of keys. Returns how far the sum falls, in units, or
 * infinity where a density has a tie, rises, or falls too far. Up to LANES - 1 densities behind them are read. */
ALLIN1_INLINE double prefix_sums(const double *densities, ptrdiff_t count, double per_unit, int64_t *sums) {
    values_t fallen = values_t{};
    lanes_t unfit = lanes_t{};
    for (ptrdiff_t i = 0; i < count; i += LANES) {
        const values_t units = load(densities + i) * per_unit, whole = (units + ROUNDING) - ROUNDING;
        const values_t residue = units - whole;
        unfit |= ~((whole <= 0.0) & (whole >= -MOST_UNITS) & (residue * residue != 0.25));
        fallen -= whole;
        typedef vector<uint64_t> bits_t; /* which wrap where a density is unfit */
        store((uint64_t *)sums + i, ((bits_t)(units + ROUNDING) - (bits_t)broadcast(ROUNDING)) * (uint64_t)UNIT);
    }
    int64_t sum = 0;
    double most_fallen = 0.0;
    for (ptrdiff_t lane = 0; lane < LANES; lane++) most_fallen += fallen[lane];
    if (any(unfit) || most_fallen > MOST_UNITS_FALLEN) return INFINITY;
    for (ptrdiff_t i = 0; i < count; i++) {
        const int64_t density = sums[i];
        sums[i] = sum;
        sum += density;
    }
    sums[count] = sum;
    return most_fallen;
}

/* The first beat that sees the same densities as beat b. */
ALLIN1_INLINE ptrdiff_t first_alike(const viterbi_observations_t *seen, ptrdiff_t b) {
    ptrdiff_t first = 0;
    while (seen->inside_rows[first] != seen->inside_rows[b] || seen->entry_rows[first] != seen->entry_rows[b]) first++;
    return first;
}

/* The sums that a block is made with; whether they, with the transitions, stay within the bounds.
 *
 * Row 0 of `sums` is of what is seen beyond the border, row b + 1 of what beat b sees within. A chain that is entered in
 * frame i of the block sees entry[i] + (inside[i + border] - inside[i + 1]) + (outside[i + interval] - outside[i +
 * border]); what does not depend on the interval is `entries`. */
ALLIN1_INLINE bool sum_densities(const viterbi_model_t *model, const viterbi_observations_t *seen,
                                 const viterbi_work_t *work, fixed_point_t point, ptrdiff_t frame) {
    const ptrdiff_t width = work->width, longest = model->intervals[model->num_intervals - 1];
    const double *densities = seen->densities + frame;
    const double outside = prefix_sums(densities, width + longest - 1, point.per_unit, work->sums);
    double beat = 0.0;
    for (ptrdiff_t b = 0; b < model->num_beats; b++) {
        if (first_alike(seen, b) != b) continue;
        int64_t *inside = work->sums + (b + 1) * work->sums_stride, *entries = (int64_t *)work->entries + b * width;
        const double *entry = densities + seen->entry_rows[b] * seen->row_stride;
        double fallen = prefix_sums(entry, width, point.per_unit, inside);
        for (ptrdiff_t i = 0; i < width; i += LANES) store(entries + i, load(inside + i + 1) - load(inside + i));
        fallen += prefix_sums(densities + seen->inside_rows[b] * seen->row_stride, width + model->longest_border - 1,
                              point.per_unit, inside);
        for (ptrdiff_t i = 0; i < width; i += LANES) store(entries + i, load(entries + i) - load(inside + i + 1));
        if (fallen > beat) beat = fallen;
    }
    return point.most_fallen + beat + outside < MOST_UNITS_FALLEN;
}

/* The larger of two keys. */
ALLIN1_INLINE values_t larger(values_t best, lanes_t key) {
#if defined(ALLIN1_SEVERAL_SETS)
    __asm__("" : "+x"(key)); /* or GCC adds twice for AVX-512, the second time under the mask of a comparison */
#endif
    return maximum(best, (values_t)key);
}

/* The entries of one chain in a block, chosen, and carried to their exits. */
struct passage_t {
    const viterbi_candidate_t *candidates, *ties, *end;
    const int64_t *block; /* exits */
    const int64_t *entries, *inside, *outside_from, *outside_to;
    int64_t *exits;
    uint8_t *choices;
    lanes_t *common; /* bits of all exits */

    template <ptrdiff_t VECTORS> ALLIN1_INLINE void run(ptrdiff_t first) const {
        values_t best[VECTORS];
        for (ptrdiff_t v = 0; v < VECTORS; v++) best[v] = values_t{};
        for (const viterbi_candidate_t *c = candidates; c < ties; c++) {
            const int64_t *exit = block + first * LANES + c->offset;
            for (ptrdiff_t v = 0; v < VECTORS; v++) best[v] = larger(best[v], load(exit + v * LANES) + c->key);
        }
        for (const viterbi_candidate_t *c = ties; c < end; c++) {
            const int64_t *exit = block + first * LANES + c->offset;
            for (ptrdiff_t v = 0; v < VECTORS; v++)
                best[v] = larger(best[v], (load(exit + v * LANES) + c->key) | UNIT);
        }
        for (ptrdiff_t v = 0; v < VECTORS; v++) {
            const ptrdiff_t at = (first + v) * LANES;
            const lanes_t chosen = (lanes_t)best[v];
            const lanes_t exit = (chosen & -UNIT) + (load(entries + at) + load(inside + at)) +
                                 (load(outside_to + at) - load(outside_from + at));
            store(exits + at, exit);
            *common &= exit;
        }
        for (ptrdiff_t v = 0; v < VECTORS; v++) store_choices(choices + (first + v) * LANES, (lanes_t)best[v] & (UNIT - 1));
    }
};

/* One block of frames, of exits that are keys; whether the new exits have their exponent. If not, they are to be made
 * again. */
ALLIN1_INLINE bool decode_keys(const viterbi_model_t *model, const viterbi_observations_t *seen,
                               const viterbi_work_t *work, ptrdiff_t column, uint8_t *choices) {
    const ptrdiff_t beats = model->num_beats, intervals = model->num_intervals, width = work->width;
    lanes_t common = lanes_t{} - 1;
    for (ptrdiff_t j = 0; j < intervals; j++)
        for (ptrdiff_t b = 0; b < beats; b++) {
            const ptrdiff_t chain = b * intervals + j, interval = model->intervals[j], alike = first_alike(seen, b);
            const ptrdiff_t border = model->borders[chain] > 1 ? model->borders[chain] : 1;
            const passage_t passage = {work->candidates + model->offsets[chain],
                                       work->candidates + work->ties[chain],
                                       work->candidates + model->offsets[chain + 1],
                                       (int64_t *)work->block,
                                       (int64_t *)work->entries + alike * width,
                                       work->sums + (alike + 1) * work->sums_stride + border,
                                       work->sums + border,
                                       work->sums + interval,
                                       (int64_t *)work->exits + chain * work->exits_stride + column + interval,
                                       choices + chain * width,
                                       &common};
            for_groups<6>(width / LANES, passage);
        }
    int64_t least = LEAST;
    for (ptrdiff_t lane = 0; lane < LANES; lane++) least &= common[lane];
    return least == LEAST;
}
