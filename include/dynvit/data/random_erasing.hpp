// Random erasing (Zhong et al., 2020) as timm does it, on pictures of bytes instead of normalized ones.
#pragma once

#include <array>
#include <optional>

#include "dynvit/core/random.hpp"
#include "dynvit/data/resize.hpp"
#include "dynvit/io/preprocessing.hpp"

namespace dynvit {

/// What an erased box holds.
enum class EraseMode {
    kConst,  // the mean colour: what normalization turns to 0, but for rounding to bytes
    kPixel,  // noise, each value by itself: what normalization turns to a standard normal one. Bytes end at 0 and 255
             // (ImageNet's: 1.8 to 2.1 standard deviations below the mean and 2.2 to 2.6 above); noise beyond is
             // clamped
};

struct RandomErasing {
    double probability = 0.25;
    EraseMode mode = EraseMode::kPixel;
    std::array<double, 2> area = {0.02, 1.0 / 3.0};   // of the picture's
    std::array<double, 2> aspect = {0.3, 1.0 / 0.3};  // height / width, log-uniform
    std::array<double, 3> mean = kImageNetMean, std = kImageNetStd;
};

/// The box that is erased of a width x height picture: of ten random ones the first that is smaller than the picture
/// both ways; nothing where none is. It may be empty, where a side rounds to 0.
std::optional<Window> random_box(int width, int height, const RandomErasing& erasing, Random& random);

/// Erases one box with the probability that `erasing` says.
Image apply(const RandomErasing& erasing, Image image, Random& random);

}  // namespace dynvit
