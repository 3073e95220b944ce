// Attention in which dropped tokens are seen by nobody but themselves: the differentiable stand-in for removing them.
#pragma once

#include <ATen/core/Tensor.h>

#include "dynvit/ops/constants.hpp"

namespace dynvit {

/// Computes the softmax in which a policy says which tokens are seen: the definition (DynamicViT, Rao et al. 2021,
/// "attention masking"), for any device, differentiated by autograd:
///     G_ij = 1 if i == j else policy_j
///     A_ij = (exp(P_ij - max_k P_ik) G_ij + eps / N) / (sum_k exp(P_ik - max) G_ik + eps),  eps = kPolicyEpsilon
/// Computed in float32 whatever the input's type (float64 stays float64).
/// @param logits P, (B, heads, N, N)
/// @param policy (B, N): 1 for a token that all others see, 0 for a dropped one; [CLS] is 1
/// @return A, (B, heads, N, N), float32 (float64 for float64 logits)
at::Tensor policy_softmax_plain(const at::Tensor& logits, const at::Tensor& policy);

/// Computes the same values and the same gradients (to the logits and to the policy, for kept and dropped tokens alike)
/// with a backward pass of its own: by fused loops on the processor (float32), by one kernel each way on a GPU that the
/// CUDA kernels were built for, by tensor operations elsewhere. Throws c10::Error for other shapes than those above.
/// @return A, (B, heads, N, N), in the logits' type
at::Tensor policy_softmax(const at::Tensor& logits, const at::Tensor& policy);

/// Computes policy_softmax(scale Q K^T, policy) V.
/// @param query, key, value (B, heads, N, head_dim); @param policy (B, N)
/// @param scale usually 1 / sqrt(head_dim)
/// @return (B, heads, N, head_dim)
at::Tensor masked_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const at::Tensor& policy, double scale);

/// Computes masked_attention() of all heads straight from the qkv projection, with scale 1 / sqrt(head_dim). In float16
/// and bfloat16 on a GPU that the CUDA kernels were built for, where why_no_attention_kernel() gives no reason, it runs
/// by one fused kernel forward and one or two backward, which keep no (N, N) matrix; elsewhere by masked_attention(),
/// or by LibTorch's attention where there is no policy. Throws c10::Error for other shapes than these:
/// @param qkv (B, N, 3 C): q, k, v, each heads x head_dim
/// @param policy (B, N); undefined: plain attention
/// @return (B, N, C)
at::Tensor masked_self_attention(const at::Tensor& qkv, const at::Tensor& policy, std::int64_t heads);

}  // namespace dynvit
