// Multi-head self-attention without a mask, for inference; among tokens of different sizes, for training too.
#pragma once

#include "dynvit/ops/packed_sequences.hpp"

namespace dynvit {

/// Computes attention among each image's tokens, with logits scaled by 1 / sqrt(d).
/// @param qkv (B, n, 3 C): for each token its query, key and value, each of `heads` times d values
/// @return (B, n, C), of the type of qkv
at::Tensor self_attention(const at::Tensor& qkv, std::int64_t heads);

/// Computes the same where a token stands for several patches and so counts as many times for those that look at it:
/// log(size) is added to its logits ("proportional attention": ToMe, Bolya et al., 2023). Runs where self_attention()
/// does and as fast. With gradients to qkv, if they are asked for: by kernels of our own where masked_self_attention()
/// has them, else by LibTorch's attention.
/// @param sizes (B, n), float32, above 0; undefined: self_attention(qkv, heads)
at::Tensor sized_self_attention(const at::Tensor& qkv, std::int64_t heads, const at::Tensor& sizes);

/// Computes attention among the rows of each packed sequence. On a GPU one kernel works on all sequences (flash
/// attention in half precision, memory-efficient attention in float32).
/// @param qkv (T, 3 C), T the layout's rows; any other number of rows throws c10::Error
/// @return (T, C), of the type of qkv
at::Tensor self_attention(const at::Tensor& qkv, std::int64_t heads, const PackedLayout& layout);

/// Computes the same among tokens of `sizes`, without gradients. On a GPU in float32, or with heads of a size that the
/// kernels do not take, one sequence after another.
/// @param sizes (T), float32, above 0: 1 for a prefix token; undefined: self_attention(qkv, heads, layout)
at::Tensor sized_self_attention(const at::Tensor& qkv, std::int64_t heads, const PackedLayout& layout,
                                const at::Tensor& sizes);

}  // namespace dynvit
