// The policy softmax for the processor: raw float rows. See ops/masked_attention.hpp for the formula.
#pragma once

#include <cstdint>

namespace dynvit::cpu {

/// One head of one image. With p the plain softmax of a row, whose greatest value is 1 / sum_k exp(P_ik - max), every
/// quantity of the policy softmax follows without another exponential.
/// @param softmax p, (N, N); @param policy (N)
/// @param probabilities A, (N, N); @param row_sum (N): sum_k p_ik G_ik + eps max_k p_ik
void policy_softmax_forward(const float* softmax, const float* policy, std::int64_t tokens, float* probabilities,
                            float* row_sum);

/// @param to_probabilities dA, (N, N); @param to_logits dP, (N, N)
/// @param to_policy (N), added to; null if it is not wanted
void policy_softmax_backward(const float* to_probabilities, const float* softmax, const float* policy,
                             const float* row_sum, std::int64_t tokens, float* to_logits, float* to_policy);

}  // namespace dynvit::cpu
