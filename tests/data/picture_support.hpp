// Pictures to try operations on.
#pragma once

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "dynvit/core/random.hpp"
#include "dynvit/data/rgb.hpp"
#include "dynvit/io/image.hpp"

namespace dynvit::test {

inline Image speckled(int width, int height, std::uint64_t seed) {
    Image image(width, height);
    Random random(seed);
    for (std::uint8_t& byte : image.pixels) byte = static_cast<std::uint8_t>(random.integer(0, 256));
    return image;
}

inline Image one_color(int width, int height, Rgb color) {
    Image image(width, height);
    for (std::size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = color[i % 3];
    return image;
}

inline bool same(const Image& a, const Image& b) {
    return a.width == b.width && a.height == b.height && a.pixels == b.pixels;
}

/// From a tensor (H, W, 3) of bytes.
inline Image to_image(const at::Tensor& tensor) {
    Image image(static_cast<int>(tensor.size(1)), static_cast<int>(tensor.size(0)));
    std::copy_n(tensor.const_data_ptr<std::uint8_t>(), image.pixels.size(), image.pixels.begin());
    return image;
}

/// Fails where a byte differs.
inline void expect_same(const Image& got, const Image& expected, const std::string& what) {
    ASSERT_EQ(got.width, expected.width) << what;
    ASSERT_EQ(got.height, expected.height) << what;
    ASSERT_EQ(got.pixels.size(), expected.pixels.size()) << what;
    std::size_t different = 0;
    for (std::size_t i = 0; i < got.pixels.size(); ++i) different += got.pixels[i] != expected.pixels[i];
    EXPECT_EQ(different, 0u) << what << ": of " << got.pixels.size() << " values";
}

}  // namespace dynvit::test
