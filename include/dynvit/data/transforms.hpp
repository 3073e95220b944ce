// From a decoded picture to the network's input size. The pixel values stay 8-bit: normalization happens on the device.
#pragma once

#include <array>

#include "dynvit/core/random.hpp"
#include "dynvit/data/dataset.hpp"
#include "dynvit/data/resize.hpp"
#include "dynvit/data/window_decoder.hpp"
#include "dynvit/io/preprocessing.hpp"

namespace dynvit {

/// Evaluation: short side to `resize` pixels (0: int(width / crop_pct)), centre crop of width x height; where that is
/// no square, resized to cover size_to_cover() in place of it. Or `squash`, straight to width x height.
struct EvalTransform {
    int width = 224;
    int height = 224;
    int resize = 0;
    double crop_pct = 0.875;
    bool squash = false;
    Filter filter = Filter::kBicubic;
};

/// What evaluation does to pictures for a model of this size.
EvalTransform eval_transform(const Preprocessing& preprocessing, std::int64_t height, std::int64_t width);

/// Training: a random window of `scale` of the area and an aspect ratio of `ratio`, resized; mirrored with probability
/// `flip`. As torchvision's RandomResizedCrop: ten tries, then the largest window of a legal shape.
/// A window of at least twice the size asked for comes from a JPEG decoded at a reduced scale (see decode_window);
/// every pixel is decoded, and the values are Pillow's, with `exact_decode`.
struct TrainTransform {
    int width = 224;
    int height = 224;
    std::array<double, 2> scale = {0.08, 1.0};
    std::array<double, 2> ratio = {3.0 / 4.0, 4.0 / 3.0};
    double flip = 0.5;
    bool exact_decode = false;
    Filter filter = Filter::kBicubic;
};

/// Returns the crop as the network takes it: 8-bit, transform.width x height, with as many colours as the image.
Image apply(const EvalTransform& transform, const Image& image);
/// The same; an Error names a picture that is too long to be resized, such as one of 1 x 65,000 pixels.
Image apply(const EvalTransform& transform, const Image& image, const std::string& name);
/// Returns a random crop of that size. @param random draws the window, and then whether it is mirrored
Image apply(const TrainTransform& transform, const Image& image, Random& random);

/// The same for a picture that may not be decoded yet, of which only what is needed is decoded. The random numbers, and
/// so window and mirroring, are those of the decoded picture. Throws Error naming the sample where its file is no valid
/// picture.
/// @param decoder for the transform's size: gets the picture first, and what it does not take is decoded here; null:
/// everything is
Image apply(const TrainTransform& transform, const Sample& sample, Random& random, WindowDecoder* decoder = nullptr);

/// Returns the window that a training crop takes of a width x height picture, in its pixels.
Window random_resized_crop(int width, int height, const TrainTransform& transform, Random& random);

}  // namespace dynvit
