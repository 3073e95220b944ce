// The kernels of ops/token_merge.hpp and ops/packed_merge.hpp, for tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include "dynvit/ops/packed_merge.hpp"
#include "dynvit/ops/token_merge.hpp"

namespace dynvit::cuda {

/// @return whether the kernels compare these: on a GPU that they were built for, float32, float16 or bfloat16, 1 to
/// 4096 tokens an image, d a multiple of 8 up to 128.
/// @param metric (B, n, d)
bool compares(const at::Tensor& metric);

/// dynvit::join_nearest() by one kernel, of what the kernels compare.
TokenGroups join_nearest(const at::Tensor& places, const at::Tensor& metric, double threshold);

/// dynvit::match_bipartite() by two kernels, of what the kernels compare; at least one token must join another.
TokenGroups match_bipartite(const at::Tensor& metric, std::int64_t count, std::int64_t prefix);

/// @return whether the kernel takes these: on a GPU that it was built for, float32, float16 or bfloat16, contiguous
/// with rows of a multiple of 16 bytes, at most 4096 patch tokens an image. Gradients do not follow.
/// @param x (B, prefix + n, C)
bool average_groups_supports(const at::Tensor& x, std::int64_t prefix);

/// dynvit::average_groups() by one kernel, of what average_groups_supports().
TokenBatch average_groups(const TokenBatch& from, const TokenGroups& groups, std::int64_t prefix);

/// dynvit::fuse_dropped() by one kernel, of an x that average_groups_supports().
FusedTokens fuse_dropped(const TokenBatch& from, const at::Tensor& places, const at::Tensor& weights, std::int64_t name,
                         std::int64_t prefix);

/// @return whether the kernels take these: x and metric as above, contiguous names, and no gradient wanted.
/// @param metric (T, d)
bool merge_dropped_supports(const PackedTokens& from, const at::Tensor& metric, std::int64_t prefix);

/// dynvit::merge_dropped() by three kernels, of what merge_dropped_supports().
PackedTokens merge_dropped(const PackedTokens& from, const PackedTokens& kept, const at::Tensor& metric,
                           double threshold, std::int64_t prefix);

/// @return whether the kernels take these: x as above, contiguous names, and no gradient wanted.
bool fuse_dropped_supports(const PackedTokens& from, std::int64_t prefix);

/// dynvit::fuse_dropped() of sequences by two kernels, of what fuse_dropped_supports(). @param layout of the result
PackedTokens fuse_dropped(const PackedTokens& from, const PackedTokens& kept, const PackedLayout& layout,
                          const FusedNames& names, std::int64_t prefix);

}  // namespace dynvit::cuda
