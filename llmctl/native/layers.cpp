// What lies between the products of a transformer's layers, forward and backward, each in one pass over memory:
// residual and norm, norm and rotation of queries and keys, the gate of the MLP. Activations are bfloat16, the residual
// stream and all arithmetic float32. Sums over tokens are taken in parts whose number does not depend on that of
// threads.
#include <omp.h>

#include <cmath>
#include <initializer_list>

#include "lanes.hpp"

namespace {

constexpr int64_t PARTS = 16;

struct Part {
    int64_t begin, end;
    Part(int64_t part, int64_t rows) : begin(rows * part / PARTS), end(rows * (part + 1) / PARTS) {}
};

}  // namespace

// sum = x + y (y may be null: then sum is not written); out = sum / rms(sum) * gain. `scale` (rows) keeps 1 / rms.
extern "C" void add_norm(const float *x, const bf16 *y, const float *gain, float *sum, bf16 *out, float *scale,
                         int64_t rows, int64_t width, float eps, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        const float *from = x + i * width;
        __m512 squares = _mm512_setzero_ps();
        for (int64_t j = 0; j < width; j += 16) {
            const __mmask16 m = first16(width - j);
            __m512 v = take16(from + j, m);
            if (y) put16(sum + i * width + j, v = _mm512_add_ps(v, take16(y + i * width + j, m)), m);
            squares = _mm512_fmadd_ps(v, v, squares);
        }
        const float r = 1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / width + eps);
        scale[i] = r;
        if (y) from = sum + i * width;
        for (int64_t j = 0; j < width; j += 16) {
            const __mmask16 m = first16(width - j);
            __m512 v = _mm512_mul_ps(take16(from + j, m), _mm512_set1_ps(r));
            put16(out + i * width + j, gain ? _mm512_mul_ps(v, take16(gain + j, m)) : v, m);
        }
    }
}

// d_sum (rows,width), which may hold what came down the residual stream (`add`), and the same as bfloat16 for the
// branch (`d_y`, may be null); d_gain (PARTS,width) must be zero, or null where there is no gain.
extern "C" void add_norm_backward(const bf16 *d_out, const float *sum, const float *scale, const float *gain,
                                  const float *d_above, float *d_sum, bf16 *d_y, float *d_gain, int64_t rows,
                                  int64_t width, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < PARTS; p++)
        for (int64_t i = Part(p, rows).begin; i < Part(p, rows).end; i++) {
            const int64_t at = i * width;
            const __m512 r = _mm512_set1_ps(scale[i]);
            __m512 dot = _mm512_setzero_ps();
            for (int64_t j = 0; j < width; j += 16) {
                const __mmask16 m = first16(width - j);
                __m512 d = take16(d_out + at + j, m), v = _mm512_mul_ps(take16(sum + at + j, m), r);
                if (gain) {
                    put16(d_gain + p * width + j, _mm512_fmadd_ps(d, v, take16(d_gain + p * width + j, m)), m);
                    d = _mm512_mul_ps(d, take16(gain + j, m));
                }
                dot = _mm512_fmadd_ps(d, v, dot);
            }
            const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(dot) / width);
            for (int64_t j = 0; j < width; j += 16) {
                const __mmask16 m = first16(width - j);
                __m512 d = take16(d_out + at + j, m), v = _mm512_mul_ps(take16(sum + at + j, m), r);
                if (gain) d = _mm512_mul_ps(d, take16(gain + j, m));
                d = _mm512_mul_ps(_mm512_fnmadd_ps(v, mean, d), r);
                if (d_above) d = _mm512_add_ps(d, take16(d_above + at + j, m));
                put16(d_sum + at + j, d, m);
                if (d_y) put16(d_y + at + j, d, m);
            }
        }
}

