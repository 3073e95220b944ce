// Multi-head self-attention without a mask, for inference.
#pragma once

#include "dynvit/ops/packed_sequences.hpp"

namespace dynvit {

/// Attention among each image's tokens, scaled by 1 / sqrt(d).
/// @param qkv (B, n, 3 C): for each token its query, key and value, each of `heads` times d values
/// @return (B, n, C)
at::Tensor self_attention(const at::Tensor& qkv, std::int64_t heads);

/// The same among each packed sequence's rows: (T, 3 C) -> (T, C). On a GPU one kernel for all sequences (flash
/// attention in half precision, memory-efficient attention in float32).
at::Tensor self_attention(const at::Tensor& qkv, std::int64_t heads, const PackedLayout& layout);

}  // namespace dynvit
