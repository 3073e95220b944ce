// Boxes against their legal range and distribution; what they hold against the normal distribution's closed form.
#include "dynvit/data/random_erasing.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "dynvit/data/transforms.hpp"
#include "picture_support.hpp"

namespace dynvit {
namespace {

using test::same;
using test::speckled;

// Sides are rounded by at most half a pixel: of 400 x 400 a side is at least sqrt(0.02 x 160000 x 0.3) = 31.
TEST(RandomBox, AreaAndAspectKeepTheirRange) {
    Random random(1);
    double smallest = 1, largest = 0, flattest = 9, highest = 0;
    int high = 0, very_high = 0, found = 0;
    constexpr int kBoxes = 10000;
    for (int i = 0; i < kBoxes; ++i) {
        const auto box = random_box(400, 400, {}, random);
        if (!box) continue;
        ++found;
        ASSERT_GE(box->left, 0);
        ASSERT_GE(box->top, 0);
        ASSERT_LE(box->left + box->width, 400);
        ASSERT_LE(box->top + box->height, 400);
        const double area = box->width * box->height / 160000.0;
        const double aspect = static_cast<double>(box->height) / box->width;
        smallest = std::min(smallest, area);
        largest = std::max(largest, area);
        flattest = std::min(flattest, aspect);
        highest = std::max(highest, aspect);
        high += aspect > 1;
        very_high += aspect > std::sqrt(1 / 0.3);
    }
    EXPECT_EQ(found, kBoxes);
    constexpr double kRounding = 1 / 31.0;  // half a pixel on each of two sides
    EXPECT_GE(smallest, 0.02 * (1 - kRounding));
    EXPECT_LE(largest, (1 + kRounding) / 3);
    EXPECT_GE(flattest, 0.3 * (1 - kRounding));
    EXPECT_LE(highest, (1 + kRounding) / 0.3);
    EXPECT_LT(smallest, 0.022);  // and uses it up
    EXPECT_GT(largest, 0.32);
    EXPECT_LT(flattest, 0.31);
    EXPECT_GT(highest, 3.2);
    // Log-uniform: as many are high as flat, half of the high ones beyond the root. A high box of a third of the area
    // is up to 421 pixels high and drawn again, with even odds: at most a hundredth. Five standard deviations of 50
    // and 43.
    EXPECT_NEAR(high, kBoxes / 2.0, 250);
    EXPECT_NEAR(very_high, kBoxes / 4.0, 217 + 100);
}

TEST(RandomBox, DrawsInTimmsOrder) {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        Random random(seed), by_hand(seed);
        const RandomErasing erasing{.area = {0.02, 0.2}};  // the first try fits
        const auto box = random_box(100, 100, erasing, random);
        ASSERT_TRUE(box);
        const double area = 10000 * by_hand.uniform(0.02, 0.2);
        const double aspect = std::exp(by_hand.uniform(std::log(0.3), std::log(1 / 0.3)));
        EXPECT_EQ(box->height, static_cast<int>(std::nearbyint(std::sqrt(area * aspect))));
        EXPECT_EQ(box->width, static_cast<int>(std::nearbyint(std::sqrt(area / aspect))));
        EXPECT_EQ(box->top, by_hand.integer(0, 100 - box->height + 1));
        EXPECT_EQ(box->left, by_hand.integer(0, 100 - box->width + 1));
        EXPECT_EQ(random.bits(), by_hand.bits());
    }
}

TEST(RandomBox, GivesUpAfterTenTries) {
    Random random(2), by_hand(2);
    EXPECT_FALSE(random_box(10, 10, {.area = {1, 1.5}, .aspect = {1, 1}}, random));
    for (int i = 0; i < 20; ++i) by_hand.uniform();
    EXPECT_EQ(random.bits(), by_hand.bits());
}

// Noise is drawn row by row, pixel by pixel, channel by channel.
TEST(RandomErasing, ChangesTheBoxAlone) {
    const Image image = speckled(40, 30, 3);
    for (const EraseMode mode : {EraseMode::kConst, EraseMode::kPixel})
        for (std::uint64_t seed = 0; seed < 50; ++seed) {
            RandomErasing erasing{.probability = 1, .mode = mode};
            if (seed % 2 == 1) {
                erasing.mean = {0.5, 0.25, 0.75};
                erasing.std = {0.5, 0.1, 0.2};
            }
            Random random(seed), by_hand(seed);
            const Image result = apply(erasing, image, random);
            by_hand.uniform();
            const auto box = random_box(40, 30, erasing, by_hand);
            ASSERT_TRUE(box);
            Image expected = image;
            for (int y = box->top; y < box->top + box->height; ++y)
                for (int x = box->left; x < box->left + box->width; ++x)
                    for (int c = 0; c < 3; ++c) {
                        const double noise = mode == EraseMode::kConst ? 0 : by_hand.normal();
                        const double value = 255 * (erasing.mean[c] + erasing.std[c] * noise);
                        expected.at(x, y)[c] = static_cast<std::uint8_t>(std::lround(std::clamp(value, 0.0, 255.0)));
                    }
            EXPECT_TRUE(same(result, expected)) << "seed " << seed;
            EXPECT_EQ(random.bits(), by_hand.bits());
        }
}

// A byte is at most b where 255 (mean + std z) is below b + 1/2; 0 and 255 take what is clamped.
TEST(RandomErasing, NoiseIsNormalOnceNormalized) {
    const RandomErasing erasing{.probability = 1, .area = {0.9, 0.9}, .aspect = {1, 1}};
    Random random(4);
    std::array<std::array<int, 256>, 3> counts = {};
    double values = 0;
    for (int i = 0; i < 10; ++i) {
        const Image result = apply(erasing, Image(100, 100), random);
        for (int y = 6; y < 94; ++y)  // a box of 95 x 95 covers this part wherever it lies
            for (int x = 6; x < 94; ++x)
                for (std::size_t c = 0; c < 3; ++c) ++counts[c][result.at(x, y)[c]];
        values += 88 * 88;
    }
    for (std::size_t c = 0; c < 3; ++c) {
        int at_most = 0;
        for (int byte = 0; byte < 255; ++byte) {
            at_most += counts[c][byte];
            const double z = ((byte + 0.5) / 255 - kImageNetMean[c]) / kImageNetStd[c];
            const double share = 0.5 * std::erfc(-z / std::numbers::sqrt2);
            EXPECT_NEAR(at_most, values * share, 5 * std::sqrt(values * share * (1 - share)))
                << "channel " << c << ", " << byte;
        }
    }
}

TEST(RandomErasing, ProbabilityDecides) {
    const Image image = speckled(20, 20, 5);
    Random random(6);
    int erased = 0;
    for (int i = 0; i < 2000; ++i) {
        EXPECT_TRUE(same(apply(RandomErasing{.probability = 0}, image, random), image));
        erased += !same(apply(RandomErasing{.probability = 0.25}, image, random), image);
    }
    EXPECT_NEAR(erased, 500, 97);  // five standard deviations
}

TEST(RandomErasing, KeepsAnySize) {
    Random random(7);
    for (const auto& [width, height] : {std::pair(1, 1), {1, 50}, {50, 1}, {2, 2}, {3, 40}, {0, 0}})
        for (const EraseMode mode : {EraseMode::kConst, EraseMode::kPixel})
            for (int i = 0; i < 200; ++i) {
                const Image result =
                    apply(RandomErasing{.probability = 1, .mode = mode}, speckled(width, height, 8), random);
                EXPECT_EQ(result.width, width);
                EXPECT_EQ(result.height, height);
                EXPECT_EQ(result.pixels.size(), static_cast<std::size_t>(3 * width * height));
            }
}

TEST(RandomErasing, EqualSeedsGiveEqualPictures) {
    const Image image = speckled(20, 20, 9);
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        Random one(seed), same_one(seed);
        EXPECT_TRUE(same(apply(RandomErasing{}, image, one), apply(RandomErasing{}, image, same_one)));
    }
}

}  // namespace
}  // namespace dynvit
