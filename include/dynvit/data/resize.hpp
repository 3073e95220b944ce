// Resampling that gives Pillow's values: 8 bits a channel, fixed-point coefficients, rounding after each pass.
#pragma once

#include "dynvit/io/image.hpp"

namespace dynvit {

enum class Filter { kBilinear, kBicubic };

/// A window of a picture in pixels, [left, left + width) x [top, top + height).
struct Window {
    int left = 0, top = 0, width = 0, height = 0;
};

/// Copies a window. Parts outside the picture are black, as torchvision's crop leaves them.
Image crop(const Image& image, const Window& window);

/// Resamples the whole picture to width x height with antialiasing (support grows with the reduction), as Pillow's
/// Image.resize does: a horizontal and a vertical pass, each rounded to 8 bits. The vertical one goes first where the
/// height shrinks by more than twice the pixels that the width does; this is Pillow 13's order, and up to Pillow 12, which
/// always began horizontally, such pictures differ in the last bits. Throws Error for a size outside 1 to 2^28 pixels.
Image resize(const Image& image, int width, int height, Filter filter = Filter::kBicubic);

/// Resamples so that the shorter side becomes `size`; the longer one int(size * long / short), as torchvision's Resize.
Image resize_short_side(const Image& image, int size, Filter filter = Filter::kBicubic);

/// The middle width x height pixels, as torchvision's CenterCrop (offsets rounded half to even; black where the picture
/// is smaller).
Image center_crop(const Image& image, int width, int height);

}  // namespace dynvit
