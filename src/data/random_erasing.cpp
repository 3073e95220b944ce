#include "dynvit/data/random_erasing.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "dynvit/data/rgb.hpp"

namespace dynvit {
namespace {

/// A value of a standard normal distribution, once normalized.
std::uint8_t noise(double mean, double std, Random& random) {
    const double value = 255 * (mean + std * random.normal());
    return static_cast<std::uint8_t>(std::clamp(value, 0.0, 255.0) + 0.5);
}

void erase(Image& image, const Window& box, const RandomErasing& erasing, Random& random) {
    const Rgb mean = rgb_of(erasing.mean);
    for (int y = box.top; y < box.top + box.height; ++y) {
        std::uint8_t* pixel = image.at(box.left, y);
        for (int x = 0; x < box.width; ++x, pixel += 3)
            for (std::size_t c = 0; c < 3; ++c)
                pixel[c] = erasing.mode == EraseMode::kPixel ? noise(erasing.mean[c], erasing.std[c], random) : mean[c];
    }
}

}  // namespace

std::optional<Window> random_box(int width, int height, const RandomErasing& erasing, Random& random) {
    constexpr int kTries = 10;
    const double area = static_cast<double>(width) * height;
    for (int i = 0; i < kTries; ++i) {
        const double target = area * random.uniform(erasing.area[0], erasing.area[1]);
        const double aspect = std::exp(random.uniform(std::log(erasing.aspect[0]), std::log(erasing.aspect[1])));
        const double h = std::nearbyint(std::sqrt(target * aspect)), w = std::nearbyint(std::sqrt(target / aspect));
        if (w >= width || h >= height) continue;
        Window box{0, 0, static_cast<int>(w), static_cast<int>(h)};
        box.top = static_cast<int>(random.integer(0, height - box.height + 1));
        box.left = static_cast<int>(random.integer(0, width - box.width + 1));
        return box;
    }
    return std::nullopt;
}

Image apply(const RandomErasing& erasing, Image image, Random& random) {
    if (!random.chance(erasing.probability)) return image;
    if (const auto box = random_box(image.width, image.height, erasing, random)) erase(image, *box, erasing, random);
    return image;
}

}  // namespace dynvit
