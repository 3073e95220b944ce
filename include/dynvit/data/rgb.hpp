// One 8-bit colour, and the one that training fills gaps with.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "dynvit/data/transforms.hpp"

namespace dynvit {

using Rgb = std::array<std::uint8_t, 3>;

/// ImageNet's mean colour in bytes, (124, 116, 104): what normalization turns to about 0.
inline constexpr Rgb kImageNetMeanRgb = [] {
    Rgb mean = {};
    for (std::size_t c = 0; c < 3; ++c) mean[c] = static_cast<std::uint8_t>(255 * kImageNetMean[c] + 0.5f);
    return mean;
}();

}  // namespace dynvit
