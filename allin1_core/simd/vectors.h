/* Vectors, and mathematics on them: what the kernels of every stage share. targets.h includes this for each set. */

/* N numbers side by side, by default as many as a register holds. */
template <typename T, int N> struct vector_of {
    typedef T type __attribute__((vector_size(N * sizeof(T))));
    typedef T in_memory __attribute__((vector_size(N * sizeof(T)), aligned(alignof(T)), may_alias));
};
template <typename T, int N = VECTOR_BYTES / sizeof(T)> using vector = typename vector_of<T, N>::type;

template <typename T, int N = VECTOR_BYTES / sizeof(T)> ALLIN1_INLINE vector<T, N> load(const T *from) {
    return *(const typename vector_of<T, N>::in_memory *)from;
}

template <typename V, typename T> ALLIN1_INLINE void store(T *to, V value) {
    *(typename vector_of<T, sizeof(V) / sizeof(T)>::in_memory *)to = value;
}

template <typename T> ALLIN1_INLINE vector<T> broadcast(T value) { return value - vector<T>{}; }

template <typename V> ALLIN1_INLINE V maximum(V a, V b) { return a > b ? a : b; }

template <typename V> ALLIN1_INLINE V minimum(V a, V b) { return a < b ? a : b; }

/* What a comparison of vectors gives, and a shuffle goes by. */
template <typename T> using index_vec = decltype(vector<T>{} < vector<T>{});

/* Lanes of a and b by the numbers in a constant mask, those of b counted on from those of a. */
template <typename T> ALLIN1_INLINE vector<T> shuffle(vector<T> a, vector<T> b, index_vec<T> mask) {
#if defined(__clang__)
    constexpr int LANES = VECTOR_BYTES / sizeof(T);
    vector<T> out;
    for (int lane = 0; lane < LANES; lane++)
        out[lane] = mask[lane] < LANES ? a[mask[lane]] : b[mask[lane] - LANES];
    return out;
#else
    return __builtin_shuffle(a, b, mask);
#endif
}

/* Rows of numbers of one length, `stride` from one to the next. */
template <typename T> struct rows {
    T *data;
    ptrdiff_t stride;

    ALLIN1_INLINE T *at(ptrdiff_t row, ptrdiff_t column = 0) const { return data + row * stride + column; }
    ALLIN1_INLINE rows from(ptrdiff_t row, ptrdiff_t column = 0) const { return {at(row, column), stride}; }
    template <typename U> ALLIN1_INLINE operator rows<U>() const { return {data, stride}; }
};

/* log10 of positive normal numbers, to 1e-13. With y = 2^e m, m between sqrt(1/2) and sqrt(2), and s = (m - 1) / (m + 1),
 * log m = 2 artanh s = 2 (s + s^3 / 3 + s^5 / 5 + ..), and |s| < 0.172. At y = 1 it is 0 without error. */
template <int N> ALLIN1_INLINE vector<double, N> logarithm(vector<double, N> y) {
    typedef vector<double, N> numbers;
    typedef vector<int64_t, N> integers;
    const int64_t root_half = 0x3FE6A09E667F3BCDLL, integer_bias = 0x4338000000000000LL;
    integers bits = (integers)y;
    integers exponent = (bits - root_half) >> 52;
    numbers m = (numbers)(bits - (exponent << 52));
    /* Adding 1.5 * 2^52 in the exponent's place turns a small integer into a double. */
    numbers e = (numbers)(exponent + integer_bias) - 6755399441055744.0;
    numbers s = (m - 1.0) / (m + 1.0), z = s * s;
    numbers p = z * (1.0 / 15.0) + 1.0 / 13.0;
    p = p * z + 1.0 / 11.0;
    p = p * z + 1.0 / 9.0;
    p = p * z + 1.0 / 7.0;
    p = p * z + 1.0 / 5.0;
    p = p * z + 1.0 / 3.0;
    p = p * z + 1.0;
    numbers value = e * 0.30102999566398119521 + 0.86858896380650365530 * (s * p);
    integers finite = y < HUGE_VAL; /* `?:` takes more instructions where N exceeds a register */
    return (numbers)(((integers)value & finite) | (bits & ~finite));
}

/* 2^x for x <= 0, relative error 1.6e-7. With n = round(x) and r = x - n, which is exact, 2^x = 2^n 2^r; on |r| <= 1/2 a
 * polynomial of degree 5 fits 2^r to 9e-8. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low
 * bits, which a shift by 23 makes the exponent's. Below -125 the result is about 2^-125. */
ALLIN1_INLINE vector<float> power_of_two(vector<float> x) {
    const float magic = 12582912.0f;
    x = maximum(x, broadcast(-125.0f));
    vector<float> shifted = x + magic;
    vector<float> r = x - (shifted - magic);
    vector<float> p = r * 0.00132647f + 0.00967151f;
    p = p * r + 0.05550734f;
    p = p * r + 0.24022242f;
    p = p * r + 0.69314698f;
    p = p * r + 1.0f;
    return (vector<float>)((index_vec<float>)p + ((index_vec<float>)shifted << 23));
}
