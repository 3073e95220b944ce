// Compares with the cubehelix's own promise, a brightness that rises evenly, with colours worked out by hand from its
// formula, and with where each value has to stand.
#include "dynvit/viz/heat_map.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "support.hpp"

namespace dynvit {
namespace {

using Colour = std::array<int, 3>;

Colour colour_at(const Image& image, int x, int y) {
    const std::uint8_t* pixel = image.at(x, y);
    return {pixel[0], pixel[1], pixel[2]};
}

Colour colour_of(float value) {
    const Image map = draw_heat_map({&value, 1}, 1, 1, 1);
    return colour_at(map, 0, 0);
}

double brightness(const Colour& colour) {
    return 0.30 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2];
}

TEST(HeatMap, BrightnessRisesEvenly) {
    double before = 0;
    for (int i = 0; i <= 200; ++i) {
        const float value = static_cast<float>(i) / 200;
        const double now = brightness(colour_of(value));
        EXPECT_NEAR(now, 255 * (0.08 + 0.84 * value), 0.51) << value;  // each part is rounded
        EXPECT_GT(now, before) << value;
        before = now;
    }
}

// At the middle grey is 1/2, the amplitude 1/8 and the hue 3/4 of a turn: cosine 0, sine -1.
TEST(HeatMap, TheMiddleIsGreenAndTheEndsAreBlueAndYellow) {
    const Colour middle = colour_of(0.5F);
    EXPECT_EQ(middle[0], std::lround(255 * (0.5 - 1.78277 / 8)));
    EXPECT_EQ(middle[1], std::lround(255 * (0.5 + 0.90649 / 8)));
    EXPECT_NEAR(middle[2], 127.5, 0.5);  // half-way between two
    const Colour low = colour_of(0), high = colour_of(1);
    EXPECT_GT(low[2], low[0]);
    EXPECT_GT(low[2], low[1]);
    EXPECT_LT(high[2], high[0]);
    EXPECT_LT(high[2], high[1]);
}

TEST(HeatMap, ValuesOutsideCountAsTheEndsAndOthersAreGrey) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (const float value : {-0.1F, -1e30F, -kInfinity}) EXPECT_EQ(colour_of(value), colour_of(0));
    for (const float value : {1.0001F, 1e30F, kInfinity}) EXPECT_EQ(colour_of(value), colour_of(1));
    EXPECT_EQ(colour_of(std::nanf("")), (Colour{128, 128, 128}));
}

TEST(HeatMap, EveryValueFillsItsSquare) {
    const std::vector<float> values = {0.0F, 0.1F, 0.2F, 0.3F, 0.4F, 1.0F};
    const Image map = draw_heat_map(values, 2, 3, 13);  // squares of 13 / 3 = 4 pixels
    ASSERT_EQ(map.width, 12);
    ASSERT_EQ(map.height, 8);
    for (int y = 0; y < map.height; ++y) {
        for (int x = 0; x < map.width; ++x) {
            EXPECT_EQ(colour_at(map, x, y), colour_of(values[static_cast<std::size_t>(y / 4 * 3 + x / 4)]))
                << x << ' ' << y;
        }
    }
}

TEST(HeatMap, SizesFollowTheGrid) {
    const std::vector<float> values(196, 0.5F);
    const Image square = draw_heat_map(values, 14, 14);
    EXPECT_EQ(square.width, 182);  // 13 x 14, the most up to 192
    EXPECT_EQ(square.height, 182);
    const Image tall = draw_heat_map(values, 49, 4);
    EXPECT_EQ(tall.width, 12);
    EXPECT_EQ(tall.height, 147);
    const Image small = draw_heat_map(values, 14, 14, 5);
    EXPECT_EQ(small.width, 14);
    EXPECT_EQ(small.height, 14);
}

TEST(HeatMap, AnotherNumberOfValuesIsAnError) {
    const std::vector<float> values(5, 0.5F);
    EXPECT_EQ(test::error_of([&] { draw_heat_map(values, 2, 3); }),
              "[visualize] heat map: found 5 values, expected 2 x 3");
    EXPECT_EQ(test::error_of([&] { draw_heat_map({}, 0, 3); }), "[visualize] heat map: found 0 values, expected 0 x 3");
    EXPECT_EQ(test::error_of([&] { draw_heat_map(values, -1, -5); }),
              "[visualize] heat map: found 5 values, expected -1 x -5");
}

}  // namespace
}  // namespace dynvit
