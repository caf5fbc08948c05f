// What a policy's loss asks of a piece of logits: log-probabilities, entropies, and the gradient of the former in place
// of the logits. A row stays in the cache for all passes over it.
#include <omp.h>

#include <cmath>
#include <vector>

#include "lanes.hpp"

namespace {

__m512 bounded(__m512 v, float cap) { return cap > 0 ? softcap16(v, cap) : v; }

// The logits of a row at a temperature, in `x`; the greatest of them.
float scaled(const bf16 *row, int64_t n, float cap, float inverse, float *x) {
    __m512 most = _mm512_set1_ps(-INFINITY);
    for (int64_t j = 0; j < n; j += 16) {
        const __mmask16 m = first16(n - j);
        const __m512 v = _mm512_mul_ps(bounded(take16(row + j, m), cap), _mm512_set1_ps(inverse));
        put16(x + j, v, m);
        most = _mm512_mask_max_ps(most, m, most, v);
    }
    return _mm512_reduce_max_ps(most);
}

// With e = exp(x - top): log sum e + top is the log of the softmax's denominator, log sum e - sum e (x - top) / sum e
// the entropy.
void row_measured(const float *x, int64_t n, int64_t target, float top, float *logp, float *entropy, float *total) {
    __m512 sum = _mm512_setzero_ps(), dot = _mm512_setzero_ps();
    for (int64_t j = 0; j < n; j += 16) {
        const __mmask16 m = first16(n - j);
        const __m512 below = _mm512_sub_ps(take16(x + j, m), _mm512_set1_ps(top));
        const __m512 e = _mm512_maskz_mov_ps(m, exp16(below));
        sum = _mm512_add_ps(sum, e);
        dot = _mm512_fmadd_ps(e, _mm512_maskz_mov_ps(m, below), dot);
    }
    const float whole = _mm512_reduce_add_ps(sum), log = std::log(whole);
    *total = log + top;
    *logp = x[target] - *total;
    *entropy = log - _mm512_reduce_add_ps(dot) / whole;
}

// A row becomes (hit - softmax) outer / temperature, by the slope of the cap.
void row_turned(bf16 *row, int64_t n, int64_t target, float outer, float total, float cap, float inverse) {
    const __m512 scale = _mm512_set1_ps(-outer * inverse), one = _mm512_set1_ps(1.0f);
    for (int64_t j = 0; j < n; j += 16) {
        const __mmask16 m = first16(n - j);
        const __m512 v = bounded(take16(row + j, m), cap);
        __m512 p = exp16(_mm512_fmsub_ps(v, _mm512_set1_ps(inverse), _mm512_set1_ps(total)));
        if (target >= j && target < j + 16) p = _mm512_mask_sub_ps(p, 1u << (target - j), p, one);
        __m512 d = _mm512_mul_ps(p, scale);
        if (cap > 0) {
            const __m512 t = _mm512_div_ps(v, _mm512_set1_ps(cap));
            d = _mm512_fnmadd_ps(_mm512_mul_ps(d, t), t, d);
        }
        put16(row + j, d, m);
    }
}

}  // namespace

// Of `rows` rows of `n` logits: (rows) each of log-probabilities of the targets, entropies and log-denominators.
extern "C" void measured(const bf16 *logits, const int64_t *targets, float *logp, float *entropy, float *total,
                         int64_t rows, int64_t n, float cap, float inverse, int64_t threads) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> x(n + 16);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            const float top = scaled(logits + i * n, n, cap, inverse, x.data());
            row_measured(x.data(), n, targets[i], top, logp + i, entropy + i, total + i);
        }
    }
}

// `logits` become the gradient of sum(outer * logp); `total` as `measured` gives it.
extern "C" void turned(bf16 *logits, const int64_t *targets, const float *outer, const float *total, int64_t rows,
                       int64_t n, float cap, float inverse, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) row_turned(logits + i * n, n, targets[i], outer[i], total[i], cap, inverse);
}