namespace {

// One head of one token: its norm taken out if `eps` is not negative, times the gain, turned. E is a multiple of 32.
void turn(const bf16 *x, bf16 *out, float *scale, const float *gain, const float *cos, const float *sin, int64_t size,
          float eps) {
    const int64_t half = size / 2;
    float r = 1.0f;
    if (eps >= 0) {
        __m512 squares = _mm512_setzero_ps();
        for (int64_t j = 0; j < size; j += 16) squares = _mm512_fmadd_ps(take16(x + j), take16(x + j), squares);
        *scale = r = 1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / size + eps);
    }
    for (int64_t j = 0; j < half; j += 16) {
        __m512 a = _mm512_mul_ps(take16(x + j), _mm512_set1_ps(r));
        __m512 b = _mm512_mul_ps(take16(x + half + j), _mm512_set1_ps(r));
        if (gain) a = _mm512_mul_ps(a, take16(gain + j)), b = _mm512_mul_ps(b, take16(gain + half + j));
        const __m512 c = take16(cos + j), s = take16(sin + j);
        put16(out + j, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        put16(out + half + j, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
    }
}

void turn_backward(const bf16 *d_out, const bf16 *x, bf16 *d_x, float scale, const float *gain, float *d_gain,
                   const float *cos, const float *sin, int64_t size, bool norm) {
    const int64_t half = size / 2;
    const __m512 r = _mm512_set1_ps(norm ? scale : 1.0f);
    __m512 d[16], v[16], dot = _mm512_setzero_ps();  // heads of up to 256
    const int64_t n = half / 16;
    for (int64_t j = 0; j < n; j++) {
        const __m512 a = take16(d_out + 16 * j), b = take16(d_out + half + 16 * j);
        const __m512 c = take16(cos + 16 * j), s = take16(sin + 16 * j);
        d[j] = _mm512_fmadd_ps(a, c, _mm512_mul_ps(b, s));
        d[n + j] = _mm512_fmsub_ps(b, c, _mm512_mul_ps(a, s));
    }
    if (norm) {
        for (int64_t j = 0; j < 2 * n; j++) {
            v[j] = _mm512_mul_ps(take16(x + 16 * j), r);
            if (gain) {
                put16(d_gain + 16 * j, _mm512_fmadd_ps(d[j], v[j], take16(d_gain + 16 * j)));
                d[j] = _mm512_mul_ps(d[j], take16(gain + 16 * j));
            }
            dot = _mm512_fmadd_ps(d[j], v[j], dot);
        }
        const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(dot) / size);
        for (int64_t j = 0; j < 2 * n; j++) d[j] = _mm512_mul_ps(_mm512_fnmadd_ps(v[j], mean, d[j]), r);
    }
    for (int64_t j = 0; j < 2 * n; j++) put16(d_x + 16 * j, d[j]);
}

}  // namespace

// x (rows,heads,size) to out, row i turned by row i % period of cos and sin (period,size/2). `scale` (rows,heads).
extern "C" void norm_turn(const bf16 *x, bf16 *out, float *scale, const float *gain, const float *cos, const float *sin,
                          int64_t rows, int64_t heads, int64_t size, int64_t period, float eps, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t h = 0; h < heads; h++) {
            const int64_t at = (i * heads + h), angle = i % period * (size / 2);
            turn(x + at * size, out + at * size, scale + at, gain, cos + angle, sin + angle, size, eps);
        }
}

// d_out: heads `size` apart, rows `d_row` apart; d_x: rows `x_row` apart. d_gain (PARTS,size) must be zero.
extern "C" void norm_turn_backward(const bf16 *d_out, const bf16 *x, const float *scale, const float *gain,
                                   const float *cos, const float *sin, bf16 *d_x, float *d_gain, int64_t rows,
                                   int64_t heads, int64_t size, int64_t period, int64_t x_row, int64_t norm,
                                   int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < PARTS; p++)
        for (int64_t i = Part(p, rows).begin; i < Part(p, rows).end; i++)
            for (int64_t h = 0; h < heads; h++) {
                const int64_t at = i * heads + h, angle = i % period * (size / 2);
                turn_backward(d_out + at * size, x + at * size, d_x + i * x_row + h * size, scale[norm ? at : 0], gain,
                              d_gain + p * size, cos + angle, sin + angle, size, norm);
            }
}

// out = silu(gate) up, or, where `up` is null, relu(gate)^2. All (count).
extern "C" void gate(const bf16 *gate, const bf16 *up, bf16 *out, int64_t count, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i += 16) {
        const __mmask16 m = first16(count - i);
        __m512 g = take16(gate + i, m);
        if (up) g = _mm512_mul_ps(_mm512_mul_ps(g, sigmoid16(g)), take16(up + i, m));
        else g = _mm512_max_ps(g, _mm512_setzero_ps()), g = _mm512_mul_ps(g, g);
        put16(out + i, g, m);
    }
}

// From d_out (count): what came out once more (`out`, for the gradient of the product behind) and the gradients of gate
// and up, which is null where there is none.
extern "C" void gate_backward(const bf16 *d_out, const bf16 *gate, const bf16 *up, bf16 *out, bf16 *d_gate, bf16 *d_up,
                              int64_t count, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i += 16) {
        const __mmask16 m = first16(count - i);
        const __m512 d = take16(d_out + i, m), g = take16(gate + i, m);
        if (!up) {
            const __m512 r = _mm512_max_ps(g, _mm512_setzero_ps());
            put16(out + i, _mm512_mul_ps(r, r), m);
            put16(d_gate + i, _mm512_mul_ps(d, _mm512_add_ps(r, r)), m);
            continue;
        }
        const __m512 u = take16(up + i, m), s = sigmoid16(g), silu = _mm512_mul_ps(g, s);
        const __m512 slope = _mm512_fmadd_ps(silu, _mm512_sub_ps(_mm512_set1_ps(1.0f), s), s);
        put16(out + i, _mm512_mul_ps(silu, u), m);
        put16(d_gate + i, _mm512_mul_ps(_mm512_mul_ps(d, u), slope), m);
        put16(d_up + i, _mm512_mul_ps(d, silu), m);
    }
}
