// What some Vision Transformers do with attention's heads beside self-attention itself.
#pragma once

#include "dynvit/ops/packed_sequences.hpp"

namespace dynvit {

/// A layer norm over a head's channels, the same for all heads.
struct HeadNorm {
    at::Tensor weight, bias;  // (d)
    double epsilon;
};

/// Norms each head's queries and keys. @param qkv (..., 3 C), C = heads x d @return the same shape and type
at::Tensor norm_queries_keys(const at::Tensor& qkv, const HeadNorm& q_norm, const HeadNorm& k_norm);

/// Norms each head's keys. @param keys (..., C) @return their mean over the heads, (..., d)
at::Tensor mean_normed_keys(const at::Tensor& keys, const HeadNorm& k_norm);

/// Multi-head attention of one query: softmax(q K^T / sqrt(d)) V, where a token counts as often as `counts` says.
/// @param query (1, C), the same for all images; kv (B, n, 2 C)
/// @param counts (B, n), 0 or at least 1, not all 0 in an image; gradients flow into it; undefined: 1 each
/// @return (B, C), of the type of kv
at::Tensor pooled_attention(const at::Tensor& query, const at::Tensor& kv, std::int64_t heads,
                            const at::Tensor& counts = {});
/// The same of packed sequences. @param kv (T, 2 C); counts (T) @return (B, C)
at::Tensor packed_pooled_attention(const at::Tensor& query, const at::Tensor& kv, std::int64_t heads,
                                   const PackedLayout& layout, const at::Tensor& counts = {});

}  // namespace dynvit
