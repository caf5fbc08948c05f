// The transformer for a batch of single tokens in one call: what generation runs for every token.
//
// A token is a row: its id, the row of the cache that it belongs to, and its column there. One parallel region takes
// all rows through all layers; its loops share out panels of weights, or rows and heads, and each weight is read once.
// The residual stream and every sum are float32, products and cache are of the weights' type.
#include <cmath>

#include "lines.hpp"

struct Layer {
    const void *qkv, *out, *gate, *up, *down;
    const float *qkv_bias, *out_bias, *gate_bias, *up_bias, *down_bias;
    const float *norm1, *norm1_bias, *norm2, *norm2_bias, *q_gain, *k_gain;
};

enum Activation { SWIGLU = 0, RELU2 = 1, GELU = 2 };

struct Model {
    int64_t type, layers, width, heads, kv_heads, head_dim, mlp, vocab;
    int64_t activation, centred, qk_norm, embedding_norm;
    double eps, softcap;
    const Layer *layer;
    const void *embed, *positions, *head;
    const float *norm, *norm_bias;
};

struct Tokens {
    int64_t count;                          // N
    int64_t room;                           // columns that the cache has
    int64_t several;                        // some of them share a row of the cache
    const int64_t *ids, *rows, *at;         // (N): each token, its row and column; `rows` null: its own number
    const int64_t *begins;                  // (B): the column where each row of the cache begins
    void *const *keys, *const *values;      // of each layer (B, kv_heads, room, head_dim)
    const float *rope;                      // (positions, head_dim): cosines, then sines, of half the units each
    int64_t wanted;                         // M: of so many tokens the logits are made
    const int64_t *which;                   // (M): their numbers; null: all
    float *logits;                          // (M, vocab)
};

namespace {

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// The row (n) made to mean 0 where `centred`, and to mean square 1.
struct Norm {
    __m512 mean = _mm512_setzero_ps(), scale;
    const float *gain, *bias;

    Norm(const float *x, int64_t n, bool centred, double eps, const float *gain, const float *bias)
        : gain(gain), bias(bias) {
        if (centred) {
            __m512 sum = _mm512_setzero_ps();
            for (int64_t k = 0; k < n; k += 16) sum = _mm512_add_ps(sum, take16(x + k, first16(n - k)));
            mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / n);
        }
        __m512 squares = _mm512_setzero_ps();
        for (int64_t k = 0; k < n; k += 16) {
            const __mmask16 mask = first16(n - k);
            const __m512 d = _mm512_maskz_sub_ps(mask, take16(x + k, mask), mean);
            squares = _mm512_fmadd_ps(d, d, squares);
        }
        scale = _mm512_set1_ps(1 / std::sqrt(_mm512_reduce_add_ps(squares) / n + float(eps)));
    }
    __m512 operator()(const float *x, int64_t k, __mmask16 mask) const {
        __m512 y = _mm512_mul_ps(_mm512_maskz_sub_ps(mask, take16(x + k, mask), mean), scale);
        if (gain) y = _mm512_mul_ps(y, take16(gain + k, mask));
        return bias ? _mm512_add_ps(y, take16(bias + k, mask)) : y;
    }
};

template <class T> inline void copy(T *to, const float *from, int64_t n) {
    for (int64_t k = 0; k < n; k += 16) put16(to + k, take16(from + k, first16(n - k)), first16(n - k));
}

// Unit i is turned with unit i + n / 2.
inline void rotate(float *x, const float *turns, int64_t n) {
    const int64_t half = n / 2;
    for (int64_t k = 0; k < half; k += 16) {
        const __mmask16 mask = first16(half - k);
        const __m512 a = take16(x + k, mask), b = take16(x + half + k, mask);
        const __m512 cos = take16(turns + k, mask), sin = take16(turns + half + k, mask);
        put16(x + k, _mm512_fmsub_ps(a, cos, _mm512_mul_ps(b, sin)), mask);
        put16(x + half + k, _mm512_fmadd_ps(b, cos, _mm512_mul_ps(a, sin)), mask);
    }
}

