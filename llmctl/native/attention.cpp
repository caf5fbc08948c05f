// Causal attention within documents, forward and backward, for bfloat16: FlashAttention's formulas (arXiv:2205.14135,
// 2307.08691) in blocks of 32 queries and 32 keys. All that belongs to a head stays in a core's cache, blocks in which
// nothing is seen are left out, and only the logarithms of the sums are kept for the way back. Statistics are float32,
// what enters a product is bfloat16. A thread has whole heads: the number of threads changes nothing.
#include "attention.hpp"

#include <cmath>

namespace {

constexpr int64_t SPAN = 256;        // keys (and queries, backward) whose scores are held at once: they stay in L1
constexpr int64_t CELL = BLOCK * BLOCK;
constexpr int64_t STEP = 2 * TILE;   // of a panel: 32 of the sum
constexpr float NOTHING = -1e30f;    // below every score

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Panels with the sum over the units of a head (A or B), and with the sum over tokens (B).
template <bool LEFT> bf16 *by_unit(Use use, const bf16 *x, int64_t ld, int64_t tokens, int64_t size) {
    bf16 *to = room[use].get<bf16>(up(tokens, BLOCK) * size);
    panels<bf16, LEFT>(to, x, ld, true, tokens, size);
    return to;
}
bf16 *by_token(Use use, const bf16 *x, int64_t ld, int64_t tokens, int64_t size) {
    bf16 *to = room[use].get<bf16>(up(tokens, BLOCK) * size);
    panels<bf16, false>(to, x, ld, false, size, tokens);
    return to;
}

// c (32,size) += a b over `steps`; b: panels by token of `all` tokens, from token `at` on.
void sum_up(const bf16 *a, const bf16 *b, int64_t at, int64_t all, float *c, int64_t size, int64_t steps, bool add) {
    for (int64_t e = 0; e < size; e += BLOCK) block32(a, b + e * all + at * BLOCK, c + e, size, steps, add);
}

void put(bf16 *to, const float *from, int64_t size, float scale) {
    for (int64_t e = 0; e < size; e += 16) put16(to + e, _mm512_mul_ps(take16(from + e), _mm512_set1_ps(scale)));
}

// 32 queries on their way through the keys: the highest score so far, the sum of weights and of weighted values.
struct Block {
    float top[BLOCK], sum[BLOCK], *out;
    bool begun = false;

    // The logarithms of 16 whole sums.
    __m512 bits(int64_t r, float bits) const {
        return _mm512_fmadd_ps(take16(top + r), _mm512_set1_ps(bits), log2_of(take16(sum + r)));
    }

