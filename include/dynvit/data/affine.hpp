// Rotated, sheared and shifted pictures, with the values that Pillow gives. None changes a picture's size; what comes
// from outside the picture is filled with one colour.
#pragma once

#include "dynvit/data/resize.hpp"
#include "dynvit/data/rgb.hpp"

namespace dynvit {

/// Where a point (x, y) of the result comes from: (xx x + xy y + x0, yx x + yy y + y0). Pixel (i, j) has its middle at
/// (i + 0.5, j + 0.5).
struct Affine {
    double xx = 1, xy = 0, x0 = 0;
    double yx = 0, yy = 1, y0 = 0;
};

/// Pillow's Image.transform(size, AFFINE, ...): points are computed and interpolated in double, the fraction is
/// dropped. Bilinear looks at 2 x 2 pixels; bicubic at 4 x 4, with Keys' kernel of a = -1 (unlike Image.resize's -0.5).
/// At a border the outermost pixels are repeated; points outside the picture become `fill`.
Image affine(const Image& image, const Affine& map, Filter filter, Rgb fill = kImageNetMeanRgb);

/// Turns the picture about its middle, counter-clockwise, as Image.rotate does.
Image rotate(const Image& image, double degrees, Filter filter, Rgb fill = kImageNetMeanRgb);

/// Each row comes from `factor` times its y further right.
Image shear_x(const Image& image, double factor, Filter filter, Rgb fill = kImageNetMeanRgb);

/// Each column comes from `factor` times its x further down.
Image shear_y(const Image& image, double factor, Filter filter, Rgb fill = kImageNetMeanRgb);

/// Each pixel comes from `share` of the width further right.
Image translate_x(const Image& image, double share, Filter filter, Rgb fill = kImageNetMeanRgb);

/// Each pixel comes from `share` of the height further down.
Image translate_y(const Image& image, double share, Filter filter, Rgb fill = kImageNetMeanRgb);

}  // namespace dynvit
