// The kernels of keep_top_tokens() and top_places() in ops/token_gather.hpp and of keep_above() in
// ops/packed_selection.hpp, for tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include "dynvit/ops/packed_selection.hpp"
#include "dynvit/ops/token_gather.hpp"

namespace dynvit::cuda {

/// @return whether the kernel takes these: on a GPU that the kernels were built for, x contiguous with rows of a
/// multiple of 16 bytes and no gradient wanted, float32 scores of up to 4096 tokens.
/// @param x (B, prefix + n, C), scores (B, n)
bool keep_top_tokens_supports(const at::Tensor& x, const at::Tensor& scores);

/// dynvit::keep_top_tokens() by one kernel, of what keep_top_tokens_supports().
KeptTokens keep_top_tokens(const at::Tensor& x, const at::Tensor& scores, const at::Tensor& positions,
                           std::int64_t count, std::int64_t prefix);

/// @return whether the kernel takes these: on a GPU that the kernels were built for, float32, up to 4096 a row.
/// @param scores (B, n)
bool top_places_supports(const at::Tensor& scores);

/// dynvit::top_places() by one kernel, of what top_places_supports().
at::Tensor top_places(const at::Tensor& scores, std::int64_t count);

/// @return whether the kernels take these: tokens as keep_top_tokens_supports() asks of x, at most 4096 patch tokens a
/// sequence, contiguous float32 probabilities, contiguous positions and sizes.
/// @param log_probability (T)
bool keep_above_supports(const PackedTokens& from, const at::Tensor& log_probability, std::int64_t prefix);

/// dynvit::keep_above() by two kernels, of what keep_above_supports(). Waits for the device once.
PackedTokens keep_above(const PackedTokens& from, const at::Tensor& log_probability, double threshold,
                        std::int64_t prefix);

}  // namespace dynvit::cuda
