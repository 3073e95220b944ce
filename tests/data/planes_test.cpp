// Against the definition, for numbers of pixels around the vectors' lengths.
#include "dynvit/data/planes.hpp"

#include <gtest/gtest.h>

namespace dynvit {
namespace {

TEST(CopyToPlanes, EveryByteComesToItsPlace) {
    for (const auto& [width, height] :
         {std::pair{1, 1}, {5, 3}, {16, 1}, {31, 1}, {32, 1}, {33, 1}, {64, 7}, {97, 13}}) {
        Image image(width, height);
        const std::size_t pixels = image.pixels.size() / 3;
        for (std::size_t i = 0; i < image.pixels.size(); ++i)
            image.pixels[i] = static_cast<std::uint8_t>(i * 37 + i / 256);
        std::vector<std::uint8_t> planes(image.pixels.size() + 1, 99);
        copy_to_planes(image, planes.data());
        for (std::size_t i = 0; i < pixels; ++i)
            for (std::size_t c = 0; c < 3; ++c) ASSERT_EQ(planes[c * pixels + i], image.pixels[3 * i + c]) << i;
        EXPECT_EQ(planes.back(), 99) << "written beyond the planes";
    }
}

}  // namespace
}  // namespace dynvit