// Up to 32 C numbers of a head in registers, in pairs of vectors. bfloat16 comes apart into even and odd places.
template <class T, int C> struct Head;

template <int C> struct Head<float, C> {
    static constexpr int64_t WIDE = 32;
    __m512 v[C][2];

    void zero() {
        for (auto &c : v) c[0] = c[1] = _mm512_setzero_ps();
    }
    void load(const float *from, int64_t n) {
        for (int c = 0; c < C; c++)
            for (int h = 0; h < 2; h++) v[c][h] = take16(from + 32 * c + 16 * h, first16(n - 32 * c - 16 * h));
    }
    void store(float *to, int64_t n, __m512 by) const {
        for (int c = 0; c < C; c++)
            for (int h = 0; h < 2; h++)
                put16(to + 32 * c + 16 * h, _mm512_mul_ps(v[c][h], by), first16(n - 32 * c - 16 * h));
    }
    void add(const Head &o) {
        for (int c = 0; c < C; c++)
            for (int h = 0; h < 2; h++) v[c][h] = _mm512_add_ps(v[c][h], o.v[c][h]);
    }
    void add(const float *from, int64_t n, __m512 by) {
        for (int c = 0; c < C; c++)
            for (int h = 0; h < 2; h++)
                v[c][h] = _mm512_fmadd_ps(take16(from + 32 * c + 16 * h, first16(n - 32 * c - 16 * h)), by, v[c][h]);
    }
    __m512 dot(const float *key, int64_t n) const {
        __m512 sum = _mm512_setzero_ps();
        for (int c = 0; c < C; c++)
            for (int h = 0; h < 2; h++)
                sum = _mm512_fmadd_ps(take16(key + 32 * c + 16 * h, first16(n - 32 * c - 16 * h)), v[c][h], sum);
        return sum;
    }
};

inline __mmask32 first32(int64_t n) { return n >= 32 ? ~0u : n <= 0 ? 0 : (1u << n) - 1; }

template <int C> struct Head<bf16, C> {
    __m512 v[C][2];
    __m512bh whole[C];  // of a query, as it is multiplied with keys

    void zero() {
        for (auto &c : v) c[0] = c[1] = _mm512_setzero_ps();
    }
    void load(const float *from, int64_t n) {
        for (int c = 0; c < C; c++) whole[c] = (__m512bh)load32(from + 32 * c, n - 32 * c);
    }
    void store(float *to, int64_t n, __m512 by) const {
        const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
        for (int c = 0; c < C; c++) {
            const __m512 even = _mm512_mul_ps(v[c][0], by), odd = _mm512_mul_ps(v[c][1], by);
            put16(to + 32 * c, _mm512_permutex2var_ps(even, low, odd), first16(n - 32 * c));
            put16(to + 32 * c + 16, _mm512_permutex2var_ps(even, high, odd), first16(n - 32 * c - 16));
        }
    }
    void add(const Head &o) {
        for (int c = 0; c < C; c++)
            for (int h = 0; h < 2; h++) v[c][h] = _mm512_add_ps(v[c][h], o.v[c][h]);
    }
    void add(const bf16 *from, int64_t n, __m512 by) {
        for (int c = 0; c < C; c++) {
            const __m512i x = _mm512_maskz_loadu_epi16(first32(n - 32 * c), from + 32 * c);
            const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
            const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(0xffff0000)));
            v[c][0] = _mm512_fmadd_ps(even, by, v[c][0]);
            v[c][1] = _mm512_fmadd_ps(odd, by, v[c][1]);
        }
    }
    __m512 dot(const bf16 *key, int64_t n) const {
        __m512 sum = _mm512_setzero_ps();
        for (int c = 0; c < C; c++) {
            const __m512i part = _mm512_maskz_loadu_epi16(first32(n - 32 * c), key + 32 * c);
            sum = _mm512_dpbf16_ps(sum, (__m512bh)part, whole[c]);
        }
        return sum;
    }
};

