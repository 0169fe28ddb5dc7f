/* The forward algorithm of a beat model, frame by frame, for one instruction set; simd/targets.h includes this.
 *
 * With v the probabilities of the states after a frame, d the densities of the next one, and P the transitions,
 *
 *     w(s) = (sum over p of v(p) P(p, s)) d(s),     v'(s) = w(s) f',     f' = 1 / sum over s of w(s),
 *
 * each operation rounded, both sums one after the other in the order of the states, from 0. That is madmom's order, and
 * so these are its bits. What is stored is w, and the next frame begins with the multiplication by f'.
 *
 * Within a beat there is one predecessor, the state before, with P = 1: w'(s) = (w(s - 1) f') d(s). With every frame the
 * place of state 0 moves down by one, so that this is w times numbers, in its place. A last state's place becomes that of
 * the first state of the next interval, whose value, a sum over predecessors, is put there afterwards.
 *
 * The sum over all states would take as long as so many additions wait for each other. But while it is S with
 * P = 2^k <= S < 2 P, every addition of x >= 0 rounds S + x to a multiple of u = 2^(k - 52): it adds r(x), the multiple
 * of u nearest to x, unless x lies half way between two. Multiples of u below 2 P are added without rounding, in any
 * order, and as integers: for x < P, the bits of P + x, as a number, are those of P and r(x) / u more. A tie is rounded
 * to even, for P + x to an even r(x) / u, and for Q - x, where Q = 2 P - u is odd, to an odd one. Q has the bits of P
 * with all 52 of the fraction set, so those of Q - x are the complement of those of P + x, unless x is a tie. (It is also
 * not so if x is NaN.) So a block of states is summed in vectors; if its x were not all below P, if one was a tie, or if
 * the sum reached 2 P, number by number. While these additions wait for each other, the states of blocks to come are
 * made.
 *
 * Most of the doublings lie where the sum is little yet, and what it is there need not be known to the last bit: S' <= S
 * gives S' + x <= S + x when both are rounded. So the first blocks, some 2^-20 of the sum, are summed in any order, and
 * `low` <= S <= `high` kept. From there on both go number by number, side by side, until they are the same number, which
 * then is S, too: 2^20 later the steps of the rounding are so much wider than what was between them. If they are not the
 * same in the end, or if the greatest state could be among the first ones, all is summed from the first block on. The
 * 64 additions of a block and the 20 at most that lead to its sum in any order err by less than 2^-53 each of their
 * sums, and by none of numbers that are not normal; so 2^-46, 128 times that, is enough between the two.
 *
 * A block of x < u / 2 leaves S as it is. Of most songs these are more than half, for the likely states are few.
 *
 * Blocks that take S to 2 P lie where the likely states begin, one after the other, and in the next frame they are the
 * same, as states stay in their places. So that is remembered of a block: to find it out again would cost more than its
 * additions, since it shows only after all those before. */

/* The lanes turned by some. */
template <ptrdiff_t STEP> ALLIN1_INLINE values_t turned(values_t values) {
    lanes_t mask = lanes_t{};
    for (ptrdiff_t lane = 0; lane < LANES; lane++) mask[lane] = (lane + STEP) % LANES;
    return shuffle<double>(values, values, mask);
}

typedef vector<uint64_t> bits_t;

ALLIN1_INLINE uint64_t lanes_total(bits_t lanes) {
    if constexpr (LANES > 4) lanes += (bits_t)turned<4>((values_t)lanes);
    if constexpr (LANES > 2) lanes += (bits_t)turned<2>((values_t)lanes);
    return lanes[0] + lanes[1];
}

ALLIN1_INLINE double lanes_sum(values_t lanes) {
    if constexpr (LANES > 4) lanes += turned<4>(lanes);
    if constexpr (LANES > 2) lanes += turned<2>(lanes);
    return lanes[0] + lanes[1];
}

ALLIN1_INLINE double lanes_maximum(values_t values) {
    if constexpr (LANES > 4) values = maximum(values, turned<4>(values));
    if constexpr (LANES > 2) values = maximum(values, turned<2>(values));
    return values[0] > values[1] ? values[0] : values[1];
}

