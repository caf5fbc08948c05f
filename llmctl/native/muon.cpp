// The polynomial of Muon (train/optimizer.py) for a stack of matrices: a thread takes a whole matrix through all steps,
// so that it stays in that core's cache; as batched products every step of every matrix passes through memory.
#include "amx.hpp"

namespace {

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// A block of sums to `to`, as bfloat16; also its mirror image where the product is symmetric.
struct Block {
    alignas(64) float sums[BLOCK * BLOCK];
    bf16 *to = nullptr, *mirror = nullptr;

    void put(int64_t ld) {
        if (!to) return;
        write(to, ld);
        if (mirror) {
            turn();
            write(mirror, ld);
        }
        to = nullptr;
    }
    void write(bf16 *at, int64_t ld) const {
        for (int64_t i = 0; i < BLOCK; i++)
            _mm512_storeu_si512(at + i * ld, load32(sums + i * BLOCK, BLOCK));
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

// c (m,n; rows n apart) = a b + d I, from panels; `symmetric`: only the blocks on and above the diagonal are computed.
// A block is written while the next one is being multiplied.
void multiply(bf16 *c, const bf16 *a, const bf16 *b, int64_t m, int64_t n, int64_t k, float d, bool symmetric) {
    Block blocks[2];
    int now = 0;
    for (int64_t i = 0; i < m; i += BLOCK)
        for (int64_t j = symmetric ? i : 0; j < n; j += BLOCK, now ^= 1) {
            Block &block = blocks[now];
            block32(a + i * k, b + j * k, block.sums, BLOCK, k / 32, false);
            blocks[now ^ 1].put(n);
            if (i == j && d != 0)
                for (int64_t r = 0; r < BLOCK; r++) block.sums[r * BLOCK + r] += d;
            block.to = c + i * n + j;
            block.mirror = symmetric && i != j ? c + j * n + i : nullptr;
        }
    blocks[now ^ 1].put(n);
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
            _mm512_store_si512(x + i * n + j, Halves(v).times(by));
        }
}

thread_local Scratch space;

// One matrix g (rows, columns), in place. `steps` are (h, k) of x <- ((x x^T + h)^2 + k) x, or, for a tall one, of
// x <- x ((x^T x + h)^2 + k); `first` is the scale that x begins with.
void one(bf16 *g, int64_t rows, int64_t columns, float first, const float *steps, int64_t count) {
    const int64_t m = up(rows, BLOCK), n = up(columns, BLOCK), small = least(m, n), large = m + n - small;
    const bool tall = m > n;
    bf16 *x = space.get<bf16>(m * n * 3 + small * small * 2), *a = x + m * n, *b = a + m * n;
    bf16 *gram = b + m * n, *square = gram + small * small;
    take(x, g, rows, columns, m, n, first);
    for (int64_t s = 0; s < count; s++) {
        panels<bf16, true>(a, x, n, !tall, small, large);
        panels<bf16, false>(b, x, n, !tall, small, large);
        multiply(gram, a, b, small, small, large, steps[2 * s], true);
        panels<bf16, true>(a, gram, small, true, small, small);
        panels<bf16, false>(b, gram, small, false, small, small);
        multiply(square, a, b, small, small, small, steps[2 * s + 1], true);
        panels<bf16, true>(a, tall ? x : square, small, true, m, small);
        panels<bf16, false>(b, tall ? square : x, n, false, n, small);
        multiply(x, a, b, m, n, small, 0, false);
    }
    for (int64_t i = 0; i < rows; i++) memcpy(g + i * columns, x + i * n, 2 * columns);
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
