// The polynomial of Muon (train/optimizer.py) for a stack of matrices: a thread takes a whole matrix through all steps,
// so that it stays in that core's cache; as batched products every step of every matrix passes through memory.
#include "amx.hpp"

namespace {

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Matrices lie in blocks of 32x32, the blocks of a row side by side: so a row of blocks is a panel of A as it stands.
int64_t place(int64_t i, int64_t j, int64_t columns) { return i * columns + j * BLOCK; }

// A panel of B for every 32 columns of x (m,n), or, `turned`, of its transpose.
void right_panels(bf16 *to, const bf16 *x, int64_t m, int64_t n, bool turned) {
    const int64_t sum = turned ? n : m;
    for (int64_t i = 0; i < m; i += BLOCK)
        for (int64_t j = 0; j < n; j += BLOCK) {
            const int64_t k = turned ? j : i, column = turned ? i : j;
            panels<bf16, false>(to + place(column, k, sum), x + place(i, j, n), BLOCK, turned, BLOCK, BLOCK);
        }
}

// A panel of A for every 32 rows of the transpose of x (m,n).
void left_panels(bf16 *to, const bf16 *x, int64_t m, int64_t n) {
    for (int64_t i = 0; i < m; i += BLOCK)
        for (int64_t j = 0; j < n; j += BLOCK)
            panels<bf16, true>(to + place(j, i, m), x + place(i, j, n), BLOCK, false, BLOCK, BLOCK);
}

// A block of sums and where it goes as bfloat16, and its mirror image where the product is symmetric.
struct Block {
    alignas(64) float sums[BLOCK * BLOCK];
    bf16 *to = nullptr, *mirror = nullptr;

    void put() {
        if (!to) return;
        write(to);
        if (mirror) {
            turn();
            write(mirror);
        }
        to = nullptr;
    }
    void write(bf16 *at) const {
        for (int64_t i = 0; i < BLOCK * BLOCK; i += 32) _mm512_store_si512(at + i, load32(sums + i, 32));
    }
    void turn() {
        __m512i r[4][16];
        for (int q = 0; q < 4; q++) {
            for (int i = 0; i < 16; i++) r[q][i] = _mm512_load_si512(sums + (q / 2 * 16 + i) * BLOCK + q % 2 * 16);
            transpose16(r[q]);
        }
        for (int q = 0; q < 4; q++)
            for (int i = 0; i < 16; i++) _mm512_store_si512(sums + (q % 2 * 16 + i) * BLOCK + q / 2 * 16, r[q][i]);
    }
};

// c (m,n) = a b + d I, from panels; `symmetric`: only the blocks on and above the diagonal are computed. A block is
// written while the next one is being multiplied.
void multiply(bf16 *c, const bf16 *a, const bf16 *b, int64_t m, int64_t n, int64_t k, float d, bool symmetric) {
    Block blocks[2];
    int now = 0;
    for (int64_t i = 0; i < m; i += BLOCK)
        for (int64_t j = symmetric ? i : 0; j < n; j += BLOCK, now ^= 1) {
            Block &block = blocks[now];
            block32(a + i * k, b + j * k, block.sums, BLOCK, k / 32, false);
            blocks[now ^ 1].put();
            if (i == j && d != 0)
                for (int64_t r = 0; r < BLOCK; r++) block.sums[r * BLOCK + r] += d;
            block.to = c + place(i, j, n);
            block.mirror = symmetric && i != j ? c + place(j, i, n) : nullptr;
        }
    blocks[now ^ 1].put();
}

struct Halves {  // 32 numbers of bfloat16, those at even and those at odd places
    __m512 even, odd;

    explicit Halves(__m512i v)
        : even(_mm512_castsi512_ps(_mm512_slli_epi32(v, 16))),
          odd(_mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(0xffff0000)))) {}
    __m512i times(__m512 scale) const {
        __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(even, scale)));
        __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(odd, scale)));
        return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
    }
};

