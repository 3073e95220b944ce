#include "dynvit/viz/kept_tokens.hpp"

#include <algorithm>
#include <array>
#include <map>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

constexpr int kPictureShare = 51;  // 0.2 of 255; the rest is white

Image white(int width, int height) {
    Image canvas(width, height);
    std::fill(canvas.pixels.begin(), canvas.pixels.end(), 255);
    return canvas;
}

void check_size(const Image& image, const ModelSettings& settings) {
    if (image.width == settings.image_width() && image.height == settings.image_height()) return;
    throw Error("visualize", "found a picture of ", image.width, " x ", image.height, ", expected the model's ",
                settings.image_width(), " x ", settings.image_height());
}

void fade(std::uint8_t* pixel) {
    for (int c = 0; c < 3; ++c) {
        pixel[c] = static_cast<std::uint8_t>((pixel[c] * kPictureShare + 255 * (255 - kPictureShare) + 127) / 255);
    }
}

// A token's patches, and the sum of their colours.
struct Group {
    std::int64_t patches = 0, pixels = 0;
    std::array<std::int64_t, 3> sum{};
};

void paste(const Image& image, Image& canvas, int left, int top) {
    for (int y = 0; y < image.height; ++y) std::copy_n(image.at(0, y), 3 * image.width, canvas.at(left, top + y));
}

}  // namespace

Image draw_kept_tokens(const Image& image, const std::vector<std::int64_t>& kept, const ModelSettings& settings) {
    std::vector<std::int64_t> sources(static_cast<std::size_t>(settings.patches()), -1);
    for (const std::int64_t place : kept) sources.at(static_cast<std::size_t>(place)) = place;
    return draw_token_groups(image, sources, settings);
}

Image draw_token_groups(const Image& image, const std::vector<std::int64_t>& sources, const ModelSettings& settings) {
    check_size(image, settings);
    const int patch = static_cast<int>(settings.patch_size), columns = static_cast<int>(settings.grid_width());
    const auto source = [&](int x, int y) {
        return sources.at(static_cast<std::size_t>(y / patch * columns + x / patch));
    };
    std::map<std::int64_t, Group> groups;
    for (const std::int64_t one : sources) {
        if (one >= 0) ++groups[one].patches;
    }
    for (int y = 0; y < image.height; ++y) {
        for (int x = 0; x < image.width; ++x) {
            Group& group = groups[source(x, y)];
            for (std::size_t c = 0; c < 3; ++c) group.sum[c] += image.at(x, y)[c];
            ++group.pixels;
        }
    }
    // Whether tokens differ on both sides of a patch's border, one of them of several patches.
    const auto is_line = [&](std::int64_t own, std::int64_t other) {
        return own != other && (groups[own].patches > 1 || groups[other].patches > 1);
    };
    Image drawn = image;
    for (int y = 0; y < image.height; ++y) {
        for (int x = 0; x < image.width; ++x) {
            const std::int64_t own = source(x, y);
            const Group& group = groups[own];
            std::uint8_t* pixel = drawn.at(x, y);
            if (own < 0) fade(pixel);
            for (std::size_t c = 0; own >= 0 && group.patches > 1 && c < 3; ++c) {
                pixel[c] = static_cast<std::uint8_t>(group.sum[c] / group.pixels);
            }
            const bool line = (x > 0 && x % patch == 0 && is_line(own, source(x - 1, y))) ||
                              (y > 0 && y % patch == 0 && is_line(own, source(x, y - 1)));
            for (int c = 0; line && c < 3; ++c) pixel[c] /= 2;
        }
    }
    return drawn;
}

Image beside(const std::vector<Image>& images, int gap) {
    int width = 0, height = 0;
    for (const Image& image : images) {
        width += image.width + (width ? gap : 0);
        height = std::max(height, image.height);
    }
    Image canvas = white(width, height);
    int left = 0;
    for (const Image& image : images) {
        paste(image, canvas, left, 0);
        left += image.width + gap;
    }
    return canvas;
}

Image below(const std::vector<Image>& images, int gap) {
    int width = 0, height = 0;
    for (const Image& image : images) {
        height += image.height + (height ? gap : 0);
        width = std::max(width, image.width);
    }
    Image canvas = white(width, height);
    int top = 0;
    for (const Image& image : images) {
        paste(image, canvas, 0, top);
        top += image.height + gap;
    }
    return canvas;
}

Image enlarge(const Image& image, int factor) {
    Image large(image.width * factor, image.height * factor);
    for (int y = 0; y < large.height; ++y) {
        for (int x = 0; x < large.width; ++x) std::copy_n(image.at(x / factor, y / factor), 3, large.at(x, y));
    }
    return large;
}

}  // namespace dynvit
