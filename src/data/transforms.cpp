#include "dynvit/data/transforms.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace dynvit {
namespace {

/// To the nearest integer, halves to the even one, as Python's round().
int round_half_even(double value) {
    return static_cast<int>(std::nearbyint(value));
}

void mirror(Image& image) {
    for (int y = 0; y < image.height; ++y)
        for (int left = 0, right = image.width - 1; left < right; ++left, --right)
            std::swap_ranges(image.at(left, y), image.at(left, y) + 3, image.at(right, y));
}

}  // namespace

Image apply(const EvalTransform& transform, const Image& image) {
    const int size =
        transform.resize > 0 ? transform.resize : static_cast<int>(std::min(transform.width, transform.height) / 0.875);
    return center_crop(resize_short_side(image, size, Filter::kBicubic), transform.width, transform.height);
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
    Image result = resize(crop(image, window), transform.width, transform.height, Filter::kBicubic);
    if (random.chance(transform.flip)) mirror(result);
    return result;
}

}  // namespace dynvit
