// Cross-entropy of a piece of logits and, in their place, its gradient: a row stays in the cache for all passes over
// it.
#include <omp.h>

#include <cmath>
#include <vector>

#include "lanes.hpp"

namespace {

// One row of `n` logits: the loss of `target` in nats; the row becomes weight (softmax - hit), by the slope of the cap.
// `x` and `e` hold a row each.
float row_loss(bf16 *row, int64_t n, int64_t target, float weight, float cap, float *x, float *e) {
    __m512 most = _mm512_set1_ps(-INFINITY);
    for (int64_t j = 0; j < n; j += 16) {
        const __mmask16 m = first16(n - j);
        __m512 v = take16(row + j, m);
        if (cap > 0) v = softcap16(v, cap);
        put16(x + j, v, m);
        most = _mm512_mask_max_ps(most, m, most, v);
    }
    const float top = _mm512_reduce_max_ps(most);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t j = 0; j < n; j += 16) {
        const __mmask16 m = first16(n - j);
        const __m512 v = _mm512_maskz_mov_ps(m, exp16(_mm512_sub_ps(take16(x + j, m), _mm512_set1_ps(top))));
        put16(e + j, v, m);
        sum = _mm512_add_ps(sum, v);
    }
    const float total = _mm512_reduce_add_ps(sum), right = x[target];
    const __m512 scale = _mm512_set1_ps(weight / total);
    e[target] -= total;
    for (int64_t j = 0; j < n; j += 16) {
        const __mmask16 m = first16(n - j);
        __m512 d = _mm512_mul_ps(take16(e + j, m), scale);
        if (cap > 0) {
            const __m512 t = _mm512_div_ps(take16(x + j, m), _mm512_set1_ps(cap));
            d = _mm512_fnmadd_ps(_mm512_mul_ps(d, t), t, d);
        }
        put16(row + j, d, m);
    }
    return std::log(total) + (top - right);
}

}  // namespace

// `losses` (rows): weight times cross-entropy; `logits` (rows,n) become their gradient.
extern "C" void softmax_loss(bf16 *logits, const int64_t *targets, const float *weights, float *losses, int64_t rows,
                             int64_t n, float cap, int64_t threads) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> x(n + 16), e(n + 16);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++)
            losses[i] = weights[i] * row_loss(logits + i * n, n, targets[i], weights[i], cap, x.data(), e.data());
    }
}
