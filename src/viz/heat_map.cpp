#include "dynvit/viz/heat_map.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "dynvit/core/error.hpp"
#include "dynvit/viz/kept_tokens.hpp"

namespace dynvit {
namespace {

using Colour = std::array<std::uint8_t, 3>;

constexpr Colour kNotANumber = {128, 128, 128};
constexpr double kDarkest = 0.08, kLightest = 0.92;  // not black and white, so that a map has edges on either page

/// The brightness rises along the grey diagonal while the hue turns around it from blue to yellow.
Colour colour_of(double value) {
    if (std::isnan(value)) return kNotANumber;
    constexpr double kBlue = 1.0, kYellow = 0.5;  // turns of the hue, where 1/3 is red and 2/3 green
    const double grey = std::lerp(kDarkest, kLightest, std::clamp(value, 0.0, 1.0));
    const double angle = 2 * std::numbers::pi * std::lerp(kBlue, kYellow, grey);
    const double amplitude = grey * (1 - grey) / 2;  // small enough that no part leaves 0..1
    const double along = amplitude * std::cos(angle), across = amplitude * std::sin(angle);
    const std::array<double, 3> rgb = {grey - 0.14861 * along + 1.78277 * across,
                                       grey - 0.29227 * along - 0.90649 * across, grey + 1.97294 * along};
    Colour colour;
    std::transform(rgb.begin(), rgb.end(), colour.begin(),
                   [](double part) { return static_cast<std::uint8_t>(std::lround(255 * part)); });
    return colour;
}

}  // namespace

Image draw_heat_map(std::span<const float> values, int grid_height, int grid_width, int pixels) {
    if (grid_height < 1 || grid_width < 1 || std::ssize(values) != std::ptrdiff_t{grid_height} * grid_width) {
        throw Error("visualize", "heat map: found ", values.size(), " values, expected ", grid_height, " x ",
                    grid_width);
    }
    Image map(grid_width, grid_height);
    for (std::size_t i = 0; i < values.size(); ++i) {
        std::ranges::copy(colour_of(values[i]), map.pixels.begin() + static_cast<std::ptrdiff_t>(3 * i));
    }
    return enlarge(map, std::max(1, pixels / std::max(grid_height, grid_width)));
}

}  // namespace dynvit
