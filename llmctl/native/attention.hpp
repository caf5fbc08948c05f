// What the two directions of attention.cpp share: shapes, which keys a query sees, and powers of two.
#pragma once
#include "amx.hpp"
#include "lanes.hpp"

// Sizes, and how far apart rows, tokens and heads are in memory; units of a head are dense.
struct Shape {
    int64_t rows, tokens, heads, kv_heads, size;
    struct Strides {
        int64_t row, token, head;
        int64_t at(int64_t b, int64_t h) const { return b * row + h * head; }
    } q, k, v, d_out;

    int64_t padded() const { return up(tokens, BLOCK); }
    // Where head `h` of row `b` begins in a tensor that lies densely.
    int64_t dense(int64_t b, int64_t h) const { return (b * tokens * heads + h) * size; }
    int64_t dense_kv(int64_t b, int64_t g) const { return (b * tokens * kv_heads + g) * size; }
    float scale() const { return 1.0f / __builtin_sqrtf(float(size)); }
    float bits() const { return 1.44269504f * scale(); }  // of a product, as an exponent of two
};

// Memory of a thread, a buffer for each use.
enum Use {
    SPANS, KEYS, KEYS2, VALUES, QUERIES, QUERIES2, D_OUT, D_OUT2,
    SCORES, SCORES2, P, D_SCORES, D_SCORES2, D_Q, D_K, D_V, STATS, USES
};
static thread_local Scratch room[USES];

// The document of each token of a row, padded: it begins at begin[t] and ends before end[t].
struct Spans {
    int32_t *begin, *end;

    Spans(const int64_t *segments, const Shape &s) {
        const int64_t all = s.padded();
        begin = room[SPANS].get<int32_t>(2 * all);
        end = begin + all;
        for (int64_t t = 0; t < all; t++)
            begin[t] = t == 0 ? 0 : segments && t < s.tokens && segments[t] != segments[t - 1] ? t : begin[t - 1];
        for (int64_t t = all - 1; t >= 0; t--) end[t] = t == all - 1 || begin[t + 1] > t ? t + 1 : end[t + 1];
    }
    // The first block that holds a key which one of 32 queries from `i` on sees.
    int64_t first_key(int64_t i) const { return begin[i] / BLOCK * BLOCK; }
    // The end of the blocks that hold a query which sees one of 32 keys from `j` on.
    int64_t last_query(int64_t j) const { return up(end[j + BLOCK - 1], BLOCK); }
};

// Rows that are wanted next, of the head that follows and of what will be written, brought into the cache while this
// one is computed: a head lies in short pieces, which the processor does not foresee (forward 4.1 ms, with it 2.6).
struct Ahead {
    const bf16 *from[8];
    int64_t apart[8], count = 0, row = 0, rows, size;

    Ahead(const Shape &s) : rows(s.tokens), size(s.size) {}
    void add(const bf16 *x, int64_t ld) { from[count] = x, apart[count++] = ld; }
    void step(int64_t n) {
        for (const int64_t end = row + n < rows ? row + n : rows; row < end; row++)
            for (int64_t c = 0; c < count; c++)
                for (int64_t e = 0; e < size; e += 32)
                    _mm_prefetch(reinterpret_cast<const char *>(from[c] + row * apart[c] + e), _MM_HINT_T1);
    }
};

// Which of 32 places from `at` on lie in begin..end.
static inline uint32_t within(int64_t begin, int64_t end, int64_t at) {
    const int64_t low = begin - at, high = end - at;
    const uint32_t below = high >= 32 ? ~0u : high <= 0 ? 0u : (1u << high) - 1;
    return low <= 0 ? below : low >= 32 ? 0u : below & ~((1u << low) - 1);
}

// 2^x to 2e-7; 0 far below. A polynomial on what is behind the point (minimax, degree 5).
static inline __m512 two_to(__m512 x) {
    const __m512 f = _mm512_reduce_ps(x, 1);
    __m512 p = _mm512_set1_ps(1.8775767e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(8.9893397e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5826318e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4015361e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9315308e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.9999994e-1f));
    return _mm512_scalef_ps(p, x);
}

// The logarithm to base two of a positive number, to 2e-7: the exponent, and the series of artanh for the rest.
static inline __m512 log2_of(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_zero);
    const __m512 n = _mm512_getexp_ps(_mm512_div_ps(x, m));
    const __m512 y = _mm512_div_ps(_mm512_sub_ps(m, one), _mm512_add_ps(m, one)), z = _mm512_mul_ps(y, y);
    __m512 p = _mm512_set1_ps(1.0f / 9);
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(1.0f / 7));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(1.0f / 5));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(1.0f / 3));
    p = _mm512_mul_ps(_mm512_fmadd_ps(p, z, one), _mm512_mul_ps(y, _mm512_set1_ps(2 * 1.44269504f)));
    return _mm512_add_ps(n, p);
}
