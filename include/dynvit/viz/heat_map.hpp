// Numbers on the patch grid as a picture: how often each place is kept.
#pragma once

#include <span>

#include "dynvit/io/image.hpp"

namespace dynvit {

/// A square of one colour for each value, from dark blue at 0 over green to light yellow at 1: a cubehelix (Green,
/// 2011, "A colour scheme for the display of astronomical intensity images"), whose brightness 0.30 R + 0.59 G + 0.11 B
/// rises evenly with the value, so that it can be read without colour too. Values outside 0..1 count as the nearer end;
/// one that is not a number is grey. Put the maps of several stages in a row with beside().
/// @param values (grid_height x grid_width), row by row from the top: keep frequencies
/// @param pixels how long the longer side may be; the picture takes what divides evenly, at least a pixel a value
/// Throws Error if there are not as many values as places, or none.
Image draw_heat_map(std::span<const float> values, int grid_height, int grid_width, int pixels = 192);

}  // namespace dynvit
