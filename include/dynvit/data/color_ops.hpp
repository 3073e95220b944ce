// Operations on a picture's colours, each with the values that Pillow gives. None changes a picture's size, and any
// size will do. Pictures come by value: who no longer needs one moves it in, and it is changed in place.
#pragma once

#include "dynvit/io/image.hpp"

namespace dynvit {

// ImageOps of Pillow: each byte is looked up in a table.

/// Stretches each channel so that its darkest value becomes 0 and its lightest 255. A channel of one value stays.
Image auto_contrast(Image image);

/// Spreads each channel's values so that its histogram becomes as flat as may be. A channel of one value stays, and one
/// that has fewer than 255 values below its highest.
Image equalize(Image image);

/// 255 minus each value.
Image invert(Image image);

/// Keeps the highest `bits` bits of each value; 8 and more keep all, 0 and less leave black (as Pillow's
/// formula says, though Pillow 13 refuses 0).
Image posterize(Image image, int bits);

/// Inverts values of at least `threshold`.
Image solarize(Image image, int threshold);

/// Adds `add` to values below 128, up to 255. This is timm's own operation.
Image solarize_add(Image image, int add);

// ImageEnhance of Pillow: in between a degenerate picture (factor 0) and the picture itself (factor 1), or beyond it;
// computed in float, clamped to 0 ... 255, the fraction dropped. The factor is a finite number.

/// Saturation. Degenerate: the grey picture, by ITU-R 601-2's luma in 16-bit fixed point.
Image adjust_color(Image image, double factor);

/// Degenerate: all pixels have the grey picture's mean, rounded.
Image adjust_contrast(Image image, double factor);

/// Degenerate: black.
Image adjust_brightness(Image image, double factor);

/// Degenerate: each pixel but those of the border is the mean of itself (five times) and its eight neighbours.
Image adjust_sharpness(const Image& image, double factor);

}  // namespace dynvit
