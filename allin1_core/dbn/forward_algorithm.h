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
 * 2^(k + 1) are added without rounding, in any order. So a block of states is summed in vectors, and again one by
 * one if the sum reached 2^(k + 1) or an x was a tie. NaN fails the first of these comparisons. */
struct sum_in_order_t {
    double sum, power; /* S and the 2^k that it was in when last added to one by one */
};

ALLIN1_INLINE double lanes_total(values_t values) {
    double total = 0;
    for (ptrdiff_t lane = 0; lane < LANES; lane++) total += values[lane];
    return total;
}

ALLIN1_INLINE double lanes_maximum(values_t values) {
    double most = values[0];
    for (ptrdiff_t lane = 1; lane < LANES; lane++) most = values[lane] > most ? values[lane] : most;
    return most;
}

ALLIN1_INLINE void move_on(const forward_model_t *model, const double *from, double *to, double beat, double other,
                           sum_in_order_t &state) {
    const lanes_t others = (lanes_t)broadcast(other), differing = (lanes_t)broadcast(beat) ^ others;
    for (ptrdiff_t s = 0; s < model->padded_states; s += FORWARD_BLOCK) {
        const values_t power = broadcast(state.power);
        values_t total = values_t{}, off = values_t{};
        for (ptrdiff_t i = s; i < s + FORWARD_BLOCK; i += LANES) {
            const lanes_t within = __builtin_convertvector(load<int8_t, LANES>(model->within + i), lanes_t);
            const values_t value = load(from + i - 1) * (values_t)(others ^ (differing & within));
            store(to + i, value);
            const values_t rounded = (value + power) - power, left = value - rounded;
            total += rounded;
            off = maximum(off, maximum(left, -left));
        }
        const double sum = state.sum + lanes_total(total);
        if (sum < 2 * state.power && lanes_maximum(off) < state.power * 0x1p-53) {
            state.sum = sum;
            continue;
        }
        for (ptrdiff_t i = s; i < s + FORWARD_BLOCK; i++) state.sum += to[i];
        int64_t bits;
        memcpy(&bits, &state.sum, sizeof bits);
        bits &= 0x7FF0000000000000LL;
        memcpy(&state.power, &bits, sizeof bits);
    }
}

/* Of the first NaN if there is one, else of the first of the greatest values, as numpy's argmax. */
ALLIN1_INLINE ptrdiff_t first_of_greatest(const double *values, ptrdiff_t number) {
    ptrdiff_t best = 0;
    for (ptrdiff_t i = 0; i < number && values[best] == values[best]; i++)
        if (!(values[i] <= values[best])) best = i;
    return best;
}

/* Probabilities after a frame from those before it, which are written over. Returns the likeliest state. */
ptrdiff_t forward_frame(const forward_model_t *model, double *from, double *to, double beat, double other) {
    double *entries = model->entries;
    const ptrdiff_t intervals = model->num_intervals;
    memset(entries, 0, (size_t)intervals * sizeof *entries);
    for (ptrdiff_t i = 0; i < intervals; i++) {
        /* Rows are padded by zeros to whole vectors: adding 0 changes nothing. */
        const double *row = model->transitions + model->offsets[i];
        double *entry = entries + model->targets[i];
        const values_t exit = broadcast(from[model->lasts[i]]);
        for (ptrdiff_t j = 0; j < model->offsets[i + 1] - model->offsets[i]; j += LANES)
            store(entry + j, load(entry + j) + exit * load(row + j));
    }
    from[-1] = entries[0];
    for (ptrdiff_t j = 1; j < intervals; j++) from[model->lasts[j - 1]] = entries[j];
    from[model->lasts[intervals - 1]] = 0; /* before the padding */
    sum_in_order_t state = {0, 0};
    move_on(model, from, to, beat, other, state);

    const double factor = 1 / state.sum;
    values_t most = values_t{};
    for (ptrdiff_t i = 0; i < model->padded_states; i += LANES) {
        const values_t value = load(to + i) * broadcast(factor);
        store(to + i, value);
        most = maximum(most, value);
    }
    if (!(factor < HUGE_VAL)) return first_of_greatest(to, model->num_states);
    const double greatest = lanes_maximum(most);
    for (ptrdiff_t i = 0;; i += LANES)
        if (any(load(to + i) == broadcast(greatest)))
            for (ptrdiff_t lane = 0;; lane++)
                if (to[i + lane] == greatest) return i + lane;
}
