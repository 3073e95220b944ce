// The policy softmax kernels for tensors. See ops/masked_attention.hpp for the formula.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace dynvit::cuda {

/// @return whether the kernels take these logits: on a GPU, float32, float16 or bfloat16, N at most 1536.
bool policy_softmax_supports(const at::Tensor& logits);

/// Computes the softmax. @param logits (B, heads, N, N), that policy_softmax_supports(); policy (B, N)
/// @return A, (B, heads, N, N), in the logits' type; the rows' maxima and sums, (B, heads, N, 1) float32
std::tuple<at::Tensor, at::Tensor, at::Tensor> policy_softmax_forward(const at::Tensor& logits,
                                                                      const at::Tensor& policy);

/// Computes the gradients. @param to_probabilities (B, heads, N, N): the gradient of A; the others: what
/// policy_softmax_forward() was given and returned
/// @return the gradients of the logits and of the policy (undefined unless wanted), of their shapes
std::tuple<at::Tensor, at::Tensor> policy_softmax_backward(const at::Tensor& to_probabilities, const at::Tensor& logits,
                                                           const at::Tensor& policy, const at::Tensor& row_max,
                                                           const at::Tensor& row_sum, bool wants_policy);

}  // namespace dynvit::cuda
