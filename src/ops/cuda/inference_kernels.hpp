// The inference kernels for tensors: see ops/patch_rows.hpp, ops/prediction_head.hpp, ops/token_gather.hpp,
// ops/packed_selection.hpp and ops/scaled_rows.hpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "dynvit/ops/packed_selection.hpp"
#include "dynvit/ops/patch_rows.hpp"
#include "dynvit/ops/prediction_head.hpp"
#include "dynvit/ops/scaled_rows.hpp"
#include "dynvit/ops/token_gather.hpp"

namespace dynvit::cuda {

/// Why the kernel does not take patches of this size: it takes multiples of 8. Empty where it does.
std::string why_no_patch_rows(std::int64_t patch_size);

/// False, and nothing written, where the kernel does not take them.
bool write_patch_rows(const at::Tensor& rows, const at::Tensor& images, std::int64_t patch_size,
                      const PixelScaling& scaling);

/// Why the kernels do not take all of a prediction head with an input of so many channels: they take multiples of 32,
/// as the last of its layers has a quarter of them. Empty where they do.
std::string why_no_prediction_head(std::int64_t channels);

/// Changes h in place; false, and nothing changed, where the kernel does not take it.
bool share_mean(const at::Tensor& h, const RowGroups& groups);

/// Undefined where the kernel does not take them.
at::Tensor keep_log_probability(const at::Tensor& z, const at::Tensor& weight, const at::Tensor& bias);

/// Self-attention of few images: see ops/self_attention.hpp. Undefined where they are many or the kernel does not take
/// them.
at::Tensor few_images_attention(const at::Tensor& qkv, std::int64_t heads);

/// Undefined where the kernel does not take x.
ScaledRows quantize_rows(const at::Tensor& x, bool gelu);

bool keep_top_tokens_supports(const at::Tensor& x, const at::Tensor& scores);
KeptTokens keep_top_tokens(const at::Tensor& x, const at::Tensor& scores, const at::Tensor& positions,
                           std::int64_t count, std::int64_t prefix);

bool keep_above_supports(const PackedTokens& from, const at::Tensor& log_probability, std::int64_t prefix);
PackedTokens keep_above(const PackedTokens& from, const at::Tensor& log_probability, double threshold,
                        std::int64_t prefix);

}  // namespace dynvit::cuda
