// Picking tokens out of a batch of sequences.
#pragma once

#include <ATen/core/Tensor.h>

namespace dynvit {

/// Row b of the result holds tokens[b][indices[b][0]], tokens[b][indices[b][1]], ...
/// @param tokens (B, n, C); @param indices (B, k), int64, each in [0, n)
/// @return (B, k, C), contiguous
at::Tensor gather_tokens(const at::Tensor& tokens, const at::Tensor& indices);

/// The places of the `count` highest scores of each row, in ascending order of place; among equal scores the lower
/// place comes first.
/// @param scores (B, n); @param count between 0 and n
/// @return (B, count), int64
at::Tensor top_places(const at::Tensor& scores, std::int64_t count);

struct KeptTokens {
    at::Tensor tokens;     // (B, prefix + k, C): the prefix tokens and the kept ones
    at::Tensor positions;  // (B, k), int64: theirs
};

/// The prefix tokens and, in their order, the `count` patch tokens with the highest scores: top_places and
/// gather_tokens; where no gradient is wanted and the scores are float32, without sorting on the processor and as one
/// kernel on a GPU that the CUDA kernels were built for.
/// @param x (B, prefix + n, C); @param scores (B, n); @param positions (B, n), int64: a name for each patch token
/// @param prefix tokens in front that always stay: [CLS], registers
KeptTokens keep_top_tokens(const at::Tensor& x, const at::Tensor& scores, const at::Tensor& positions,
                           std::int64_t count, std::int64_t prefix = 1);

}  // namespace dynvit
