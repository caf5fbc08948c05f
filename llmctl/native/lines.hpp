// Products of a few rows with weights that are kept packed: y = x W^T, in bfloat16 (AMX) or float32 (AVX-512).
//
// Weights lie in panels of 32 outputs, each in the order in which it is read: bfloat16 as the tiles of amx.hpp, float32
// as 32 outputs after 32 outputs. Rows lie in `lines` of 64 bytes, so that what a block reads is contiguous: 16 rows
// make a tile of bfloat16, 8 rows a group of float32. Both are padded with zeros to whole lines of the sum.
#pragma once
#include "amx.hpp"
#include "lanes.hpp"

constexpr int64_t PANEL = 32;   // outputs that are made at once
constexpr int64_t AHEAD = 4096; // bytes, of what is read in one go and once

template <class T> struct Lines {
    static constexpr int64_t WIDE = 64 / sizeof(T), GROUP = sizeof(T) == 2 ? 32 : 8;
    T *at = nullptr;
    int64_t steps = 0;

    static int64_t count(int64_t n) { return (n + WIDE - 1) / WIDE; }
    static int64_t size(int64_t rows, int64_t n) { return up(rows, GROUP) * count(n) * WIDE; }

    const T *group(int64_t i) const { return at + i / GROUP * GROUP * WIDE * steps; }
    // The line of row i that holds numbers k to k + WIDE.
    T *line(int64_t i, int64_t k) const {
        const int64_t s = k / WIDE, r = i % GROUP;
        T *from = at + i / GROUP * GROUP * WIDE * steps;
        if constexpr (sizeof(T) == 2) return from + (2 * s + r / 16) * TILE + r % 16 * 32;
        else return from + (s * GROUP + r) * WIDE;
    }
};

// A panel of 32 rows of w (wide of them there, `ld` apart, `sum` long).
static inline void pack_panel(bf16 *to, const bf16 *w, int64_t ld, int64_t wide, int64_t sum) {
    panels<bf16, false>(to, w, ld, true, wide, sum);
}
static inline void pack_panel(float *to, const float *w, int64_t ld, int64_t wide, int64_t sum) {
    for (int64_t k = 0; k < sum; k += 16)
        for (int64_t i = 0; i < PANEL; i += 16) {
            __m512i r[16];
            for (int64_t j = 0; j < 16; j++)
                r[j] = _mm512_maskz_loadu_epi32(i + j < wide ? first16(sum - k) : 0, w + (i + j) * ld + k);
            transpose16(r);
            for (int64_t j = 0; j < 16; j++) _mm512_store_si512(to + (k + j) * PANEL + i, r[j]);
        }
}

// What a block fetches while it computes: `lines` of 64 bytes a step from `at` on.
struct Next {
    const char *at;
    int64_t lines;
    void fetch(int64_t step) const {
        for (int64_t i = 0; i < lines; i++) _mm_prefetch(at + (step * lines + i) * 64, _MM_HINT_T1);
    }
};

// c (R,32) for R rows of bfloat16 that begin a group.
template <int R> static inline void narrow(const bf16 *a, const bf16 *b, float *c, int64_t steps) {
    __m512 sums[R][4];
    for (auto &row : sums)
        for (auto &s : row) s = _mm512_setzero_ps();
    for (int64_t k = 0; k < steps; k++, a += 2 * TILE, b += 2 * TILE)
        for (int p = 0; p < 16; p++) {
            const __m512bh low = (__m512bh)_mm512_load_si512(b + 32 * p);
            const __m512bh high = (__m512bh)_mm512_load_si512(b + TILE + 32 * p);
            _mm_prefetch(reinterpret_cast<const char *>(b + 32 * p) + AHEAD, _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char *>(b + TILE + 32 * p) + AHEAD, _MM_HINT_T0);
            for (int r = 0; r < R; r++) {
                int32_t two;
                memcpy(&two, a + 32 * r + 2 * p, 4);
                const __m512bh x = (__m512bh)_mm512_set1_epi32(two);
                sums[r][2 * (p % 2)] = _mm512_dpbf16_ps(sums[r][2 * (p % 2)], low, x);
                sums[r][2 * (p % 2) + 1] = _mm512_dpbf16_ps(sums[r][2 * (p % 2) + 1], high, x);
            }
        }
    for (int r = 0; r < R; r++)
        for (int h = 0; h < 2; h++) _mm512_store_ps(c + r * PANEL + 16 * h, _mm512_add_ps(sums[r][h], sums[r][2 + h]));
}

