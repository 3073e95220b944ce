#include "dynvit/viz/kept_tokens.hpp"

#include "support.hpp"

namespace dynvit {
namespace {

ModelSettings two_by_three() {  // patches of 2 pixels
    ModelSettings settings;
    settings.image_size = {4, 6};
    settings.patch_size = 2;
    return settings;
}

TEST(KeptTokens, DroppedPatchesAreFadedAndKeptOnesStay) {  // against 0.2 x pixel + 0.8 x 255, rounded
    Image image(6, 4);
    for (std::size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<std::uint8_t>(3 * i);
    const Image drawn = draw_kept_tokens(image, {1, 5}, two_by_three());
    for (int y = 0; y < 4; ++y) {
        for (int x = 0; x < 6; ++x) {
            const int place = y / 2 * 3 + x / 2;
            for (int c = 0; c < 3; ++c) {
                const int pixel = image.at(x, y)[c];
                const int expected = place == 1 || place == 5 ? pixel : static_cast<int>(0.2 * pixel + 0.8 * 255 + 0.5);
                EXPECT_EQ(drawn.at(x, y)[c], expected) << x << ' ' << y;
            }
        }
    }
}

TEST(KeptTokens, AnotherSizeIsAnError) {
    EXPECT_EQ(test::error_of([] { draw_kept_tokens(Image(6, 6), {}, two_by_three()); }),
              "[visualize] found a picture of 6 x 6, expected the model's 6 x 4");
}

TEST(KeptTokens, SheetsKeepEveryPixel) {
    Image a(2, 1), b(1, 3);
    a.pixels = {1, 2, 3, 4, 5, 6};
    b.pixels = {7, 8, 9, 10, 11, 12, 13, 14, 15};
    const Image row = beside({a, b}, 1);
    ASSERT_EQ(row.width, 4);
    ASSERT_EQ(row.height, 3);
    EXPECT_EQ(row.at(1, 0)[2], 6);
    EXPECT_EQ(row.at(2, 0)[0], 255);
    EXPECT_EQ(row.at(3, 2)[1], 14);
    const Image column = below({a, b}, 2);
    ASSERT_EQ(column.width, 2);
    ASSERT_EQ(column.height, 6);
    EXPECT_EQ(column.at(0, 3)[0], 7);
    EXPECT_EQ(column.at(1, 3)[0], 255);
    const Image large = enlarge(a, 3);
    ASSERT_EQ(large.width, 6);
    EXPECT_EQ(large.at(3, 2)[0], 4);
}

}  // namespace
}  // namespace dynvit
