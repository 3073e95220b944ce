// In which order an epoch visits a data set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace dynvit {

/// Every index below `samples` once, in an order that depends on the arguments alone, so that a resumed epoch finds it
/// again.
///
/// Without shards, or with a window of 0 or of at least `samples`: a uniform permutation. Else the shards are put in
/// random order and the stream of their samples, each shard from its start to its end, is shuffled within a window: no
/// sample comes `window` or more places before or after its place in the stream. So at any time only samples of about
/// 2 window / shard size files are read.
/// @param shard_sizes samples a shard, in index order; their sum is `samples`; empty where the data set has no shards
/// @param window samples
std::vector<std::size_t> training_order(std::size_t samples, const std::vector<std::size_t>& shard_sizes,
                                        std::int64_t window, std::uint64_t seed, std::int64_t epoch);

}  // namespace dynvit