// c (32,32) for a group of up to 32 rows.
static inline void wide(const bf16 *a, const bf16 *b, float *c, int64_t steps, bool half, Next next) {
    settle();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < steps; k++, a += 2 * TILE, b += 2 * TILE) {
        next.fetch(k);
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (half) continue;
        _tile_loadd(5, a + TILE, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, 4 * PANEL);
    _tile_stored(1, c + 16, 4 * PANEL);
    _tile_stored(2, c + 16 * PANEL, 4 * PANEL);
    _tile_stored(3, c + 16 * PANEL + 16, 4 * PANEL);
    settle();
}

static inline void block(const bf16 *a, const bf16 *b, float *c, int64_t rows, int64_t steps, Next next) {
    switch (rows) {
    case 1: return narrow<1>(a, b, c, steps);
    case 2: return narrow<2>(a, b, c, steps);
    case 3: return narrow<3>(a, b, c, steps);
    case 4: return narrow<4>(a, b, c, steps);
    default: return wide(a, b, c, steps, rows <= 16, next);
    }
}

// c (R,32) for R rows of a group of 8.
template <int R> static inline void rows32(const float *a, const float *b, float *c, int64_t steps, Next next) {
    __m512 sums[R][2];
    for (auto &row : sums) row[0] = row[1] = _mm512_setzero_ps();
    for (int64_t k = 0; k < steps; k++, a += 8 * 16, b += 16 * PANEL) {
        next.fetch(k);
        for (int p = 0; p < 16; p++) {
            const __m512 low = _mm512_load_ps(b + p * PANEL), high = _mm512_load_ps(b + p * PANEL + 16);
            if (R <= 2) {
                _mm_prefetch(reinterpret_cast<const char *>(b + p * PANEL) + AHEAD, _MM_HINT_T0);
                _mm_prefetch(reinterpret_cast<const char *>(b + p * PANEL + 16) + AHEAD, _MM_HINT_T0);
            }
            for (int r = 0; r < R; r++) {
                const __m512 x = _mm512_set1_ps(a[16 * r + p]);
                sums[r][0] = _mm512_fmadd_ps(low, x, sums[r][0]);
                sums[r][1] = _mm512_fmadd_ps(high, x, sums[r][1]);
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int h = 0; h < 2; h++) _mm512_store_ps(c + r * PANEL + 16 * h, sums[r][h]);
}

static inline void block(const float *a, const float *b, float *c, int64_t rows, int64_t steps, Next next) {
    switch (rows) {
    case 1: return rows32<1>(a, b, c, steps, next);
    case 2: return rows32<2>(a, b, c, steps, next);
    case 3: return rows32<3>(a, b, c, steps, next);
    case 4: return rows32<4>(a, b, c, steps, next);
    case 5: return rows32<5>(a, b, c, steps, next);
    case 6: return rows32<6>(a, b, c, steps, next);
    case 7: return rows32<7>(a, b, c, steps, next);
    default: return rows32<8>(a, b, c, steps, next);
    }
}

// For each block of up to GROUP rows of x and 32 outputs: sums (GROUP,32) of the products with each of `weights`,
// handed to put(i, j, rows, sums...). The threads of the region share the panels; all have arrived when it returns.
template <class T, int N, class Put>
static inline void product(const Lines<T> &x, int64_t rows, const T *const (&weights)[N], int64_t outputs, Put put) {
    constexpr int64_t GROUP = Lines<T>::GROUP;
    const int64_t size = x.steps * Lines<T>::WIDE * PANEL, groups = (rows + GROUP - 1) / GROUP;
    const int64_t lines = size * sizeof(T) / 64 / x.steps, share = (lines + groups - 1) / groups;
#pragma omp for schedule(static)
    for (int64_t j = 0; j < outputs; j += PANEL) {
        alignas(64) float sums[N][GROUP * PANEL];
        for (int64_t i = 0; i < rows; i += GROUP) {
            const int64_t some = rows - i < GROUP ? rows - i : GROUP;
            for (int n = 0; n < N; n++) {
                const T *panel = weights[n] + j / PANEL * size;
                // The next panel comes from memory while this one is multiplied, a share of it with each group.
                const Next next{reinterpret_cast<const char *>(panel + size) + i / GROUP * share * x.steps * 64, share};
                block(x.group(i), panel, sums[n], some, x.steps, next);
            }
            put(i, j, some, sums);
        }
    }
}
