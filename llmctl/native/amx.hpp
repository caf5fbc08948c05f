// Products of bfloat16 matrices in the tile registers of AMX (Intel SDM volume 1, chapter 18; TDPBF16PS).
//
// A tile holds 16 rows of 64 bytes. C (16x16 float) += A (16x32 bfloat16) B (32x16), B as 16 rows of pairs: row r holds
// b[2r][j], b[2r+1][j] for j = 0..15. Four tiles of C, two of A and two of B make a block of 32x32, which takes one
// load a product; the panels that the loads come from are laid out so that each tile is one contiguous kilobyte.
#pragma once
#include <immintrin.h>
#include <omp.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

typedef uint16_t bf16;

enum Type { BF16 = 0, F32 = 1 };

constexpr int64_t TILE = 512;  // elements of a tile of bfloat16: one kilobyte
constexpr int64_t BLOCK = 32;  // rows and columns of C that are made at once

// The compiler's loads of tiles do not say that they read memory: what is written before must be there.
static inline void settle() { asm volatile("" ::: "memory"); }

static inline int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static inline float to_float(bf16 x) {
    uint32_t bits = uint32_t(x) << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

// The tile configuration of this thread while it lives; oneDNN, which keeps its own, finds it again afterwards.
struct Tiles {
    struct alignas(64) Config {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } before, mine;

    Tiles() {
        _tile_storeconfig(&before);
        memset(&mine, 0, sizeof mine);
        mine.palette = 1;
        for (int i = 0; i < 8; i++) mine.bytes[i] = 64, mine.rows[i] = 16;
        settle();
        _tile_loadconfig(&mine);
    }
    ~Tiles() {
        if (before.palette) _tile_loadconfig(&before);
        else _tile_release();
    }
};

// Memory of a thread that is kept from call to call.
struct Scratch {
    char *at = nullptr;
    size_t size = 0;
    template <class T> T *get(size_t count) {
        size_t bytes = (count * sizeof(T) + 4095) / 4096 * 4096;
        if (bytes > size) {
            free(at);
            at = static_cast<char *>(aligned_alloc(4096, bytes));
            size = bytes;
        }
        return reinterpret_cast<T *>(at);
    }
    ~Scratch() { free(at); }
};

// Up to 32 numbers as bfloat16, zeros behind `n`.
template <class T> static inline __m512i load32(const T *p, int64_t n) {
    uint32_t mask = n >= 32 ? ~0u : (n <= 0 ? 0u : (1u << n) - 1);
    if constexpr (sizeof(T) == 2) {
        return _mm512_maskz_loadu_epi16(mask, p);
    } else {
        __m512 low = _mm512_maskz_loadu_ps(mask & 0xffff, p), high = _mm512_maskz_loadu_ps(mask >> 16, p + 16);
        return (__m512i)_mm512_cvtne2ps_pbh(high, low);
    }
}

// Up to 16 numbers as bfloat16 in the low halves of 16 words.
template <class T> static inline __m512i load16(const T *p, int64_t n) {
    __mmask16 mask = n >= 16 ? 0xffff : (n <= 0 ? 0 : (1u << n) - 1);
    if constexpr (sizeof(T) == 2) {
        return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p));
    } else {
        return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, p)));
    }
}

// 16 rows of 16 words, turned.
static inline void transpose16(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
    }
}

// Pairs of two rows that go across the sum: words of s[k][j], s[k + 1][j] for up to 16 columns j.
template <class T> static inline __m512i pair(const T *s, int64_t ld, int64_t k, int64_t sum, int64_t n) {
    __m512i low = k < sum ? load16(s + k * ld, n) : _mm512_setzero_si512();
    __m512i high = k + 1 < sum ? load16(s + (k + 1) * ld, n) : _mm512_setzero_si512();
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// Panels of 32 rows of A (`LEFT`) or 32 columns of B, `wide` in all, over `sum` of the sum: for each 32 of it two
// tiles. `along`: the sum is the last dimension of `s`, whose element (i, k) is s[i * ld + k]; else it is s[k * ld +
// i]. Memory is read in its own order whatever the panels' is: a strided walk runs at a third of the speed.
template <class T, bool LEFT>
static inline void panels(bf16 *to, const T *s, int64_t ld, bool along, int64_t wide, int64_t sum) {
    const int64_t steps = up(sum, 32) / 32, size = steps * 2 * TILE, all = up(wide, BLOCK);
    auto tile = [&](int64_t i, int64_t k) { return to + i / 32 * size + (2 * (k / 32) + i / 16 % 2) * TILE; };
    if (along && LEFT) {
        for (int64_t i = 0; i < all; i++)
            for (int64_t k = 0; k < sum; k += 32)
                _mm512_store_si512(tile(i, k) + i % 16 * 32,
                                   i < wide ? load32(s + i * ld + k, sum - k) : _mm512_setzero_si512());
    } else if (along) {
        for (int64_t i = 0; i < all; i += 16)
            for (int64_t k = 0; k < sum; k += 32) {
                __m512i r[16];
                for (int64_t j = 0; j < 16; j++)
                    r[j] = i + j < wide ? load32(s + (i + j) * ld + k, sum - k) : _mm512_setzero_si512();
                transpose16(r);
                for (int j = 0; j < 16; j++) _mm512_store_si512(tile(i, k) + 32 * j, r[j]);
            }
    } else {
        for (int64_t k = 0; k < sum; k += 32)
            for (int64_t i = 0; i < all; i += 16) {
                const T *from = s + k * ld + i;
                __m512i r[16];
                for (int64_t j = 0; j < 16; j++) r[j] = pair(from, ld, 2 * j, sum - k, wide - i);
                if (sum - k > 32)
                    for (int64_t j = 32; j < 64; j++)
                        _mm_prefetch(reinterpret_cast<const char *>(from + j * ld), _MM_HINT_T0);
                if (LEFT) transpose16(r);
                for (int j = 0; j < 16; j++) _mm512_store_si512(tile(i, k) + 32 * j, r[j]);
            }
    }
}

// c (32x32 float, rows `ld` apart) = a b (+ c), over `steps` times 32 of the sum.
static inline void block32(const bf16 *a, const bf16 *b, float *c, int64_t ld, int64_t steps, bool add) {
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
    for (int64_t k = 0; k < steps; k++, a += 2 * TILE, b += 2 * TILE) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + TILE, 64);
        _tile_loadd(5, a + TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, 4 * ld);
    _tile_stored(1, c + 16, 4 * ld);
    _tile_stored(2, c + 16 * ld, 4 * ld);
    _tile_stored(3, c + 16 * ld + 16, 4 * ld);
    settle();
}
