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

TEST(TokenGroups, PatchesOfATokenHaveTheirMeanAndALineAround) {
    Image image(6, 4);
    for (std::size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<std::uint8_t>(3 * i);
    // Patches 0 and 4 are one token, 1 is deleted, the others are by themselves.
    const Image drawn = draw_token_groups(image, {4, -1, 2, 3, 4, 5}, two_by_three());
    const auto mean = [&](int c) {
        int sum = 0;
        for (const auto [left, top] : {std::pair(0, 0), std::pair(2, 2)}) {
            for (int i = 0; i < 4; ++i) sum += image.at(left + i % 2, top + i / 2)[c];
        }
        return sum / 8;
    };
    for (int c = 0; c < 3; ++c) {
        EXPECT_EQ(drawn.at(0, 0)[c], mean(c)) << "the first patch, at the picture's edge";
        EXPECT_EQ(drawn.at(1, 1)[c], mean(c));
        EXPECT_EQ(drawn.at(3, 3)[c], mean(c)) << "the fifth patch";
        EXPECT_EQ(drawn.at(2, 2)[c], mean(c) / 2) << "its line to the left and above";
        EXPECT_EQ(drawn.at(5, 1)[c], image.at(5, 1)[c]) << "by itself";
        EXPECT_EQ(drawn.at(4, 0)[c], image.at(4, 0)[c]) << "no line between patches that were not merged";
        EXPECT_EQ(drawn.at(3, 1)[c], static_cast<int>(0.2 * image.at(3, 1)[c] + 0.8 * 255 + 0.5)) << "deleted";
    }
    EXPECT_EQ(draw_token_groups(image, {0, 1, 2, 3, 4, 5}, two_by_three()).pixels, image.pixels) << "nothing merged";
    EXPECT_EQ(draw_token_groups(image, {0, -1, -1, 3, -1, 5}, two_by_three()).pixels,
              draw_kept_tokens(image, {0, 3, 5}, two_by_three()).pixels)
        << "nor is what was deleted";
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
