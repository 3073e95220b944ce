// Picking tokens out of a batch of sequences.
#pragma once

#include <ATen/core/Tensor.h>

namespace dynvit {

/// Picks tokens of each sequence: row b of the result holds tokens[b][indices[b][0]], tokens[b][indices[b][1]], ...
/// @param tokens (B, n, C); @param indices (B, k), int64, each in [0, n)
/// @return (B, k, C), contiguous
at::Tensor gather_tokens(const at::Tensor& tokens, const at::Tensor& indices);

/// Finds the places of the `count` highest scores of each row; of equal scores the one at the lower place counts as the
/// higher, and NaN is higher than any number. Scores of float32 it does not sort, neither on the processor nor, up to
/// 4096 a row, on a GPU that the CUDA kernels were built for.
/// @param scores (B, n); @param count between 0 and n
/// @return (B, count), int64, ascending in each row
at::Tensor top_places(const at::Tensor& scores, std::int64_t count);

struct KeptTokens {
    at::Tensor tokens;     // (B, prefix + k, C): the prefix tokens, then the k patch tokens that were kept
    at::Tensor positions;  // (B, k), int64: the names of the patch tokens that were kept
};

/// Keeps the prefix tokens and, in their order, the `count` patch tokens with the highest scores, as top_places() and
/// gather_tokens() define it. Where no gradient is wanted and the scores are float32, it does so without sorting on the
/// processor, and by one kernel on a GPU that the CUDA kernels were built for.
/// @param x (B, prefix + n, C); @param scores (B, n); @param positions (B, n), int64: a name for each patch token
/// @param count between 0 and n
/// @param prefix number of tokens in front that always stay: [CLS], registers
KeptTokens keep_top_tokens(const at::Tensor& x, const at::Tensor& scores, const at::Tensor& positions,
                           std::int64_t count, std::int64_t prefix = 1);

}  // namespace dynvit
