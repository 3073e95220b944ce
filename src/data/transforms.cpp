#include "dynvit/data/transforms.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

/// To the nearest integer, halves to the even one, as Python's round().
int round_half_even(double value) {
    return static_cast<int>(std::nearbyint(value));
}

/// The whole pixels that a box touches.
Window touched(const SourceBox& box) {
    const int left = static_cast<int>(box.left), top = static_cast<int>(box.top);
    return {left, top, static_cast<int>(std::ceil(box.right)) - left, static_cast<int>(std::ceil(box.bottom)) - top};
}

/// Nothing outside the box's own pixels is seen, as if the picture had been cropped.
Image resize_cropped(const ImageView& image, const SourceBox& box, const TrainTransform& transform, bool mirrored) {
    const Window window = touched(box);
    const auto x = static_cast<float>(window.left), y = static_cast<float>(window.top);
    return resize(part(image, window), {box.left - x, box.top - y, box.right - x, box.bottom - y}, transform.width,
                  transform.height, transform.filter, mirrored);
}

/// What the resized picture covers before the centre crop.
PictureSize covered(const EvalTransform& transform) {
    const auto [height, width] = size_to_cover(transform.resize, transform.crop_pct, transform.height, transform.width);
    return {static_cast<int>(width), static_cast<int>(height)};
}

}  // namespace

Image apply(const EvalTransform& transform, const Image& image) {
    if (transform.squash) return resize(image, transform.width, transform.height, transform.filter);
    const auto [width, height] = covered(transform);
    return center_crop(resize_to_cover(image, width, height, transform.filter), transform.width, transform.height);
}

Image apply(const EvalTransform& transform, const Image& image, const std::string& name) {
    const PictureSize size{image.width, image.height};
    const auto [width, height] = covered(transform);
    if (!transform.squash && !cover_fits(size, width, height))
        throw Error("image", name, ": ", size.width, " x ", size.height,
                    " pixels are too long a picture: resized to cover ", width, " x ", height,
                    ", it would have more than 2^28; expected a shorter one, or --crop squash");
    return apply(transform, image);
}

EvalTransform eval_transform(const Preprocessing& preprocessing, std::int64_t height, std::int64_t width) {
    return {.width = static_cast<int>(width),
            .height = static_cast<int>(height),
            .resize = static_cast<int>(preprocessing.resize),
            .crop_pct = preprocessing.crop_pct,
            .squash = preprocessing.crop == kSquash,
            .filter = filter_of(preprocessing.interpolation)};
}

Window random_resized_crop(int width, int height, const TrainTransform& transform, Random& random) {
    constexpr int kTries = 10;
    const double area = static_cast<double>(width) * height;
    const double log_low = std::log(transform.ratio[0]), log_high = std::log(transform.ratio[1]);
    for (int i = 0; i < kTries; ++i) {
        const double target = area * random.uniform(transform.scale[0], transform.scale[1]);
        const double ratio = std::exp(random.uniform(log_low, log_high));
        const double w = std::nearbyint(std::sqrt(target * ratio)), h = std::nearbyint(std::sqrt(target / ratio));
        if (w < 1 || w > width || h < 1 || h > height) continue;
        Window window{0, 0, static_cast<int>(w), static_cast<int>(h)};
        window.top = static_cast<int>(random.integer(0, height - window.height + 1));
        window.left = static_cast<int>(random.integer(0, width - window.width + 1));
        return window;
    }

    // The largest window of a legal shape, in the middle.
    const double ratio = static_cast<double>(width) / height;
    Window window{0, 0, width, height};
    if (ratio < transform.ratio[0]) window.height = round_half_even(width / transform.ratio[0]);
    if (ratio > transform.ratio[1]) window.width = round_half_even(height * transform.ratio[1]);
    window.width = std::clamp(window.width, 1, width);  // a bound far from 1 can round to nothing
    window.height = std::clamp(window.height, 1, height);
    window.left = (width - window.width) / 2;
    window.top = (height - window.height) / 2;
    return window;
}

Image apply(const TrainTransform& transform, const Image& image, Random& random) {
    const Window window = random_resized_crop(image.width, image.height, transform, random);
    return resize_cropped(image, box_of(window), transform, random.chance(transform.flip));
}

Image apply(const TrainTransform& transform, const Sample& sample, Random& random, WindowDecoder* decoder) {
    if (!sample.image.pixels.empty()) return apply(transform, sample.image, random);
    const PictureSize size = picture_size(sample.encoded, sample.name);
    const Window window = random_resized_crop(size.width, size.height, transform, random);
    const bool mirrored = random.chance(transform.flip);
    if (decoder) {
        std::optional<Image> image = decoder->decode(sample.encoded, window, mirrored);
        if (image) return std::move(*image);
    }
    if (transform.exact_decode)
        return resize_cropped(decode_image(sample.encoded, sample.name), box_of(window), transform, mirrored);
    const DecodedWindow decoded = decode_window(sample.encoded, sample.name, window, transform.width, transform.height);
    return resize_cropped(decoded.image, decoded.box, transform, mirrored);
}

}  // namespace dynvit
