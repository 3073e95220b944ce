// Compares with the adjustments it consists of, in every order.
#include "dynvit/data/color_jitter.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <numeric>

#include "dynvit/data/color_ops.hpp"
#include "picture_support.hpp"

namespace dynvit {
namespace {

using test::one_color;
using test::same;
using test::speckled;

TEST(ColorJitter, IsThreeAdjustmentsInRandomOrder) {
    constexpr std::array kAdjust = {adjust_brightness, adjust_contrast, adjust_color};
    const Image image = speckled(12, 10, 1);
    std::map<std::array<int, 3>, int> orders;
    for (std::uint64_t seed = 0; seed < 1200; ++seed) {
        Random random(seed), by_hand(seed);
        const Image result = color_jitter(image, 0.4, random);
        std::array<double, 3> factors;
        for (double& factor : factors) factor = by_hand.uniform(0.6, 1.4);
        int matches = 0;
        for (std::array<int, 3> order = {0, 1, 2}; matches == 0;) {
            Image expected = image;
            for (const int step : order) expected = kAdjust[step](expected, factors[step]);
            if (same(result, expected)) {
                ++orders[order];
                ++matches;
            }
            if (!std::next_permutation(order.begin(), order.end())) break;
        }
        EXPECT_EQ(matches, 1) << "seed " << seed;
    }
    // Clamped pictures may come out alike in two orders; these are rare. Of 1200, the standard deviation is 13.
    ASSERT_EQ(orders.size(), 6u);
    for (const auto& [order, count] : orders) EXPECT_NEAR(count, 200, 65);
}

TEST(ColorJitter, StrengthZeroChangesNothing) {
    const Image image = speckled(12, 10, 2);
    Random random(3);
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(same(color_jitter(image, 0, random), image));
}

// Grey of one value: contrast and saturation leave it, brightness multiplies it.
TEST(ColorJitter, FactorsUseUpTheirRange) {
    Random random(4);
    for (const auto& [strength, low, high] : {std::tuple(0.4, 60, 140), {1.5, 0, 250}}) {
        int least = 255, most = 0, black = 0;
        for (int i = 0; i < 2000; ++i) {
            const int value = color_jitter(one_color(2, 2, {100, 100, 100}), strength, random).pixels[0];
            least = std::min(least, value);
            most = std::max(most, value);
            black += value == 0;
        }
        EXPECT_LE(black, 22);  // no factor is below 0: of [0, 2.5], 8 are below 0.01; five standard deviations
        EXPECT_GE(least, low);
        EXPECT_LE(least, low + 2);
        EXPECT_GE(most, high - 2);
        EXPECT_LE(most, high);
    }
}

TEST(ColorJitter, KeepsAnySize) {
    Random random(5);
    for (const auto& [width, height] : {std::pair(1, 1), {1, 9}, {31, 2}, {0, 0}}) {
        const Image result = color_jitter(speckled(width, height, 6), 0.4, random);
        EXPECT_EQ(result.width, width);
        EXPECT_EQ(result.height, height);
        EXPECT_EQ(result.pixels.size(), static_cast<std::size_t>(3 * width * height));
    }
}

}  // namespace
}  // namespace dynvit