// x (m,n) = g (rows,columns) times `scale` over its norm, with zeros around it.
void take(bf16 *x, const bf16 *g, int64_t rows, int64_t columns, int64_t m, int64_t n, float scale) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < rows * columns; i += 32) {
        Halves v(load32(g + i, rows * columns - i));
        sum = _mm512_fmadd_ps(v.even, v.even, _mm512_fmadd_ps(v.odd, v.odd, sum));
    }
    const __m512 by = _mm512_set1_ps(scale / (__builtin_sqrtf(_mm512_reduce_add_ps(sum)) * 1.02f + 1e-7f));
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j += 32) {
            __m512i v = i < rows ? load32(g + i * columns + j, columns - j) : _mm512_setzero_si512();
            _mm512_store_si512(x + place(i / 32 * 32, j, n) + i % 32 * 32, Halves(v).times(by));
        }
}

void give(bf16 *g, const bf16 *x, int64_t rows, int64_t columns, int64_t n) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j += 32)
            memcpy(g + i * columns + j, x + place(i / 32 * 32, j, n) + i % 32 * 32, 2 * least(32, columns - j));
}

thread_local Scratch space;

// One matrix g (rows, columns), in place. `steps` are (h, k) of x <- ((x x^T + h)^2 + k) x, or, for a tall one, of
// x <- x ((x^T x + h)^2 + k); `first` is the scale that x begins with.
void one(bf16 *g, int64_t rows, int64_t columns, float first, const float *steps, int64_t count) {
    const int64_t m = up(rows, BLOCK), n = up(columns, BLOCK), small = least(m, n), large = m + n - small;
    const bool tall = m > n;
    bf16 *x = space.get<bf16>(m * n * 4 + small * small * 3), *next = x + m * n, *a = next + m * n, *b = a + m * n;
    bf16 *gram = b + m * n, *square = gram + small * small, *side = square + small * small;
    take(x, g, rows, columns, m, n, first);
    for (int64_t s = 0; s < count; s++) {
        if (tall) left_panels(a, x, m, n);
        right_panels(b, x, m, n, !tall);
        multiply(gram, tall ? a : x, b, small, small, large, steps[2 * s], true);
        right_panels(side, gram, small, small, false);
        multiply(square, gram, side, small, small, small, steps[2 * s + 1], true);
        right_panels(b, tall ? square : x, tall ? small : m, n, false);
        multiply(next, tall ? x : square, b, m, n, small, 0, false);
        bf16 *old = x;
        x = next, next = old;
    }
    give(g, x, rows, columns, n);
}

}  // namespace

extern "C" void orthogonalize(bf16 *g, int64_t count, int64_t rows, int64_t columns, float first, const float *steps,
                              int64_t number, int64_t threads) {
#pragma omp parallel num_threads(threads)
    {
        Tiles tiles;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < count; i++) one(g + i * rows * columns, rows, columns, first, steps, number);
    }
}

// Of `count` numbers: momentum (m) follows the gradient (g), m += (1 - beta) (g - m), and what Nesterov looks ahead to,
// g + beta (m - g), becomes bfloat16.
extern "C" void follow(const float *g, float *m, bf16 *out, int64_t count, float beta, int64_t threads) {
    const __m512 some = _mm512_set1_ps(1 - beta), most = _mm512_set1_ps(beta);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i += 16) {
        const __mmask16 mask = count - i >= 16 ? 0xffff : (1u << (count - i)) - 1;
        const __m512 x = _mm512_maskz_loadu_ps(mask, g + i), old = _mm512_maskz_loadu_ps(mask, m + i);
        const __m512 now = _mm512_fmadd_ps(some, _mm512_sub_ps(x, old), old);
        _mm512_mask_storeu_ps(m + i, mask, now);
        const __m512 ahead = _mm512_fmadd_ps(most, _mm512_sub_ps(now, x), x);
        _mm256_mask_storeu_epi16(out + i, mask, (__m256i)_mm512_cvtneps_pbh(ahead));
    }
}

// p = keep p - rate u
extern "C" void move(float *p, const bf16 *u, int64_t count, float keep, float rate, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i += 16) {
        const __mmask16 mask = count - i >= 16 ? 0xffff : (1u << (count - i)) - 1;
        const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, u + i)), 16);
        const __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, p + i), _mm512_set1_ps(keep));
        const __m512 found = _mm512_fnmadd_ps(_mm512_castsi512_ps(wide), _mm512_set1_ps(rate), x);
        _mm512_mask_storeu_ps(p + i, mask, found);
    }
}