    // Weights of keys `from` to `to` (a panel of A) out of their scores, for query `r`, number `i` of its row.
    void soften(int64_t r, int64_t i, const Spans &spans, int64_t from, int64_t to, const float *scores, bf16 *p,
                const Shape &shape) {
        const int64_t low = spans.begin[i], high = i + 1;
        const float *s = scores + r * BLOCK;
        __m512 high0 = _mm512_set1_ps(NOTHING), high1 = high0;
        for (int64_t j = from; j < to; j += BLOCK, s += CELL) {
            const uint32_t seen = within(low, high, j);
            high0 = _mm512_mask_max_ps(high0, seen & 0xffff, high0, _mm512_load_ps(s));
            high1 = _mm512_mask_max_ps(high1, seen >> 16, high1, _mm512_load_ps(s + 16));
        }
        const float now = fmaxf(begun ? top[r] : NOTHING, _mm512_reduce_max_ps(_mm512_max_ps(high0, high1)));
        const __m512 bits = _mm512_set1_ps(shape.bits()), shift = _mm512_set1_ps(now * shape.bits());
        __m512 sum0 = _mm512_setzero_ps(), sum1 = sum0;
        s = scores + r * BLOCK;
        p += r / 16 * TILE + r % 16 * BLOCK;
        for (int64_t j = from; j < to; j += BLOCK, s += CELL, p += STEP) {
            const uint32_t seen = within(low, high, j);
            const __m512 x = two_to(_mm512_fmsub_ps(_mm512_load_ps(s), bits, shift));
            const __m512 y = two_to(_mm512_fmsub_ps(_mm512_load_ps(s + 16), bits, shift));
            const __m512 a = _mm512_maskz_mov_ps(seen & 0xffff, x), b = _mm512_maskz_mov_ps(seen >> 16, y);
            sum0 = _mm512_add_ps(sum0, a);
            sum1 = _mm512_add_ps(sum1, b);
            _mm512_store_si512(p, (__m512i)_mm512_cvtne2ps_pbh(b, a));
        }
        const float made = _mm512_reduce_add_ps(_mm512_add_ps(sum0, sum1));
        if (begun) {
            const float fall = exp2f((top[r] - now) * shape.bits());
            sum[r] = sum[r] * fall + made;
            float *o = out + r * shape.size;
            for (int64_t e = 0; e < shape.size && fall != 1.0f; e += 16)
                put16(o + e, _mm512_mul_ps(take16(o + e), _mm512_set1_ps(fall)));
        } else {
            sum[r] = made;
        }
        top[r] = now;
    }
};

void forward(const Shape &shape, const Spans &spans, const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out,
             float *bits, Ahead &ahead) {
    const int64_t t = shape.tokens, all = shape.padded(), size = shape.size;
    const bf16 *keys = by_unit<false>(KEYS, k, shape.k.token, t, size);
    const bf16 *values = by_token(VALUES, v, shape.v.token, t, size);
    const bf16 *queries = by_unit<true>(QUERIES, q, shape.q.token, t, size);
    float *scores = room[SCORES].get<float>(SPAN * BLOCK);
    bf16 *p = room[P].get<bf16>(SPAN * BLOCK);
    for (int64_t i = 0; i < all; i += BLOCK) {
        Block block;
        block.out = room[D_Q].get<float>(BLOCK * size);
        for (int64_t from = spans.first_key(i); from < i + BLOCK; from += SPAN) {
            const int64_t to = least(from + SPAN, i + BLOCK);
            for (int64_t j = from; j < to; j += BLOCK)
                block32(queries + i * size, keys + j * size, scores + (j - from) * BLOCK, BLOCK, size / 32, false);
            for (int64_t r = 0; r < BLOCK; r++) {
                block.soften(r, i + r, spans, from, to, scores, p, shape);
                ahead.step(1);
            }
            sum_up(p, values, from, all, block.out, size, (to - from) / BLOCK, block.begun);
            block.begun = true;
        }
        for (int64_t r = 0; r < BLOCK && i + r < t; r++)
            put(out + (i + r) * shape.heads * size, block.out + r * size, size, 1.0f / block.sum[r]);
        for (int64_t r = 0; r < BLOCK && i + r < t; r += 16)
            put16(bits + i + r, block.bits(r, shape.bits()), first16(t - i - r));
    }
}

// What the way back knows of a key/value head and of one of its heads, in panels.
struct Group {
    const bf16 *keys, *keys_by_token, *values;
    float *d_k, *d_v;

    Group(const Shape &s, const bf16 *k, const bf16 *v)
        : keys(by_unit<true>(KEYS, k, s.k.token, s.tokens, s.size)),
          keys_by_token(by_token(KEYS2, k, s.k.token, s.tokens, s.size)),
          values(by_unit<true>(VALUES, v, s.v.token, s.tokens, s.size)),
          d_k(room[D_K].get<float>(s.padded() * s.size)), d_v(room[D_V].get<float>(s.padded() * s.size)) {}
};

struct Head {
    const bf16 *queries, *queries_by_token, *d_out, *d_out_by_token;
    float *bits, *inner, *d_q;  // inner: of d_out and out, for each token

