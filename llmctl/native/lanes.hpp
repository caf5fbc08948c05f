// Sixteen numbers at a time: bfloat16 in and out, the functions that layers need, and sums across (AVX-512).
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <initializer_list>

typedef uint16_t bf16;

static inline __mmask16 first16(int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1; }

static inline __m512 take16(const float *p, __mmask16 m = 0xffff) { return _mm512_maskz_loadu_ps(m, p); }
static inline __m512 take16(const bf16 *p, __mmask16 m = 0xffff) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)), 16));
}

static inline void put16(float *p, __m512 x, __mmask16 m = 0xffff) { _mm512_mask_storeu_ps(p, m, x); }
static inline void put16(bf16 *p, __m512 x, __mmask16 m = 0xffff) {
    _mm256_mask_storeu_epi16(p, m, (__m256i)_mm512_cvtneps_pbh(x));
}

// Within one unit in the last place; 0 below -104, finite above. (The polynomial is that of Cephes' expf.)
static inline __m512 exp16(__m512 x) {
    x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-104.0f)), _mm512_set1_ps(88.3f));
    const __m512 turns = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f));
    const __m512 n = _mm512_roundscale_ps(turns, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

// 1 / (1 + exp(-x)); the reciprocal by one step of Newton's from 14 bits, a quarter of a division's time.
static inline __m512 sigmoid16(__m512 x) {
    const __m512 d = _mm512_add_ps(_mm512_set1_ps(1.0f), exp16(_mm512_sub_ps(_mm512_setzero_ps(), x)));
    const __m512 r = _mm512_rcp14_ps(d);
    return _mm512_mul_ps(r, _mm512_fnmadd_ps(d, r, _mm512_set1_ps(2.0f)));
}

// x / (1 + exp(-by x)): silu for by = 1.
static inline __m512 swish16(__m512 x, float by) {
    const __m512 e = exp16(_mm512_mul_ps(x, _mm512_set1_ps(-by)));
    return _mm512_div_ps(x, _mm512_add_ps(e, _mm512_set1_ps(1.0f)));
}

// The tanh approximation of GELU: x (1 + tanh(u)) / 2 = x / (1 + exp(-2u)).
static inline __m512 gelu16(__m512 x) {
    const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
    const __m512 u = _mm512_fmadd_ps(cube, _mm512_set1_ps(0.044715f), x);
    const __m512 e = exp16(_mm512_mul_ps(u, _mm512_set1_ps(-2 * 0.7978845608028654f)));
    return _mm512_div_ps(x, _mm512_add_ps(e, _mm512_set1_ps(1.0f)));
}

// cap tanh(x / cap)
static inline __m512 softcap16(__m512 x, float cap) {
    const __m512 e = exp16(_mm512_mul_ps(x, _mm512_set1_ps(2 / cap)));
    const __m512 t = _mm512_div_ps(_mm512_set1_ps(2.0f), _mm512_add_ps(e, _mm512_set1_ps(1.0f)));
    return _mm512_mul_ps(_mm512_set1_ps(cap), _mm512_sub_ps(_mm512_set1_ps(1.0f), t));
}

// The sums of 16 vectors, as one.
static inline __m512 sums16(const __m512 v[16]) {
    __m512 s[8], m[4];
    for (int i = 0; i < 8; i++)
        s[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        const __m512d a = _mm512_castps_pd(s[2 * i]), b = _mm512_castps_pd(s[2 * i + 1]);
        m[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    for (int i = 0; i < 2; i++)
        s[i] = _mm512_add_ps(_mm512_shuffle_f32x4(m[2 * i], m[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(m[2 * i], m[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(s[0], s[1], 0x88), _mm512_shuffle_f32x4(s[0], s[1], 0xdd));
}