constexpr int64_t KEYS = 64;  // that are read for all queries of their group before the next

// Scores (columns) of one query, for keys `from` to `end`, a multiple of 16 apart from the end.
template <class T, int C>
void score(float *scores, const float *query, const T *keys, int64_t from, int64_t end, int64_t n) {
    Head<T, C> q;
    q.load(query, n);
    for (int64_t s = from; s < end; s += 16) {
        __m512 v[16];
        const T *key = keys + s * n;
        if (end - s >= 16)
            for (int64_t j = 0; j < 16; j++) {
                for (int c = 0; c < C; c++)
                    _mm_prefetch(reinterpret_cast<const char *>(key + j * n) + AHEAD / 2 + 64 * c, _MM_HINT_T0);
                v[j] = q.dot(key + j * n, n);
            }
        else
            for (int64_t j = 0; j < 16; j++) v[j] = q.dot(key + least(j, end - s - 1) * n, n);
        _mm512_storeu_ps(scores + s, sums16(v));
    }
}

// out += the values from `from` to `end`, each times its weight.
template <class T, int C>
void mix(Head<T, C> &out, const float *weights, const T *values, int64_t from, int64_t end, int64_t n) {
    Head<T, C> other;  // a second sum, as one would wait for itself
    other.zero();
    int64_t s = from;
    for (; s + 2 <= end; s += 2) {
        for (int c = 0; c < 2 * C; c++)
            _mm_prefetch(reinterpret_cast<const char *>(values + s * n) + AHEAD / 2 + 64 * c, _MM_HINT_T0);
        out.add(values + s * n, n, _mm512_set1_ps(weights[s]));
        other.add(values + (s + 1) * n, n, _mm512_set1_ps(weights[s + 1]));
    }
    if (s < end) out.add(values + s * n, n, _mm512_set1_ps(weights[s]));
    out.add(other);
}

// Scores to weights that are not yet divided by their sum, which is returned.
float soften(float *scores, int64_t columns) {
    __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int64_t s = 0; s < columns; s += 16)
        most = _mm512_mask_max_ps(most, first16(columns - s), most, _mm512_loadu_ps(scores + s));
    most = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    for (int64_t s = 0; s < columns; s += 16) {
        const __mmask16 mask = first16(columns - s);
        const __m512 e = _mm512_maskz_mov_ps(mask, exp16(_mm512_sub_ps(_mm512_loadu_ps(scores + s), most)));
        _mm512_storeu_ps(scores + s, e);
        sum = _mm512_add_ps(sum, e);
    }
    return _mm512_reduce_add_ps(sum);
}

thread_local Scratch work, of_thread;

// `group` queries (n each) over `columns` keys and values; out (group, n).
template <class T, int C>
void attend(float *out, const float *queries, const T *keys, const T *values, int64_t columns, int64_t group,
            int64_t n) {
    const int64_t across = up(columns, 16);
    float *scores = of_thread.get<float>(group * across);
    for (int64_t s = 0; s < columns; s += KEYS)
        for (int64_t g = 0; g < group; g++)
            score<T, C>(scores + g * across, queries + g * n, keys, s, least(s + KEYS, columns), n);
    for (int64_t g = 0; g < group; g++) {
        Head<T, C> sum;
        sum.zero();
        const float whole = soften(scores + g * across, columns);
        mix<T, C>(sum, scores + g * across, values, 0, columns, n);
        sum.store(out + g * n, n, _mm512_set1_ps(1 / whole));
    }
}

template <class T> void attend(float *out, const float *queries, const T *keys, const T *values, int64_t columns,
                               int64_t group, int64_t n) {
    if (n <= 32) attend<T, 1>(out, queries, keys, values, columns, group, n);
    else if (n <= 64) attend<T, 2>(out, queries, keys, values, columns, group, n);
    else if (n <= 96) attend<T, 3>(out, queries, keys, values, columns, group, n);
    else if (n <= 128) attend<T, 4>(out, queries, keys, values, columns, group, n);
    else attend<T, 8>(out, queries, keys, values, columns, group, n);
}