    Head(const Shape &s, const bf16 *q, const bf16 *out, const bf16 *d, const float *kept)
        : queries(by_unit<false>(QUERIES, q, s.q.token, s.tokens, s.size)),
          queries_by_token(by_token(QUERIES2, q, s.q.token, s.tokens, s.size)),
          d_out(by_unit<false>(D_OUT, d, s.d_out.token, s.tokens, s.size)),
          d_out_by_token(by_token(D_OUT2, d, s.d_out.token, s.tokens, s.size)),
          bits(room[STATS].get<float>(2 * s.padded())), inner(bits + s.padded()),
          d_q(room[D_Q].get<float>(s.padded() * s.size)) {
        for (int64_t t = 0; t < s.padded(); t++) {
            __m512 sum = _mm512_setzero_ps();
            for (int64_t e = 0; e < s.size && t < s.tokens; e += 16)
                sum = _mm512_fmadd_ps(take16(out + t * s.heads * s.size + e), take16(d + t * s.d_out.token + e), sum);
            inner[t] = _mm512_reduce_add_ps(sum);
            bits[t] = t < s.tokens ? kept[t] : 0.0f;
        }
    }
};

// Two rows of 16, each half a row of a tile.
void halves(bf16 *to, __m512i x) {
    _mm256_store_si256(reinterpret_cast<__m256i *>(to), _mm512_castsi512_si256(x));
    _mm256_store_si256(reinterpret_cast<__m256i *>(to + BLOCK), _mm512_extracti64x4_epi64(x, 1));
}

// Weights and the scores' gradients of 32 keys from `j` on and 16 queries from `i` on, both out of their products: keys
// by queries as panels of A (p, ds), and the gradients once more as queries by keys (turned).
void weigh(const Spans &spans, const Head &head, int64_t j, int64_t i, const float *scores, const float *d_p,
           float bits, bf16 *p, bf16 *ds, bf16 *turned) {
    const __m512 shift = take16(head.bits + i), inner = take16(head.inner + i), by = _mm512_set1_ps(bits);
    const __m512i pairs = _mm512_add_epi16(_mm512_set1_epi32(16 << 16), _mm512_mullo_epi32(_mm512_set1_epi32(0x10001),
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)));
    __m512i words[16];
#pragma GCC unroll 16
    for (int64_t r = 0; r < BLOCK; r += 2) {
        __m512 x[2], d[2];
        for (int64_t n = 0; n < 2; n++) {
            const __mmask16 seen = within(j + r + n, spans.end[j + r + n], i);
            const __m512 exponent = _mm512_fmsub_ps(take16(scores + (r + n) * BLOCK), by, shift);
            x[n] = _mm512_maskz_mov_ps(seen, two_to(exponent));
            d[n] = _mm512_mul_ps(x[n], _mm512_sub_ps(take16(d_p + (r + n) * BLOCK), inner));
        }
        const int64_t at = r / 16 * TILE + r % 16 * BLOCK;
        const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(d[1], d[0]);
        halves(p + at, (__m512i)_mm512_cvtne2ps_pbh(x[1], x[0]));
        halves(ds + at, both);
        words[r / 2] = _mm512_permutexvar_epi16(pairs, both);
    }
    transpose16(words);
    for (int64_t r = 0; r < 16; r++) _mm512_store_si512(turned + r * BLOCK, words[r]);
}

// The part of a square of SPAN keys from `left` on and SPAN queries from `top` on in the gradients; `add`: the keys
// have gradients from other heads. A block's first square, the one on the diagonal for keys, sets its gradients.
void square(const Shape &shape, const Spans &spans, const Group &group, const Head &head, int64_t left, int64_t top,
            bool add, Ahead &ahead) {
    const int64_t all = shape.padded(), size = shape.size;
    const int64_t right = least(left + SPAN, all), bottom = least(top + SPAN, all);
    float *scores = room[SCORES].get<float>(CELL), *d_p = room[SCORES2].get<float>(CELL);
    bf16 *p = room[P].get<bf16>(SPAN * BLOCK), *ds = room[D_SCORES].get<bf16>(SPAN * BLOCK);
    bf16 *turned = room[D_SCORES2].get<bf16>(SPAN * SPAN);
    for (int64_t j = left; j < right; j += BLOCK) {
        const int64_t from = most(top, j), to = least(bottom, spans.last_query(j));
        for (int64_t i = from; i < to; i += BLOCK) {
            block32(group.keys + j * size, head.queries + i * size, scores, BLOCK, size / 32, false);
            block32(group.values + j * size, head.d_out + i * size, d_p, BLOCK, size / 32, false);
            const int64_t at = (i - from) * BLOCK;
            bf16 *other = turned + (i - top) * SPAN + (j - left) * BLOCK;
            for (int64_t h = 0; h < BLOCK; h += 16) {
                weigh(spans, head, j, i + h, scores + h, d_p + h, shape.bits(), p + at + h, ds + at + h,
                      other + h * BLOCK);
                ahead.step(4);
            }
        }
        if (from >= to) continue;
        const int64_t steps = (to - from) / BLOCK;
        sum_up(p, head.d_out_by_token, from, all, group.d_v + j * size, size, steps, add || top > left);
        sum_up(ds, head.queries_by_token, from, all, group.d_k + j * size, size, steps, add || top > left);
    }
    for (int64_t i = top; i < bottom; i += BLOCK) {
        const int64_t from = most(left, spans.first_key(i)), to = least(right, i + BLOCK);
        if (from >= to) continue;
        const bf16 *a = turned + (i - top) * SPAN + (from - left) * BLOCK;
        const bool begun = spans.first_key(i) < left;
        sum_up(a, group.keys_by_token, from, all, head.d_q + i * size, size, (to - from) / BLOCK, begun);
    }
}

