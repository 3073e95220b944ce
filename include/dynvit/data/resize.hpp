// Resampling that gives Pillow's values: 8 bits a channel, fixed-point coefficients, rounding after each pass.
#pragma once

#include <string>

#include "dynvit/io/image.hpp"

namespace dynvit {

enum class Filter { kBilinear, kBicubic, kLanczos };

/// The filter that Preprocessing::interpolation names.
Filter filter_of(const std::string& interpolation);

/// Copies a window. Parts outside the picture are black, as torchvision's crop leaves them.
Image crop(const Image& image, const Window& window);

/// A window's pixels where they are. Throws Error for a window that is empty or not inside the picture.
ImageView part(const ImageView& image, const Window& window);

/// Resamples the whole picture to width x height with antialiasing (support grows with the reduction), as Pillow's
/// Image.resize does: a horizontal and a vertical pass, each rounded to 8 bits. The vertical one goes first where the
/// height shrinks by more than twice the pixels that the width does; this is Pillow 13's order, and up to Pillow 12,
/// which always began horizontally, such pictures differ in the last bits. Throws Error for a size outside 1 to 2^28
/// pixels.
Image resize(const ImageView& image, int width, int height, Filter filter = Filter::kBicubic);

/// Resamples what lies in `box`, as Pillow's Image.resize(size, box=box): borders may cut pixels, and the filter also
/// sees the pixels around the box. `mirrored`: the result's columns in the opposite order. Throws Error for a box that
/// is empty or not inside the picture too.
Image resize(const ImageView& image, const SourceBox& box, int width, int height, Filter filter = Filter::kBicubic,
             bool mirrored = false);

/// Resamples so that the shorter side becomes `size`; the longer one int(size * long / short), as torchvision's Resize.
Image resize_short_side(const Image& image, int size, Filter filter = Filter::kBicubic);

/// Resamples at the picture's own aspect ratio so that it just covers width x height. Where these are equal as
/// resize_short_side, else with sides rounded half to even: timm's way before the centre crop of a size that is not
/// square.
Image resize_to_cover(const Image& image, int width, int height, Filter filter = Filter::kBicubic);

/// Whether what resize_to_cover makes of a picture is within the limit of 2^28 pixels: of 1 x 65,000 pixels it is not.
bool cover_fits(const PictureSize& from, int width, int height);

/// The middle width x height pixels, as torchvision's CenterCrop (offsets rounded half to even; black where the picture
/// is smaller).
Image center_crop(const Image& image, int width, int height);

}  // namespace dynvit
