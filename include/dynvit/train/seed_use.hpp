// One seed, many independent streams of random numbers.
#pragma once

#include "dynvit/core/random.hpp"

namespace dynvit {

/// What a stream is for; the numbers only have to differ.
enum class SeedUse : std::uint64_t { kWeights = 1, kData, kNoise, kPolicy, kMix, kRatio };

/// The seed of a stream, and of one of its members where there are several (a step's, say).
template <class... Members>
std::uint64_t seed_for(std::int64_t seed, SeedUse use, Members... members) {
    return mix_seed(
        {static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(use), static_cast<std::uint64_t>(members)...});
}

}  // namespace dynvit