template <class T> struct Step {
    const Model &m;
    const Tokens &t;
    const int64_t n = t.count, width = m.width, heads = m.heads, kv = m.kv_heads, dim = m.head_dim;
    const int64_t across = up((heads + 2 * kv) * dim, PANEL), attended = heads * dim;
    float *x, *qkv, *mixed;
    Lines<T> normed, heard, hidden;

    Step(const Model &m, const Tokens &t) : m(m), t(t) {
        const int64_t numbers = up(n * width, 64) + up(n * across, 64) + up(n * attended, 64);
        const int64_t sizes[] = {Lines<T>::size(n, width), Lines<T>::size(n, attended), Lines<T>::size(n, m.mlp)};
        x = work.get<float>(numbers + (sizes[0] + sizes[1] + sizes[2]) * sizeof(T) / 4);
        qkv = x + up(n * width, 64);
        mixed = qkv + up(n * across, 64);
        T *lines = reinterpret_cast<T *>(mixed + up(n * attended, 64));
        normed = {lines, Lines<T>::count(width)};
        heard = {lines + sizes[0], Lines<T>::count(attended)};
        hidden = {lines + sizes[0] + sizes[1], Lines<T>::count(m.mlp)};
        if (attended % Lines<T>::WIDE) memset(heard.at, 0, sizes[1] * sizeof(T));
    }

    int64_t row(int64_t i) const { return t.rows ? t.rows[i] : i; }
    int64_t position(int64_t i) const { return t.at[i] - t.begins[row(i)]; }

    void enter() {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n; i++) {
            const T *from = static_cast<const T *>(m.embed) + t.ids[i] * width;
            const T *place = static_cast<const T *>(m.positions);
            float *to = x + i * width;
            for (int64_t k = 0; k < width; k += 16) {
                const __mmask16 mask = first16(width - k);
                __m512 v = take16(from + k, mask);
                if (place) v = _mm512_add_ps(v, take16(place + position(i) * width + k, mask));
                put16(to + k, v, mask);
            }
            if (!m.embedding_norm) continue;
            const Norm norm(to, width, m.centred, m.eps, m.norm, m.norm_bias);
            for (int64_t k = 0; k < width; k += 16) put16(to + k, norm(to, k, first16(width - k)), first16(width - k));
        }
    }

    // Row i of `normed` from a row of the residual stream.
    void normalise(int64_t i, const float *from, const float *gain, const float *bias) const {
        const Norm norm(from, width, m.centred, m.eps, gain, bias);
        for (int64_t k = 0; k < up(width, Lines<T>::WIDE); k += 16)
            put16(normed.line(i, k) + k % Lines<T>::WIDE, norm(from, k, first16(width - k)), 0xffff);
    }

    void normalise(const float *gain, const float *bias) const {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n; i++) normalise(i, x + i * width, gain, bias);
    }

    // x += from W^T + bias
    void add(const Lines<T> &from, const void *weights, const float *bias) const {
        product<T, 1>(from, n, {static_cast<const T *>(weights)}, width, [&](auto i, auto j, auto rows, auto &sums) {
            for (int64_t k = 0; k < least(PANEL, width - j); k += 16) {
                const __mmask16 mask = first16(width - j - k);
                const __m512 b = bias ? take16(bias + j + k, mask) : _mm512_setzero_ps();
                for (int64_t r = 0; r < rows; r++) {
                    float *to = x + (i + r) * width + j + k;
                    const __m512 y = _mm512_add_ps(_mm512_load_ps(sums[0] + r * PANEL + k), b);
                    put16(to, _mm512_add_ps(take16(to, mask), y), mask);
                }
            }
        });
    }

    void queries_keys_values(const Layer &l) const {
        product<T, 1>(normed, n, {static_cast<const T *>(l.qkv)}, across, [&](auto i, auto j, auto rows, auto &sums) {
            for (int64_t k = 0; k < PANEL; k += 16) {
                const __mmask16 mask = first16((heads + 2 * kv) * dim - j - k);
                const __m512 b = l.qkv_bias ? take16(l.qkv_bias + j + k, mask) : _mm512_setzero_ps();
                for (int64_t r = 0; r < rows; r++)
                    _mm512_storeu_ps(qkv + (i + r) * across + j + k,
                                     _mm512_add_ps(_mm512_load_ps(sums[0] + r * PANEL + k), b));
            }
        });
    }

    // A query or key as attention takes it.
    void ready(float *head, const float *gain, const float *turns, float scale) const {
        if (!m.qk_norm && !turns && scale == 1) return;
        if (m.qk_norm) {
            const Norm norm(head, dim, false, m.eps, gain, nullptr);
            for (int64_t k = 0; k < dim; k += 16) put16(head + k, norm(head, k, first16(dim - k)), first16(dim - k));
        }
        if (turns) rotate(head, turns, dim);
        const __m512 by = _mm512_set1_ps(scale);
        if (scale != 1)
            for (int64_t k = 0; k < dim; k += 16)
                put16(head + k, _mm512_mul_ps(by, take16(head + k, first16(dim - k))), first16(dim - k));
    }

    // Where the keys or values of token i begin: those of its row and head `h`, from the row's first column on.
    T *kept(void *const *of_layers, int64_t layer, int64_t i, int64_t h) const {
        return static_cast<T *>(of_layers[layer]) + ((row(i) * kv + h) * t.room + t.begins[row(i)]) * dim;
    }

    // The queries of key head h, and its key and value into the cache.
    void prepare(int64_t layer, int64_t i, int64_t h) const {
        const Layer &l = m.layer[layer];
        const int64_t group = heads / kv, at = position(i);
        const float *turns = t.rope ? t.rope + at * dim : nullptr;
        float *mine = qkv + i * across, *key = mine + (heads + h) * dim;
        for (int64_t g = h * group; g < (h + 1) * group; g++)
            ready(mine + g * dim, l.q_gain, turns, 1 / std::sqrt(float(dim)));
        ready(key, l.k_gain, turns, 1);
        copy(kept(t.keys, layer, i, h) + at * dim, key, dim);
        copy(kept(t.values, layer, i, h) + at * dim, key + kv * dim, dim);
    }

    void attention(int64_t layer) const {
        const int64_t group = heads / kv;
        if (t.several) {  // a token looks at others of its row, which must be in the cache before
#pragma omp for schedule(static)
            for (int64_t task = 0; task < n * kv; task++) prepare(layer, task / kv, task % kv);
        }
#pragma omp for schedule(static, 1)
        for (int64_t task = 0; task < n * kv; task++) {
            const int64_t i = task / kv, h = task % kv, first = h * group * dim;
            if (!t.several) prepare(layer, i, h);
            float *out = mixed + i * attended + first;
            attend(out, qkv + i * across + first, kept(t.keys, layer, i, h), kept(t.values, layer, i, h),
                   position(i) + 1, group, dim);
            if (dim % 16 == 0)
                for (int64_t k = 0; k < group * dim; k += 16)
                    put16(heard.line(i, first + k) + (first + k) % Lines<T>::WIDE, take16(out + k, 0xffff), 0xffff);
            else
                for (int64_t k = 0; k < group * dim; k++)
                    put16(heard.line(i, first + k) + (first + k) % Lines<T>::WIDE, _mm512_set1_ps(out[k]), 1);
        }
    }

    __m512 activate(__m512 v) const {
        if (m.activation == GELU) return gelu16(v);
        const __m512 positive = _mm512_max_ps(v, _mm512_setzero_ps());
        return _mm512_mul_ps(positive, positive);
    }

    __m512 biased(const float *sums, const float *bias, int64_t j) const {
        const __m512 v = _mm512_load_ps(sums);
        return bias ? _mm512_add_ps(v, take16(bias + j, first16(m.mlp - j))) : v;
    }

    void expand(const Layer &l) const {
        const T *up = static_cast<const T *>(l.up), *gate = static_cast<const T *>(l.gate);
        auto put = [&](int64_t i, int64_t j, int64_t rows, auto make) {
            for (int64_t r = 0; r < rows; r++)
                for (int64_t k = 0; k < PANEL && j + k < hidden.steps * Lines<T>::WIDE; k += 16)
                    put16(hidden.line(i + r, j + k) + (j + k) % Lines<T>::WIDE, make(r * PANEL + k, j + k), 0xffff);
        };
        if (m.activation == SWIGLU)
            product<T, 2>(normed, n, {gate, up}, m.mlp, [&](auto i, auto j, auto rows, auto &sums) {
                put(i, j, rows, [&](int64_t k, int64_t at) {
                    const __m512 gated = swish16(biased(sums[0] + k, l.gate_bias, at), 1);
                    return _mm512_mul_ps(gated, biased(sums[1] + k, l.up_bias, at));
                });
            });
        else
            product<T, 1>(normed, n, {up}, m.mlp, [&](auto i, auto j, auto rows, auto &sums) {
                put(i, j, rows, [&](int64_t k, int64_t at) { return activate(biased(sums[0] + k, l.up_bias, at)); });
            });
    }

    void predict() const {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < t.wanted; i++)
            normalise(i, x + (t.which ? t.which[i] : i) * width, m.norm, m.norm_bias);
        const T *head = static_cast<const T *>(m.head);
        product<T, 1>(normed, t.wanted, {head}, m.vocab, [&](auto i, auto j, auto rows, auto &sums) {
            for (int64_t r = 0; r < rows; r++)
                for (int64_t k = 0; k < least(PANEL, m.vocab - j); k += 16) {
                    __m512 y = _mm512_load_ps(sums[0] + r * PANEL + k);
                    if (m.softcap) y = softcap16(y, float(m.softcap));
                    put16(t.logits + (i + r) * m.vocab + j + k, y, first16(m.vocab - j - k));
                }
        });
    }

    void run() {
        enter();
        for (int64_t layer = 0; layer < m.layers; layer++) {
            const Layer &l = m.layer[layer];
            normalise(l.norm1, l.norm1_bias);
            queries_keys_values(l);
            attention(layer);
            add(heard, l.out, l.out_bias);
            normalise(l.norm2, l.norm2_bias);
            expand(l);
            add(hidden, l.down, l.down_bias);
        }
        if (t.wanted) predict();
    }
};

