// The gradient of a matrix: dW (m,n) float32 = dY^T X, for dY (tokens,m) and X (tokens,n) in bfloat16.
//
// Both lie across the sum, so both have to be laid out anew; oneDNN spends half of its time on that (0.5 to 0.7
// TFLOP/s). Here the next strip of dY is turned while the tiles multiply the present one, in the shadow of their
// latency.
#include "amx.hpp"

namespace {

// A group of strips of dY, 32 columns each, keeps its part of dW in L2 while all tokens go by, a part at a time.
constexpr int64_t SUM = 256, GROUP = 16;

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Strips of 32 columns of dY that are being laid out, step by step: 32 tokens of one strip each.
struct Strips {
    bf16 *to;
    const bf16 *from;  // at the first token
    int64_t ld, count, wide, sum, at = 0, strip = 0;

    bool done() const { return strip >= count || at >= sum; }
    void step() {
        const bf16 *s = from + at * ld + strip * BLOCK;
        const int64_t left = sum - at, size = up(sum, 32) * BLOCK;
        for (int64_t half = 0; half < 2; half++) {
            __m512i r[16];
            const int64_t n = wide - strip * BLOCK - 16 * half;
            for (int64_t j = 0; j < 16; j++) r[j] = pair(s + 16 * half, ld, 2 * j, left, n);
            transpose16(r);
            bf16 *tile = to + strip * size + (at / 32 * 2 + half) * TILE;
            for (int j = 0; j < 16; j++) _mm512_store_si512(tile + 32 * j, r[j]);
        }
        for (int64_t j = 32; j < least(64, left); j++)
            _mm_prefetch(reinterpret_cast<const char *>(s + j * ld), _MM_HINT_T0);
        if (++strip == count) strip = 0, at += 32;
    }
    void rest() {
        while (!done()) step();
    }
};

// block32 of amx.hpp, with a step of `next` every `every` of its own.
void block32_beside(const bf16 *a, const bf16 *b, float *c, int64_t ld, int64_t steps, bool add, Strips &next,
                    int64_t every) {
    settle();
    if (add) {
        _tile_loadd(0, c, 4 * ld);
        _tile_loadd(1, c + 16, 4 * ld);
        _tile_loadd(2, c + 16 * ld, 4 * ld);
        _tile_loadd(3, c + 16 * ld + 16, 4 * ld);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    int64_t until = every / 2;
    for (int64_t k = 0; k < steps; k++, a += 2 * TILE, b += 2 * TILE) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + TILE, 64);
        _tile_loadd(5, a + TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        if (--until == 0) {
            if (!next.done()) next.step();
            until = every;
        }
    }
    _tile_stored(0, c, 4 * ld);
    _tile_stored(1, c + 16, 4 * ld);
    _tile_stored(2, c + 16 * ld, 4 * ld);
    _tile_stored(3, c + 16 * ld + 16, 4 * ld);
    settle();
}

// A block whose edge lies outside of dW goes by way of `made`.
void edge(const float *made, float *to, int64_t ld, int64_t rows, int64_t columns, bool add) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) to[i * ld + j] = made[i * BLOCK + j] + (add ? to[i * ld + j] : 0);
}

// Rows of dW (+)= the strips in `now` times the panels in `right`, while `next` is laid out.
void multiply(const Strips &now, const bf16 *right, float *dw, int64_t m, int64_t n, bool add, Strips &next) {
    alignas(64) float made[BLOCK * BLOCK];
    const int64_t blocks = up(n, BLOCK) / BLOCK, steps = up(now.sum, 32) / 32, size = steps * 2 * TILE;
    for (int64_t i = 0; i < now.count; i++)
        for (int64_t j = 0; j < blocks; j++) {
            float *to = dw + i * BLOCK * n + j * BLOCK;
            const int64_t rows = least(BLOCK, m - i * BLOCK), wide = least(BLOCK, n - j * BLOCK);
            const bool whole = rows == BLOCK && wide == BLOCK;
            block32_beside(now.to + i * size, right + j * size, whole ? to : made, whole ? n : BLOCK, steps,
                           whole && add, next, blocks);
            if (!whole) edge(made, to, n, rows, wide, add);
        }
}

thread_local Scratch right_panels, left_panels;

}  // namespace

// `add`: to what is in dW. Rows of dY and X are `y_row` and `x_row` apart, those of dW n.
extern "C" void matrix_gradient(const bf16 *dy, int64_t y_row, const bf16 *x, int64_t x_row, float *dw, int64_t add,
                                int64_t m, int64_t n, int64_t tokens, int64_t threads) {
    const int64_t blocks = up(n, BLOCK) / BLOCK, parts = (tokens + SUM - 1) / SUM, strips = up(m, BLOCK) / BLOCK;
    bf16 *right = right_panels.get<bf16>(parts * blocks * BLOCK * SUM);
#pragma omp parallel num_threads(threads)
    {
        Tiles tiles;
        bf16 *left = left_panels.get<bf16>(2 * GROUP * BLOCK * SUM);
        const int64_t me = omp_get_thread_num(), all = omp_get_num_threads();
        const int64_t begin = strips * me / all, end = strips * (me + 1) / all;
#pragma omp for schedule(static)
        for (int64_t p = 0; p < parts; p++)
            panels<bf16, false>(right + p * blocks * BLOCK * SUM, x + p * SUM * x_row, x_row, false, n,
                                least(SUM, tokens - p * SUM));
        const int64_t turns = (end - begin + GROUP - 1) / GROUP * parts;
        auto strips_of = [&](int64_t turn) {
            const int64_t s = begin + turn / parts * GROUP, from = turn % parts * SUM;
            return Strips{left + turn % 2 * GROUP * BLOCK * SUM, dy + from * y_row + s * BLOCK, y_row,
                          turn < turns ? least(GROUP, end - s) : 0, m - s * BLOCK, least(SUM, tokens - from)};
        };
        Strips now = strips_of(0);
        now.rest();
        for (int64_t turn = 0; turn < turns; turn++) {
            Strips next = strips_of(turn + 1);
            const int64_t s = begin + turn / parts * GROUP, p = turn % parts;
            multiply(now, right + p * blocks * BLOCK * SUM, dw + s * BLOCK * n, m - s * BLOCK, n, p || add, next);
            next.rest();
            now = next;
        }
    }
}