void backward(const Shape &shape, const Spans &spans, const Group &group, const Head &head, bool add, bf16 *d_q,
              Ahead &ahead) {
    const int64_t all = shape.padded(), size = shape.size;
    for (int64_t left = 0; left < all; left += SPAN) {
        const int64_t end = spans.last_query(least(left + SPAN, all) - BLOCK);
        for (int64_t top = left; top < end; top += SPAN) square(shape, spans, group, head, left, top, add, ahead);
    }
    for (int64_t t = 0; t < shape.tokens; t++)
        put(d_q + t * shape.heads * size, head.d_q + t * size, size, shape.scale());
}

}  // namespace

// q (rows,tokens,heads,size), k and v (rows,tokens,kv_heads,size) by their strides, `segments` (rows,tokens) or null;
// out as q but dense; bits (rows,heads,tokens): logarithms to base two of the sums that the weights were divided by.
extern "C" void attention(const bf16 *q, const bf16 *k, const bf16 *v, const int64_t *segments, bf16 *out, float *bits,
                          const Shape *shape, int64_t threads) {
    const Shape s = *shape;
    const int64_t each = s.heads / s.kv_heads;
#pragma omp parallel num_threads(threads)
    {
        Tiles tiles;
#pragma omp for schedule(static)
        for (int64_t n = 0; n < s.rows * s.heads; n++) {
            const int64_t b = n / s.heads, h = n % s.heads, next_b = (n + 1) / s.heads, next_h = (n + 1) % s.heads;
            Ahead ahead(s);
            if (next_b < s.rows) {
                ahead.add(q + s.q.at(next_b, next_h), s.q.token);
                ahead.add(k + s.k.at(next_b, next_h / each), s.k.token);
                ahead.add(v + s.v.at(next_b, next_h / each), s.v.token);
                ahead.add(out + s.dense(next_b, next_h), s.heads * s.size);
            }
            const Spans spans(segments ? segments + b * s.tokens : nullptr, s);
            forward(s, spans, q + s.q.at(b, h), k + s.k.at(b, h / each), v + s.v.at(b, h / each), out + s.dense(b, h),
                    bits + n * s.tokens, ahead);
        }
    }
}

// d_q, d_k and d_v as q, k and v but dense.
extern "C" void attention_backward(const bf16 *d_out, const bf16 *q, const bf16 *k, const bf16 *v,
                                   const int64_t *segments, const bf16 *out, const float *bits, bf16 *d_q, bf16 *d_k,
                                   bf16 *d_v, const Shape *shape, int64_t threads) {
    const Shape s = *shape;
    const int64_t each = s.heads / s.kv_heads;
#pragma omp parallel num_threads(threads)
    {
        Tiles tiles;
#pragma omp for schedule(static)
        for (int64_t n = 0; n < s.rows * s.kv_heads; n++) {
            const int64_t b = n / s.kv_heads, g = n % s.kv_heads;
            const Spans spans(segments ? segments + b * s.tokens : nullptr, s);
            const Group group(s, k + s.k.at(b, g), v + s.v.at(b, g));
            for (int64_t h = g * each; h < (g + 1) * each; h++) {
                const int64_t next_b = h + 1 < s.heads ? b : b + 1, next_h = h + 1 < s.heads ? h + 1 : 0;
                Ahead ahead(s);
                if (h + 1 == (g + 1) * each) {
                    ahead.add(d_k + s.dense_kv(b, g), s.kv_heads * s.size);
                    ahead.add(d_v + s.dense_kv(b, g), s.kv_heads * s.size);
                }
                if (next_b < s.rows) {
                    ahead.add(q + s.q.at(next_b, next_h), s.q.token);
                    ahead.add(out + s.dense(next_b, next_h), s.heads * s.size);
                    ahead.add(d_out + s.d_out.at(next_b, next_h), s.d_out.token);
                    ahead.add(d_q + s.dense(next_b, next_h), s.heads * s.size);
                    ahead.add(k + s.k.at(next_b, next_h / each), s.k.token);
                    ahead.add(v + s.v.at(next_b, next_h / each), s.v.token);
                }
                const Head head(s, q + s.q.at(b, h), out + s.dense(b, h), d_out + s.d_out.at(b, h),
                                bits + (b * s.heads + h) * s.tokens);
                backward(s, spans, group, head, h > g * each, d_q + s.dense(b, h), ahead);
            }
            for (int64_t t = 0; t < s.tokens; t++) {
                const int64_t at = s.dense_kv(b, g) + t * s.kv_heads * s.size;
                put(d_k + at, group.d_k + t * s.size, s.size, s.scale());
                put(d_v + at, group.d_v + t * s.size, s.size, 1.0f);
            }
        }
    }
}
