/* The forward algorithm of a beat model, frame by frame, for one instruction set; simd/targets.h includes this.
 *
 * With v the probabilities of the states after a frame, d the densities of the next one, and P the transitions,
 *
 *     w(s) = (sum over p of v(p) P(p, s)) d(s),     v'(s) = w(s) (1 / sum over s of w(s)),
 *
 * each operation rounded, both sums one after the other in the order of the states, from 0. That is madmom's order, and
 * so these are its bits. Within a beat there is one predecessor, the state before, with P = 1: w(s) = v(s - 1) d(s). The
 * sums over predecessors are needed for the first states alone, one for each interval. The last state of an interval is
 * nobody's predecessor but theirs, and lies just before the first state of the next interval. So these sums are put in
 * the places of the last states, and w(s) = v(s - 1) d(s) holds for every s.
 *
 * The sum over all states would take as long as so many additions wait for each other. But while it is S with
 * 2^k <= S < 2^(k + 1), every addition of x >= 0 rounds S + x to a multiple of u = 2^(k - 52): it adds r(x), the
 * multiple of u nearest to x, unless x lies half way between two; and (2^k + x) - 2^k is r(x). Multiples of u below
 * 2^(k + 1) are added without rounding, in any order. So a block of states is summed in vectors. If the sum
 * reached 2^(k + 1) or an x was a tie, which NaN counts as, its parts are summed one after the other in the same way,
 * and the one where it happened number by number. */

/* The lanes turned by some. */
template <ptrdiff_t STEP> ALLIN1_INLINE values_t turned(values_t values) {
    lanes_t mask = lanes_t{};
    for (ptrdiff_t lane = 0; lane < LANES; lane++) mask[lane] = (lane + STEP) % LANES;
    return shuffle<double>(values, values, mask);
}

ALLIN1_INLINE double lanes_total(values_t values) {
    if constexpr (LANES > 4) values += turned<4>(values);
    if constexpr (LANES > 2) values += turned<2>(values);
    return values[0] + values[1];
}

ALLIN1_INLINE double lanes_maximum(values_t values) {
    if constexpr (LANES > 4) values = maximum(values, turned<4>(values));
    if constexpr (LANES > 2) values = maximum(values, turned<2>(values));
    return values[0] > values[1] ? values[0] : values[1];
}

struct sum_in_order_t {
    double sum, power; /* S and its 2^k */

    /* Add vectors of values if they need no care; otherwise false. */
    template <ptrdiff_t VECTORS> ALLIN1_INLINE bool add(const double *values) {
        const values_t powers = broadcast(power);
        values_t total = values_t{}, most = values_t{};
#pragma GCC unroll 8
        for (ptrdiff_t v = 0; v < VECTORS; v++) {
            const values_t value = load(values + v * LANES);
            const values_t rounded = (value + powers) - powers, left = value - rounded;
            total += rounded;
            most = maximum(most, maximum(left, -left));
        }
        const double next = sum + lanes_total(total);
        const bool careless = next < 2 * power && lanes_maximum(most) < power * 0x1p-53;
        if (careless) sum = next;
        return careless;
    }

    ALLIN1_INLINE void add_one_by_one(const double *values) {
#pragma GCC unroll 16
        for (ptrdiff_t i = 0; i < FORWARD_PART; i++) sum += values[i];
        int64_t bits;
        memcpy(&bits, &sum, sizeof bits);
        bits &= 0x7FF0000000000000LL;
        memcpy(&power, &bits, sizeof bits);
    }
};

/* The sums over predecessors of the first states, into the places of the last states before them. */
ALLIN1_INLINE void enter(const forward_model_t &model, double *from) {
    double *exits = model.exits, *entries = model.entries;
    for (ptrdiff_t i = 0; i < model.num_intervals; i++) exits[i] = from[model.lasts[i]];
    for (ptrdiff_t j = 0; j < model.num_intervals; j += FORWARD_ENTRIES) {
        const ptrdiff_t group = j / FORWARD_ENTRIES;
        const double *row = model.transitions + model.offsets[group] * FORWARD_ENTRIES;
        const double *exit = exits + model.origins[group];
        values_t sums[FORWARD_ENTRIES / LANES] = {};
        /* Transitions that are not are 0 in the rows: adding 0 changes nothing. */
        for (ptrdiff_t i = 0; i < model.offsets[group + 1] - model.offsets[group]; i++, row += FORWARD_ENTRIES)
            for (ptrdiff_t v = 0; v < FORWARD_ENTRIES / LANES; v++)
                sums[v] += broadcast(exit[i]) * load(row + v * LANES);
        for (ptrdiff_t v = 0; v < FORWARD_ENTRIES / LANES; v++) store(entries + j + v * LANES, sums[v]);
    }
    from[-1] = entries[0];
    for (ptrdiff_t j = 1; j < model.num_intervals; j++) from[model.lasts[j - 1]] = entries[j];
    from[model.lasts[model.num_intervals - 1]] = 0; /* before the padding */
}

/* Of the first NaN if there is one, else of the first of the greatest values, as numpy's argmax. */
ALLIN1_INLINE ptrdiff_t first_of_greatest(const double *values, ptrdiff_t number) {
    ptrdiff_t best = 0;
    for (ptrdiff_t i = 0; i < number && values[best] == values[best]; i++)
        if (!(values[i] <= values[best])) best = i;
    return best;
}

/* Probabilities after a frame from those before it, which are written over. Returns the likeliest state. */
ptrdiff_t forward_frame(const forward_model_t *given, double *from, double *to, double beat, double other) {
    const forward_model_t model = *given; /* which no store can change */
    constexpr ptrdiff_t VECTORS = FORWARD_BLOCK / LANES;
    const lanes_t others = (lanes_t)broadcast(other), differing = (lanes_t)broadcast(beat) ^ others;
    enter(model, from);
    sum_in_order_t total = {0, 0};
    for (ptrdiff_t s = 0; s < model.padded_states; s += FORWARD_BLOCK) {
#pragma GCC unroll 8
        for (ptrdiff_t i = s; i < s + FORWARD_BLOCK; i += LANES) {
            const lanes_t within = __builtin_convertvector(load<int32_t, LANES>(model.within + i), lanes_t);
            store(to + i, load(from + i - 1) * (values_t)(others ^ (differing & within)));
        }
        if (!total.add<VECTORS>(to + s))
            for (ptrdiff_t i = s; i < s + FORWARD_BLOCK; i += FORWARD_PART)
                if (!total.add<FORWARD_PART / LANES>(to + i)) total.add_one_by_one(to + i);
    }

    const double factor = 1 / total.sum;
    values_t most = values_t{};
    for (ptrdiff_t i = 0; i < model.padded_states; i += LANES) {
        const values_t value = load(to + i) * broadcast(factor);
        store(to + i, value);
        most = maximum(most, value);
    }
    if (!(factor < HUGE_VAL)) return first_of_greatest(to, model.num_states);
    const values_t greatest = broadcast(lanes_maximum(most));
    for (ptrdiff_t s = 0;; s += FORWARD_BLOCK) {
        lanes_t found = lanes_t{};
        for (ptrdiff_t i = s; i < s + FORWARD_BLOCK; i += LANES) found |= load(to + i) == greatest;
        if (any(found)) return s + first_of_greatest(to + s, FORWARD_BLOCK);
    }
}
