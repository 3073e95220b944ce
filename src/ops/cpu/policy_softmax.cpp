#include "policy_softmax.hpp"

#include <algorithm>

#include "dynvit/ops/masked_attention.hpp"

// The loops below are compiled twice, for AVX2 and for any processor of the kind, and chosen when the program runs.
#if defined(__x86_64__) && defined(__GNUC__)
#define DYNVIT_FOR_AVX2 __attribute__((target("avx2,fma")))
#define DYNVIT_INLINE __attribute__((always_inline)) inline
#endif

namespace dynvit::cpu {
namespace {

#ifndef DYNVIT_INLINE
#define DYNVIT_INLINE inline
#endif

constexpr auto kEpsilon = static_cast<float>(kPolicyEpsilon);

DYNVIT_INLINE void forward(const float* softmax, const float* policy, std::int64_t n, float* probabilities,
                           float* row_sum) {
    for (std::int64_t i = 0; i < n; ++i) {
        const float* p = softmax + i * n;
        float* a = probabilities + i * n;
        float sum = 0, greatest = 0;
#pragma omp simd reduction(+ : sum) reduction(max : greatest)
        for (std::int64_t j = 0; j < n; ++j) {
            sum += p[j] * policy[j];
            greatest = std::max(greatest, p[j]);
        }
        sum += p[i] * (1 - policy[i]) + kEpsilon * greatest;  // a token always sees itself
        const float inverse = 1 / sum, floor = kEpsilon * greatest / static_cast<float>(n);
#pragma omp simd
        for (std::int64_t j = 0; j < n; ++j) a[j] = (p[j] * policy[j] + floor) * inverse;
        a[i] = (p[i] + floor) * inverse;
        row_sum[i] = sum;
    }
}

DYNVIT_INLINE void backward(const float* to_probabilities, const float* softmax, const float* policy,
                            const float* row_sum, std::int64_t n, float* to_logits, float* to_policy) {
    for (std::int64_t i = 0; i < n; ++i) {
        const float *p = softmax + i * n, *d = to_probabilities + i * n;
        float* gradient = to_logits + i * n;
        float mean = 0, greatest = 0, unweighted = 0;
#pragma omp simd reduction(+ : mean, unweighted) reduction(max : greatest)
        for (std::int64_t j = 0; j < n; ++j) {
            mean += d[j] * p[j] * policy[j];
            unweighted += d[j];
            greatest = std::max(greatest, p[j]);
        }
        const float inverse = 1 / row_sum[i], floor = kEpsilon * greatest / static_cast<float>(n);
        mean = (mean + d[i] * p[i] * (1 - policy[i]) + floor * unweighted) * inverse;
        float total = 0;
#pragma omp simd reduction(+ : total)
        for (std::int64_t j = 0; j < n; ++j) {
            gradient[j] = (d[j] - mean) * inverse * p[j] * policy[j];
            total += gradient[j];
        }
        const float own = (d[i] - mean) * inverse * p[i];
        total += own - gradient[i];
        gradient[i] = own;
        const std::int64_t peak = std::find(p, p + n, greatest) - p;
        if (peak < n) gradient[peak] -= total;  // the way through the row's maximum; a row of NaN has none
        if (!to_policy) continue;
        const float before = to_policy[i];
#pragma omp simd
        for (std::int64_t j = 0; j < n; ++j) to_policy[j] += (d[j] - mean) * inverse * p[j];
        to_policy[i] = before;  // a token sees itself whatever the policy says
    }
}

#ifdef DYNVIT_FOR_AVX2
DYNVIT_FOR_AVX2 void forward_avx2(const float* softmax, const float* policy, std::int64_t n, float* probabilities,
                                  float* row_sum) {
    forward(softmax, policy, n, probabilities, row_sum);
}
DYNVIT_FOR_AVX2 void backward_avx2(const float* to_probabilities, const float* softmax, const float* policy,
                                   const float* row_sum, std::int64_t n, float* to_logits, float* to_policy) {
    backward(to_probabilities, softmax, policy, row_sum, n, to_logits, to_policy);
}
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

}  // namespace

void policy_softmax_forward(const float* softmax, const float* policy, std::int64_t tokens, float* probabilities,
                            float* row_sum) {
#ifdef DYNVIT_FOR_AVX2
    if (has_avx2()) return forward_avx2(softmax, policy, tokens, probabilities, row_sum);
#endif
    forward(softmax, policy, tokens, probabilities, row_sum);
}

void policy_softmax_backward(const float* to_probabilities, const float* softmax, const float* policy,
                             const float* row_sum, std::int64_t tokens, float* to_logits, float* to_policy) {
#ifdef DYNVIT_FOR_AVX2
    if (has_avx2()) return backward_avx2(to_probabilities, softmax, policy, row_sum, tokens, to_logits, to_policy);
#endif
    backward(to_probabilities, softmax, policy, row_sum, tokens, to_logits, to_policy);
}

}  // namespace dynvit::cpu
