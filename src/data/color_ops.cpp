#include "dynvit/data/color_ops.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace dynvit {
namespace {

using Table = std::array<std::uint8_t, 256>;       // new value of each value
using Histogram = std::array<std::uint32_t, 256>;  // how many pixels have it

template <class T>
using Channels = std::array<T, 3>;

template <class NewValue>
Table make_table(const NewValue& new_value) {
    Table table;
    for (int value = 0; value < 256; ++value) table[value] = static_cast<std::uint8_t>(new_value(value));
    return table;
}

Image look_up(Image image, const Table& table) {
    for (std::uint8_t& value : image.pixels) value = table[value];
    return image;
}

Image look_up(Image image, const Channels<Table>& tables) {
    for (std::size_t i = 0; i < image.pixels.size(); i += 3)
        for (std::size_t c = 0; c < 3; ++c) image.pixels[i + c] = tables[c][image.pixels[i + c]];
    return image;
}

Channels<Histogram> histograms(const Image& image) {
    Channels<Histogram> counts = {};
    for (std::size_t i = 0; i < image.pixels.size(); i += 3)
        for (std::size_t c = 0; c < 3; ++c) ++counts[c][image.pixels[i + c]];
    return counts;
}

Table stretching_table(const Histogram& counts) {
    const auto is_used = [](std::uint32_t count) { return count > 0; };
    const auto lowest = std::find_if(counts.begin(), counts.end(), is_used);
    const auto highest = std::find_if(counts.rbegin(), counts.rend(), is_used);
    const auto low = static_cast<int>(lowest - counts.begin());
    const auto high = 255 - static_cast<int>(highest - counts.rbegin());
    if (high <= low) return make_table([](int value) { return value; });
    const double scale = 255.0 / (high - low), offset = -low * scale;
    return make_table([&](int value) { return std::clamp(static_cast<int>(value * scale + offset), 0, 255); });
}

/// Each value's rank among all pixels, in steps of a 255th of them. Those of the highest value are not counted.
Table equalizing_table(const Histogram& counts) {
    const std::uint64_t total = std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
    const auto highest = std::find_if(counts.rbegin(), counts.rend(), [](std::uint32_t count) { return count > 0; });
    const std::uint64_t step = highest == counts.rend() ? 0 : (total - *highest) / 255;
    if (step == 0) return make_table([](int value) { return value; });
    std::uint64_t rank = step / 2;
    return make_table([&](int value) {
        const std::uint64_t new_value = std::min<std::uint64_t>(rank / step, 255);
        rank += counts[value];
        return new_value;
    });
}

/// ITU-R 601-2's luma, rounded, in 16-bit fixed point.
int luma(const std::uint8_t* pixel) {
    return (pixel[0] * 19595 + pixel[1] * 38470 + pixel[2] * 7471 + 0x8000) >> 16;
}

/// Pillow's Image.blend for one value.
std::uint8_t blend(int degenerate, int value, float factor) {
    const float mixed = static_cast<float>(degenerate) + factor * static_cast<float>(value - degenerate);
    return static_cast<std::uint8_t>(static_cast<int>(mixed > 0 ? std::min(mixed, 255.0f) : 0));
}

/// The mean luma, rounded; 0 where there are no pixels.
int mean_luma(const Image& image) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < image.pixels.size(); i += 3) sum += luma(image.pixels.data() + i);
    const auto pixels = static_cast<double>(std::max<std::size_t>(image.pixels.size() / 3, 1));
    return static_cast<int>(static_cast<double>(sum) / pixels + 0.5);
}

}  // namespace

Image auto_contrast(Image image) {
    Channels<Table> tables;
    std::ranges::transform(histograms(image), tables.begin(), stretching_table);
    return look_up(std::move(image), tables);
}

Image equalize(Image image) {
    Channels<Table> tables;
    std::ranges::transform(histograms(image), tables.begin(), equalizing_table);
    return look_up(std::move(image), tables);
}

Image invert(Image image) {
    return look_up(std::move(image), make_table([](int value) { return 255 - value; }));
}

Image posterize(Image image, int bits) {
    const int mask = 0xff << (8 - std::clamp(bits, 0, 8));
    return look_up(std::move(image), make_table([&](int value) { return value & mask; }));
}

Image solarize(Image image, int threshold) {
    return look_up(std::move(image), make_table([&](int value) { return value < threshold ? value : 255 - value; }));
}

Image solarize_add(Image image, int add) {
    return look_up(
        std::move(image), make_table([&](int value) {
            return value < 128 ? static_cast<int>(std::clamp<std::int64_t>(std::int64_t{value} + add, 0, 255)) : value;
        }));
}

Image adjust_color(Image image, double factor) {
    const auto share = static_cast<float>(factor);
    const std::size_t row_bytes = std::size_t{3} * image.width;
    std::vector<std::uint8_t> grey(row_bytes);  // a row, three times each, so that the loop below is over plain bytes
    for (int y = 0; y < image.height; ++y) {
        std::uint8_t* row = image.at(0, y);
        for (std::size_t i = 0; i < row_bytes; i += 3) std::fill_n(&grey[i], 3, luma(row + i));
        for (std::size_t i = 0; i < row_bytes; ++i) row[i] = blend(grey[i], row[i], share);
    }
    return image;
}

Image adjust_contrast(Image image, double factor) {
    const auto share = static_cast<float>(factor);
    const int mean = mean_luma(image);
    return look_up(std::move(image), make_table([&](int value) { return blend(mean, value, share); }));
}

Image adjust_brightness(Image image, double factor) {
    const auto share = static_cast<float>(factor);
    return look_up(std::move(image), make_table([&](int value) { return blend(0, value, share); }));
}

Image adjust_sharpness(const Image& image, double factor) {
    Image result = image;
    const auto share = static_cast<float>(factor);
    const std::ptrdiff_t row_bytes = std::ptrdiff_t{3} * image.width;
    for (int y = 1; y < image.height - 1; ++y) {
        const std::uint8_t* above = image.at(0, y - 1);
        const std::uint8_t* row = image.at(0, y);
        const std::uint8_t* below = image.at(0, y + 1);
        std::uint8_t* out = result.at(0, y);
        for (std::ptrdiff_t i = 3; i < row_bytes - 3; ++i) {
            const int sum = above[i - 3] + above[i] + above[i + 3] + row[i - 3] + 5 * row[i] + row[i + 3] +
                            below[i - 3] + below[i] + below[i + 3];
            out[i] = blend((sum + 6) / 13, row[i], share);  // no sum lies half-way between two multiples of 13
        }
    }
    return result;
}

}  // namespace dynvit
