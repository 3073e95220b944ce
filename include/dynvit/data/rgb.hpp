// One 8-bit colour, and the one that training fills gaps with.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "dynvit/io/preprocessing.hpp"

namespace dynvit {

using Rgb = std::array<std::uint8_t, 3>;

/// A mean colour in bytes: what normalization turns to about 0.
constexpr Rgb rgb_of(const std::array<double, 3>& mean) {
    Rgb rgb = {};
    for (std::size_t c = 0; c < 3; ++c) rgb[c] = static_cast<std::uint8_t>(255 * mean[c] + 0.5);
    return rgb;
}

inline constexpr Rgb kImageNetMeanRgb = rgb_of(kImageNetMean);  // (124, 116, 104)

}  // namespace dynvit
