// Random brightness, contrast and saturation, as torchvision's ColorJitter(x, x, x).
#pragma once

#include "dynvit/core/random.hpp"
#include "dynvit/io/image.hpp"

namespace dynvit {

/// Changes brightness, contrast and saturation, in random order, each by a factor drawn uniformly from
/// [max(0, 1 - strength), 1 + strength]. Strength 0 changes nothing, and draws as many random numbers. Keeps the size.
Image color_jitter(Image image, double strength, Random& random);

}  // namespace dynvit
