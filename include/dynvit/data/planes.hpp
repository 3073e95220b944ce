// From a picture's interleaved bytes to the network's planes.
#pragma once

#include "dynvit/io/image.hpp"

namespace dynvit {

/// Copies red, green and blue into planes of their own. @param planes room for 3 x height x width
void copy_to_planes(const Image& image, std::uint8_t* planes);

}  // namespace dynvit
