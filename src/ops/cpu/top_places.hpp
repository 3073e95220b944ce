// The highest scores of a row, without sorting it.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

namespace dynvit::cpu {

/// A score and its place as one number; the higher it is, the earlier write_top_places takes the place: first NaN, as
/// sorting does, then higher scores, and of equal ones the lower place.
inline std::uint64_t rank_of(float score, std::int64_t place) {
    constexpr std::uint32_t kSign = 1u << 31;
    std::uint32_t bits = std::bit_cast<std::uint32_t>(score + 0.0f);  // -0 becomes 0
    bits = bits & kSign ? ~bits : bits | kSign;
    if (std::isnan(score)) bits = ~std::uint32_t{0};
    return std::uint64_t{bits} << 32 | ~static_cast<std::uint32_t>(place);
}

/// Writes the places of the `count` highest of a row's scores, ascending. @param places (count)
inline void write_top_places(const float* scores, std::int64_t tokens, std::int64_t count, std::int64_t* places) {
    if (count == 0) return;
    std::vector<std::uint64_t> ranks;
    ranks.reserve(static_cast<std::size_t>(tokens));
    for (std::int64_t i = 0; i < tokens; ++i) ranks.push_back(rank_of(scores[i], i));
    std::vector<std::uint64_t> highest = ranks;
    const auto last = highest.begin() + count - 1;
    std::nth_element(highest.begin(), last, highest.end(), std::greater<>());
    for (std::int64_t i = 0; i < tokens; ++i) {
        if (ranks[static_cast<std::size_t>(i)] >= *last) *places++ = i;
    }
}

}  // namespace dynvit::cpu