ALLIN1_INLINE uint64_t bits_of(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

ALLIN1_INLINE double of_bits(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

constexpr ptrdiff_t FORWARD_VECTORS = FORWARD_BLOCK / LANES;
constexpr uint64_t FRACTION = 0xFFFFFFFFFFFFFULL;

struct sum_in_order_t {
    uint64_t sum, power; /* bits of S and its P */

    /* Add a block, with these greatest numbers, if that needs no care; otherwise false. */
    ALLIN1_INLINE bool add(const double *values, values_t most) {
        const values_t even = broadcast(of_bits(power)), odd = broadcast(of_bits(power | FRACTION));
        bits_t total = broadcast(-(uint64_t)FORWARD_VECTORS * power), differing = ~bits_t{};
#pragma GCC unroll 16
        for (ptrdiff_t v = 0; v < FORWARD_VECTORS; v++) {
            const values_t value = load(values + v * LANES);
            const bits_t up = (bits_t)(even + value), down = (bits_t)(odd - value);
            total += up;
            differing &= up ^ down;
        }
        const lanes_t bad = (differing != FRACTION) | (most >= even);
        const uint64_t next = sum + lanes_total(bad ? broadcast(2 * (FRACTION + 1)) : total);
        if (next > (power | FRACTION)) return false;
        sum = next;
        return true;
    }

    ALLIN1_INLINE void become(double value) {
        sum = bits_of(value) & INT64_MAX; /* NaN, too, without a sign */
        power = sum & ~FRACTION;
    }
};

/* The greatest numbers of a block, lane by lane. */
ALLIN1_INLINE values_t lanes_maxima(const double *values) {
    values_t most = load(values), more = load(values + LANES);
#pragma GCC unroll 32
    for (ptrdiff_t v = 2; v < FORWARD_VECTORS; v += 2) {
        most = maximum(most, load(values + v * LANES));
        more = maximum(more, load(values + (v + 1) * LANES));
    }
    return maximum(most, more);
}

/* The sum of a block, in any order. */
ALLIN1_INLINE double block_sum(const double *values) {
    values_t sum = load(values), other = load(values + LANES);
#pragma GCC unroll 32
    for (ptrdiff_t v = 2; v < FORWARD_VECTORS; v += 2) {
        sum += load(values + v * LANES);
        other += load(values + (v + 1) * LANES);
    }
    return lanes_sum(sum + other);
}

/* The sums over predecessors of the first states. */
ALLIN1_INLINE void enter(const forward_model_t &model, const double *states, double factor) {
    double *exits = model.exits, *entries = model.entries;
    for (ptrdiff_t i = 0; i < model.num_intervals; i++) exits[i] = states[model.firsts[i + 1] - 1] * factor;
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
}

/* Make the states that see a beat, and what follows them, apart from the others. They are few. */
ALLIN1_INLINE void make_heads(const forward_model_t &model, const double *states, double factor, double beat,
                              double other) {
    const values_t by = broadcast(factor), in_beat = broadcast(beat), beside = broadcast(other);
    lanes_t lane = lanes_t{};
    for (ptrdiff_t i = 0; i < LANES; i++) lane[i] = i;
    double *head = model.made_heads;
    for (ptrdiff_t i = 0; i < model.num_heads; i++, head += FORWARD_HEAD) {
        const forward_head_t seen = model.heads[i];
        for (int64_t at = 0; at < FORWARD_HEAD; at += LANES)
            store(head + at, load(states + seen.first + at) * by * (lane + at < seen.number ? in_beat : beside));
    }
    for (ptrdiff_t i = 0, interval = 0; i < model.num_heads; i++)
        if (model.heads[i].first == model.firsts[interval])
            model.made_heads[i * FORWARD_HEAD] = model.entries[interval++] * beat;
}

/* What makes the other states of a frame from those before it, as if none saw a beat, and puts the heads over them when
 * these have long been stored. */
struct forward_step_t {
    const forward_model_t &model;
    double *states, factor, other;
    ptrdiff_t made, put; /* first state that is not made yet, first head that is not put */

    /* Make blocks of states up to this one. */
    ALLIN1_INLINE void make(ptrdiff_t end) {
        const values_t by = broadcast(factor), beside = broadcast(other);
        double *block = states + made;
        for (; made < end; made += FORWARD_BLOCK, block += FORWARD_BLOCK)
#pragma GCC unroll 32
            for (ptrdiff_t v = 0; v < FORWARD_VECTORS; v++)
                store(block + v * LANES, load(block + v * LANES) * by * beside);
    }

    /* Put the heads that end before this state. */
    ALLIN1_INLINE void put_heads(ptrdiff_t end) {
        for (; put < model.num_heads && model.heads[put].first + FORWARD_HEAD <= end; put++)
            for (ptrdiff_t i = 0; i < FORWARD_HEAD; i += LANES)
                store(states + model.heads[put].first + i, load(model.made_heads + put * FORWARD_HEAD + i));
    }
};

/* Of the first NaN if there is one, else of the first of the greatest values, as numpy's argmax. */
ALLIN1_INLINE ptrdiff_t first_of_greatest(const double *values, ptrdiff_t number) {
    ptrdiff_t best = 0;
    for (ptrdiff_t i = 0; i < number && values[best] == values[best]; i++)
        if (!(values[i] <= values[best])) best = i;
    return best;
}

/* Go on by a frame. Returns the likeliest state. */
ptrdiff_t forward_frame(const forward_model_t *given, forward_place_t *place, double beat, double other) {
    if (!(other < HUGE_VAL)) other = 0; /* Where a beat has one part, no state sees it. */
    const forward_model_t model = *given; /* which no store can change */
    enter(model, model.room + place->first, place->factor);
    if (place->first == 0) {
        memmove(model.room + FORWARD_ROOM, model.room, model.num_states * sizeof(double));
        memset(model.room, 0, FORWARD_ROOM * sizeof(double));
        place->first = FORWARD_ROOM;
    }
    const ptrdiff_t first = --place->first, before = first % FORWARD_BLOCK, end = model.num_states;
    double *states = model.room + first;
    states[model.num_states] = 0;

    /* From finite numbers comes no NaN. After a factor that was not finite, it is 1. */
    const double half_step = place->factor != 1 ? 0x1p-53 : -1;
    make_heads(model, states, place->factor, beat, other);
    forward_step_t step = {model, states, place->factor, other, -before, 0};
    const double little = 0x1p-20 / place->factor;
    ptrdiff_t ready = -before, begin = place->begin * FORWARD_BLOCK - first, next_begin;
    sum_in_order_t total;
    values_t most_of_all;
    for (bool sure = false; !sure; begin = -before) {
        double low = 0, high = 0, not_sought = 0;
        total = {0, 0};
        most_of_all = values_t{};
        next_begin = -before;
        double *greatest = model.greatest;
        uint8_t *growing = model.growing + first / FORWARD_BLOCK;
        for (ptrdiff_t s = -before; s < end; s += FORWARD_BLOCK, greatest += LANES, growing++) {
            const double *block = states + s;
            if (s == ready) {
                step.make(s + FORWARD_CHUNK < end ? s + FORWARD_CHUNK : end);
                ready = step.made < end ? step.made - FORWARD_CHUNK / 2 : step.made;
                step.put_heads(step.made < end ? step.made : end + FORWARD_BLOCK);
            }
            if (s < begin) {
                const double sum = block_sum(block);
                low = (low + sum) * (1 - 0x1p-46);
                not_sought = high = (high + sum) * (1 + 0x1p-46);
                next_begin = high < little ? s + FORWARD_BLOCK : next_begin;
                store(greatest, values_t{});
                continue;
            }
            const values_t most = lanes_maxima(block);
            store(greatest, most);
            most_of_all = maximum(most_of_all, most);
            if (low != high) {
#pragma GCC unroll 1
                for (const double *x = block; x < block + FORWARD_BLOCK; x += FORWARD_BLOCK / 2) {
                    step.make(step.made + 2 * FORWARD_BLOCK < end ? step.made + 2 * FORWARD_BLOCK : end);
#pragma GCC unroll 64
                    for (ptrdiff_t i = 0; i < FORWARD_BLOCK / 2; i++) {
                        low += x[i];
                        high += x[i];
                    }
                }
                next_begin = high < little ? s + FORWARD_BLOCK : next_begin;
                total.become(low);
                continue;
            }
            if (!*growing && !any(~(most < of_bits(total.power) * half_step))) continue;
            if (*growing || !total.add(block, most)) {
                const uint64_t power = total.power;
                double sum = of_bits(total.sum);
#pragma GCC unroll 1
                for (const double *x = block; x < block + FORWARD_BLOCK; x += FORWARD_BLOCK / 2) {
                    step.make(step.made + 2 * FORWARD_BLOCK < end ? step.made + 2 * FORWARD_BLOCK : end);
#pragma GCC unroll 64
                    for (ptrdiff_t i = 0; i < FORWARD_BLOCK / 2; i++) sum += x[i];
                }
                total.become(sum);
                *growing = total.power != power;
                next_begin = sum < little ? s + FORWARD_BLOCK : next_begin;
            }
        }
        /* Where all was summed from 0, both are 0 still, whatever the states are. */
        sure = low == high && !(2 * not_sought > lanes_maximum(most_of_all));
    }
    place->begin = (first + next_begin) / FORWARD_BLOCK;

    const double factor = 1 / of_bits(total.sum);
    if (!(factor > 0 && factor < HUGE_VAL)) {
        for (ptrdiff_t i = 0; i < model.num_states; i++) states[i] *= factor;
        place->factor = 1;
        return first_of_greatest(states, model.num_states);
    }
    place->factor = factor;
    /* Other w than the greatest can be as great when they are multiplied. */
    const double sought = lanes_maximum(most_of_all) * factor;
    const double *greatest = model.greatest;
    for (ptrdiff_t s = -before;; s += FORWARD_BLOCK, greatest += LANES)
        if (any(load(greatest) * broadcast(factor) == sought)) {
            while (states[s] * factor != sought) s++;
            return s;
        }
}
