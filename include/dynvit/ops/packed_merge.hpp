// Merging in packed sequences: what was not kept of a sequence is averaged into what was, or fused into one token more.
#pragma once

#include "dynvit/ops/packed_selection.hpp"

namespace dynvit {

/// Lets each patch token of `from` that was not kept join the kept one of its own sequence with the most similar
/// metric, where their cosine is above the threshold; of equally similar ones the first. See join_nearest and
/// average_groups of token_merge.hpp. Tokens that join none are deleted, as are all of a sequence that keeps none.
/// @param from with positions that ascend in each sequence, each one there once
/// @param kept what keep_above(from, ...) returned
/// @param metric (T, d): what is compared, a row for each token of `from`; those of prefix tokens are not read
/// @param threshold in [-1, 1]: 1 merges nothing, below -1 everything
/// @return `kept`, with means for its tokens and with their sizes
PackedTokens merge_dropped_plain(const PackedTokens& from, const PackedTokens& kept, const at::Tensor& metric,
                                 double threshold, std::int64_t prefix = 1);

/// The same, by kernels on a GPU that the CUDA kernels were built for, where join_nearest and average_groups have
/// kernels for tokens and metrics like these and no gradient is wanted. They do not wait for the GPU.
PackedTokens merge_dropped(const PackedTokens& from, const PackedTokens& kept, const at::Tensor& metric,
                           double threshold, std::int64_t prefix = 1);

/// The name of the first sequence's fused token, and from it to the next sequence's. A sequence's must be greater than
/// all others in it.
struct FusedNames {
    std::int64_t first = 0, step = 0;
};

/// Puts one token behind the kept ones of each sequence that did not keep all of its own: the sum of the others, each
/// times its share of the sequence's probabilities. See fuse_dropped of token_merge.hpp.
/// @param from with positions as above, without sizes
/// @param kept what keep_above(from, ...) returned, with the probabilities
/// @return `kept` with these tokens
PackedTokens fuse_dropped_plain(const PackedTokens& from, const PackedTokens& kept, const FusedNames& names,
                                std::int64_t prefix = 1);

/// The same, by kernels on a GPU that the CUDA kernels were built for, where average_groups has one for tokens like
/// these and no gradient is wanted.
PackedTokens fuse_dropped(const PackedTokens& from, const PackedTokens& kept, const FusedNames& names,
                          std::int64_t prefix = 1);

}  // namespace dynvit