template <class T> void pack(T *to, const T *from, int64_t outputs, int64_t inputs, int64_t threads) {
    const int64_t size = up(inputs, Lines<T>::WIDE) * PANEL;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t j = 0; j < outputs; j += PANEL)
        pack_panel(to + j / PANEL * size, from + j * inputs, inputs, least(PANEL, outputs - j), inputs);
}

}  // namespace

// The matrix `from` (outputs, inputs) in the order in which `step` reads it, both padded with zeros (lines.hpp).
extern "C" void pack_weights(void *to, const void *from, int64_t type, int64_t outputs, int64_t inputs,
                             int64_t threads) {
    if (type == BF16) pack(static_cast<bf16 *>(to), static_cast<const bf16 *>(from), outputs, inputs, threads);
    else pack(static_cast<float *>(to), static_cast<const float *>(from), outputs, inputs, threads);
}

// Take the tokens through all layers: keys and values into the cache, logits of those that are wanted.
extern "C" void step(const Model *model, const Tokens *tokens, int64_t threads) {
    if (model->type == BF16) {
        Step<bf16> step(*model, *tokens);
#pragma omp parallel num_threads(threads)
        {
            Tiles tiles;
            step.run();
        }
    } else {
        Step<float> step(*model, *tokens);
#pragma omp parallel num_threads(threads)
        step.run();
    }
}
