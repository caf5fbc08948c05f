// The choice of the next token in one call: temperature, top-k, top-p and min-p, and inversion of what is left.
//
// It draws what generate/sampling.py draws for the same noise, up to rounding, without a sort of the vocabulary: how
// far down a filter goes is counted in bins of the weights' own bits, and only the last bin is sorted.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "amx.hpp"
#include "lanes.hpp"

struct Sampling {
    double temperature;
    int64_t top_k;
    double top_p, min_p;
};

namespace {

constexpr int64_t BLOCK_SIZE = 64;        // weights that are passed over together
// Of a weight's bits, which are in the order of the weights: 16 bins a doubling.
constexpr int SHIFT = 19, BINS = 1 << 12;

thread_local Scratch of_row;

// weights (v) = exp((logits - most) / temperature), with zeros up to a whole block; returns their sum.
double weigh(float *weights, const float *logits, int64_t v, float most, double temperature) {
    const __m512 by = _mm512_set1_ps(float(1 / temperature)), top = _mm512_set1_ps(most);
    double whole = 0;
    for (int64_t block = 0; block < v; block += BLOCK_SIZE) {
        __m512 sum = _mm512_setzero_ps();
        for (int64_t k = block; k < block + BLOCK_SIZE; k += 16) {
            const __mmask16 mask = first16(v - k);
            const __m512 x = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, logits + k), top), by);
            const __m512 w = _mm512_maskz_mov_ps(mask, exp16(x));
            _mm512_store_ps(weights + k, w);
            sum = _mm512_add_ps(sum, w);
        }
        whole += _mm512_reduce_add_ps(sum);
    }
    return whole;
}

uint32_t bits(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    return b;
}

// Zero all but the heaviest weights: those that come before `count` of them and before a mass of `aim` are reached.
void keep(float *weights, int64_t v, int64_t count, double aim) {
    std::vector<double> mass(BINS);
    std::vector<int64_t> number(BINS);
    for (int64_t i = 0; i < v; i++) {
        const uint32_t bin = bits(weights[i]) >> SHIFT;
        mass[bin] += weights[i];
        number[bin]++;
    }
    int64_t bin = BINS - 1, before = 0;
    double above = 0;
    for (; bin > 0 && before + number[bin] <= count && above + mass[bin] < aim; bin--)
        before += number[bin], above += mass[bin];
    std::vector<int64_t> last;
    for (int64_t i = 0; i < v; i++) {
        const int64_t mine = bits(weights[i]) >> SHIFT;
        if (mine == bin) last.push_back(i);
        else if (mine < bin) weights[i] = 0;
    }
    std::stable_sort(last.begin(), last.end(), [&](int64_t a, int64_t b) { return weights[a] > weights[b]; });
    for (int64_t i : last) {
        const bool stays = before < count && above < aim;
        before++, above += weights[i];
        if (!stays) weights[i] = 0;
    }
}

double total(const float *weights, int64_t from, int64_t end) {
    __m512d sum = _mm512_setzero_pd();
    for (int64_t k = from; k < end; k += 8) sum = _mm512_add_pd(sum, _mm512_cvtps_pd(_mm256_load_ps(weights + k)));
    return _mm512_reduce_add_pd(sum);
}

// The first token at which the running sum exceeds noise times the whole; never one of weight 0.
int64_t invert(const float *weights, int64_t v, double noise) {
    const int64_t padded = up(v, BLOCK_SIZE);
    double aim = noise * total(weights, 0, padded), below = 0;
    int64_t last = 0, block = 0;
    for (; block < padded; block += BLOCK_SIZE) {
        const double own = total(weights, block, block + BLOCK_SIZE);
        if (own > 0) last = block;
        if (below + own > aim) break;
        below += own;
    }
    if (block >= padded) block = last;  // rounding has lifted the aim past every weight
    int64_t found = block;
    for (int64_t i = block; i < block + BLOCK_SIZE; i++) {
        if (weights[i] <= 0) continue;
        found = i;
        below += weights[i];
        if (below > aim) break;
    }
    return found;
}

float most_of(const float *x, int64_t v) {
    __m512 most = _mm512_set1_ps(-INFINITY);
    for (int64_t k = 0; k < v; k += 16)
        most = _mm512_mask_max_ps(most, first16(v - k), most, _mm512_maskz_loadu_ps(first16(v - k), x + k));
    return _mm512_reduce_max_ps(most);
}

void one(int64_t *id, float *logprob, const float *logits, int64_t v, double noise, const Sampling &s) {
    float *weights = of_row.get<float>(up(v, BLOCK_SIZE));
    const float most = most_of(logits, v);
    const double temperature = s.temperature > 0 ? s.temperature : 1;
    const double whole = weigh(weights, logits, v, most, temperature);
    if (s.temperature == 0) {
        *id = std::min<int64_t>(std::find(logits, logits + v, most) - logits, v - 1);  // none where all is NaN
    } else {
        if (s.top_k > 0 && s.top_k < v) keep(weights, v, s.top_k, INFINITY);
        if (s.top_p < 1) keep(weights, v, v, s.top_p * total(weights, 0, up(v, BLOCK_SIZE)));
        for (int64_t i = 0; s.min_p > 0 && i < v; i++)  // the heaviest weighs 1
            if (weights[i] < float(s.min_p)) weights[i] = 0;
        *id = invert(weights, v, noise);
    }
    *logprob = float((double(logits[*id]) - most) / temperature - std::log(whole));
}

}  // namespace

// A token and its log-probability, before any filter, for each row of logits (rows, v).
extern "C" void sample(int64_t *ids, float *logprobs, const float *logits, const double *noise,
                       const Sampling *sampling, int64_t rows, int64_t v, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < rows; i++) one(ids + i, logprobs + i, logits + i * v, v, noise[i], *sampling);
}
