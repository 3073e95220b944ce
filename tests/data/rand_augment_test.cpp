// Levels against timm's (golden metadata), draws against their probabilities, pictures against the steps they consist
// of.
#include "dynvit/data/rand_augment.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "dynvit/io/safetensors.hpp"
#include "picture_support.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using test::error_of;
using test::same;
using test::speckled;

std::vector<Operation> all_operations() {
    std::vector<Operation> operations;
    for (int i = 0; i < kOperations; ++i) operations.push_back(static_cast<Operation>(i));
    return operations;
}

TEST(ParseRandAugment, ReadsTimmsStrings) {
    const RandAugment deit = parse_rand_augment("rand-m9-mstd0.5-inc1");
    EXPECT_EQ(deit.count, 2);
    EXPECT_EQ(deit.magnitude, 9);
    EXPECT_EQ(deit.magnitude_std, 0.5);
    EXPECT_EQ(deit.magnitude_max, 10);
    EXPECT_EQ(deit.probability, 0.5);
    EXPECT_TRUE(deit.increasing);
    EXPECT_FALSE(deit.weighted);
    EXPECT_FALSE(deit.filter);

    const RandAugment other = parse_rand_augment("rand-inc0-p0.25-n3-mmax15-m12-mstd101");
    EXPECT_EQ(other.count, 3);
    EXPECT_EQ(other.magnitude, 12);
    EXPECT_TRUE(std::isinf(other.magnitude_std));
    EXPECT_EQ(other.magnitude_max, 15);
    EXPECT_EQ(other.probability, 0.25);
    EXPECT_FALSE(other.increasing);

    EXPECT_EQ(parse_rand_augment("rand").magnitude, 10);
    EXPECT_EQ(parse_rand_augment("rand-mstd100").magnitude_std, 100);
}

TEST(ParseRandAugment, WeightsComeWithIncreasingOperations) {
    for (const char* text : {"rand-tweights", "rand-inc0-tweights-m5"}) {
        EXPECT_TRUE(parse_rand_augment(text).weighted);
        EXPECT_TRUE(parse_rand_augment(text).increasing);
        EXPECT_EQ(parse_rand_augment(text).count, 2);
    }
}

TEST(ParseRandAugment, SaysWhatIsWrong) {
    const auto fault = [](const std::string& text) { return find_rand_augment_fault(text); };
    EXPECT_EQ(
        error_of([] { parse_rand_augment("rand-x3"); }),
        "[rand_augment] 'rand-x3': found section 'x3', expected m, n, p, mstd, mmax or inc with a number, or tweights");
    EXPECT_EQ(fault("rand-m9"), "");
    EXPECT_EQ(fault(""), "found '' first, expected 'rand', as in rand-m9-mstd0.5-inc1");
    EXPECT_EQ(fault("augmix-m3"), "found 'augmix' first, expected 'rand', as in rand-m9-mstd0.5-inc1");
    EXPECT_EQ(fault("rand-m9.5"), "found section 'm9.5', expected m and a whole number of at least 0 and at most 1000");
    EXPECT_EQ(fault("rand-p1.5"), "found section 'p1.5', expected p and a number of at least 0 and at most 1");
    EXPECT_EQ(fault("rand-m9-n2-m8"), "found section 'm8', expected each section once");
    EXPECT_EQ(fault("rand-t3a"),
              "found section 't3a', expected 'tweights', the one set of operations besides inc0's and inc1's");
    EXPECT_EQ(fault("rand-tweights-n16"),
              "found section 'n16', expected at most n15, as tweights draws no operation twice");
    EXPECT_EQ(fault("rand-tweights-n15"), "");
    for (const char* section : {"",
                                "m",
                                "w0",
                                "9",
                                "m9x",
                                "m1e2",
                                "mstd0.5.1",
                                "mstd",
                                "mstd1e",
                                "mstd1e999",
                                "n0",
                                "n101",
                                "n99999999999999999999",
                                "mmax0",
                                "inc2",
                                "inc",
                                "M9",
                                " m9",
                                "m 9",
                                "p-1",
                                "mstdinf"})
        EXPECT_NE(fault(std::string("rand-") + section), "") << section;
}

TEST(DrawOperations, AllAreEquallyLikely) {
    const RandAugment augment{.count = 3};
    Random random(1);
    std::array<int, kOperations> drawn = {};
    int twice = 0;
    for (int i = 0; i < 10000; ++i) {
        const std::vector<Operation> operations = draw_operations(augment, random);
        ASSERT_EQ(operations.size(), 3u);
        for (const Operation operation : operations) ++drawn[static_cast<std::size_t>(operation)];
        twice += operations[0] == operations[1];
    }
    // Binomial: 30000 draws of 1/15 have a standard deviation of 43; 10000 of 1/15 one of 25. Five of them.
    for (const int count : drawn) EXPECT_NEAR(count, 2000, 216);
    EXPECT_NEAR(twice, 667, 125);
}

TEST(DrawOperations, WeightsAreTimms) {
    const RandAugment augment{.count = 1, .weighted = true};
    const std::map<std::string, double> weights = {{"Rotate", 3},       {"ShearX", 2},         {"ShearY", 2},
                                                   {"TranslateX", 1},   {"TranslateY", 1},     {"Color", 0.25},
                                                   {"Sharpness", 0.25}, {"AutoContrast", 0.25}};
    Random random(2);
    std::map<std::string, int> drawn;
    constexpr int kDraws = 40000;
    for (int i = 0; i < kDraws; ++i) ++drawn[operation_name(draw_operations(augment, random).at(0))];
    for (const Operation operation : all_operations()) {
        const auto weight = weights.find(operation_name(operation));
        const double share = (weight == weights.end() ? 0.05 : weight->second) / (9 + 3 * 0.25 + 7 * 0.05);
        EXPECT_NEAR(drawn[operation_name(operation)], kDraws * share, 5 * std::sqrt(kDraws * share * (1 - share)))
            << operation_name(operation);
    }
}

TEST(DrawOperations, WeightedOnesDoNotRepeat) {
    Random random(3);
    for (const int count : {1, 2, 7, 15, 40})  // 40: parse_rand_augment refuses it, the struct does not
        for (int i = 0; i < 50; ++i) {
            const auto operations = draw_operations({.count = count, .weighted = true}, random);
            EXPECT_EQ(operations.size(), static_cast<std::size_t>(std::min(count, 15)));
            EXPECT_EQ(std::set<Operation>(operations.begin(), operations.end()).size(), operations.size());
        }
}

// The second of two by weight: not the first, the rest in proportion. The odds that Rotate is among the two are
// p + sum over others q p / (1 - q).
TEST(DrawOperations, SecondDrawIsByTheWeightsThatAreLeft) {
    const double total = 9 + 3 * 0.25 + 7 * 0.05, rotate = 3 / total;
    double share = rotate;
    for (const auto& [weight, count] : {std::pair(2.0, 2), {1.0, 2}, {0.25, 3}, {0.05, 7}})
        share += count * (weight / total) * rotate / (1 - weight / total);
    Random random(4);
    int among = 0;
    for (int i = 0; i < 10000; ++i) {
        const auto operations = draw_operations({.weighted = true}, random);
        among += std::ranges::count(operations, Operation::kRotate);
    }
    EXPECT_NEAR(among, 10000 * share, 250);  // five standard deviations of at most 50
}

TEST(DrawLevel, IsNormalAndClamped) {
    const RandAugment augment = parse_rand_augment("rand-m9-mstd0.5");
    Random random(5);
    int below = 0, at_most = 0;
    for (int i = 0; i < 10000; ++i) {
        const double level = draw_level(augment, random);
        ASSERT_GE(level, 0);
        ASSERT_LE(level, 10);
        below += level < 8.5;
        at_most += level == 10;
    }
    EXPECT_NEAR(below, 1587, 183);  // one standard deviation below: 0.1587; five standard deviations of 37
    EXPECT_NEAR(at_most, 228, 75);  // two above: 0.0228
}

TEST(DrawLevel, WithoutNoiseIsTheMagnitude) {
    Random random(6);
    EXPECT_EQ(draw_level(parse_rand_augment("rand-m7"), random), 7);
    EXPECT_EQ(draw_level(parse_rand_augment("rand-m12"), random), 10);
    EXPECT_EQ(draw_level(parse_rand_augment("rand-m12-mmax15"), random), 12);
    EXPECT_EQ(draw_level(parse_rand_augment("rand-m12-mmax11"), random), 11);
    EXPECT_EQ(random.bits(), Random(6).bits());
}

TEST(DrawLevel, IsUniformForALargeDeviation) {
    const RandAugment augment = parse_rand_augment("rand-m8-mstd101");
    Random random(7);
    std::array<int, 4> quarters = {};
    for (int i = 0; i < 10000; ++i) ++quarters.at(static_cast<std::size_t>(draw_level(augment, random) / 2));
    for (const int count : quarters) EXPECT_NEAR(count, 2500, 217);  // five standard deviations
}

/// The name in timm's set of increasing operations.
std::string timm_name(Operation operation) {
    std::string plain = operation_name(operation);
    if (plain.starts_with("Translate")) return plain + "Rel";
    for (const char* changed : {"Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness"})
        if (plain == changed) return plain + "Increasing";
    return plain;
}

// The file has each level once, with the sign that timm happened to draw.
TEST(LevelArgument, IsTimms) {
    const auto metadata = read_safetensors(test::golden("images/randaugment.safetensors")).metadata;
    const auto golden = nlohmann::json::parse(metadata.at("levels_0_3_9_10"));
    constexpr double kLevels[] = {0, 3, 9, 10};
    std::size_t compared = 0;
    for (const Operation operation : all_operations()) {
        if (!golden.contains(timm_name(operation))) continue;
        const auto& arguments = golden[timm_name(operation)];
        ASSERT_EQ(arguments.size(), std::size(kLevels));
        for (std::size_t i = 0; i < std::size(kLevels); ++i) {
            const double expected = arguments[i][0].get<double>();
            const double one = level_argument(operation, kLevels[i], true, false);
            const double other = level_argument(operation, kLevels[i], true, true);
            const double nearer = std::abs(one - expected) < std::abs(other - expected) ? one : other;
            EXPECT_NEAR(nearer, expected, 1e-12) << operation_name(operation) << " at " << kLevels[i];
        }
        ++compared;
    }
    EXPECT_EQ(compared, golden.size());
    EXPECT_EQ(compared, 12u);
}

TEST(LevelArgument, HasTwoDirections) {
    using enum Operation;
    for (const Operation operation : {kRotate, kShearX, kShearY, kTranslateX, kTranslateY})
        for (const bool increasing : {false, true})
            EXPECT_EQ(level_argument(operation, 6, increasing, true), -level_argument(operation, 6, increasing, false));
    for (const Operation operation : {kColor, kContrast, kBrightness, kSharpness}) {
        EXPECT_NEAR(level_argument(operation, 6, true, false), 1.54, 1e-12);
        EXPECT_NEAR(level_argument(operation, 6, true, true), 0.46, 1e-12);
        EXPECT_EQ(level_argument(operation, 100, true, true), 0.1);
    }
    for (const Operation operation : {kPosterize, kSolarize, kSolarizeAdd, kAutoContrast})
        EXPECT_EQ(level_argument(operation, 6, true, true), level_argument(operation, 6, true, false));
}

// The formulas of timm's other set, worked out by hand.
TEST(LevelArgument, OtherSetWeakensSomeOperations) {
    using enum Operation;
    EXPECT_EQ(level_argument(kPosterize, 9, false, false), 3);
    EXPECT_EQ(level_argument(kPosterize, 0, false, false), 0);
    EXPECT_EQ(level_argument(kSolarize, 9, false, false), 230);
    EXPECT_EQ(level_argument(kSolarize, 15, false, false), 256);
    EXPECT_EQ(level_argument(kSolarizeAdd, 9, false, false), 99);
    EXPECT_EQ(level_argument(kSolarizeAdd, 15, true, false), 128);
    for (const bool negative : {false, true}) {
        EXPECT_NEAR(level_argument(kColor, 9, false, negative), 1.72, 1e-12);
        EXPECT_NEAR(level_argument(kSharpness, 0, false, negative), 0.1, 1e-12);
    }
}

TEST(RandAugment, IsItsOperationsOneAfterTheOther) {
    const Image image = speckled(24, 20, 8);
    const RandAugment augment = parse_rand_augment("rand-m9-mstd0.5-inc1-n4");
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
        Random random(seed), by_hand(seed);
        const Image result = apply(augment, image, random);
        Image expected = image;
        for (const Operation operation : draw_operations(augment, by_hand)) {
            if (by_hand.uniform() >= 0.5) continue;
            const double level = draw_level(augment, by_hand);
            const double argument = level_argument(operation, level, true, by_hand.chance(0.5));
            const Filter filter = by_hand.chance(0.5) ? Filter::kBilinear : Filter::kBicubic;
            expected = apply(operation, argument, filter, expected);
        }
        EXPECT_TRUE(same(result, expected)) << "seed " << seed;
        EXPECT_EQ(random.bits(), by_hand.bits());
    }
}

std::string bytes(const Image& image) {
    return {image.pixels.begin(), image.pixels.end()};
}

TEST(RandAugment, FilterCanBeFixed) {
    const Image image = speckled(24, 20, 9);
    RandAugment augment{.count = 1, .magnitude = 9, .probability = 1};
    std::set<std::string> seen, possible;
    for (const Operation operation : all_operations())
        for (const bool negative : {false, true})
            possible.insert(
                bytes(apply(operation, level_argument(operation, 9, false, negative), Filter::kBicubic, image)));
    augment.filter = Filter::kBicubic;
    Random random(10);
    for (int i = 0; i < 500; ++i) seen.insert(bytes(apply(augment, image, random)));
    EXPECT_EQ(seen, possible);
    augment.filter = std::nullopt;
    for (int i = 0; i < 500; ++i) seen.insert(bytes(apply(augment, image, random)));
    EXPECT_EQ(seen.size(), possible.size() + 10);  // five geometric operations, two directions, bilinear
}

TEST(RandAugment, ProbabilityDecides) {
    const Image image = speckled(24, 20, 11);
    Random random(12);
    for (int i = 0; i < 100; ++i) {
        EXPECT_TRUE(same(apply(RandAugment{.count = 5, .probability = 0}, image, random), image));
        EXPECT_FALSE(
            same(apply(RandAugment{.count = 1, .magnitude = 9, .probability = 1, .increasing = true}, image, random),
                 image));
    }
    int unchanged = 0;
    for (int i = 0; i < 1000; ++i)
        unchanged += same(apply(RandAugment{.magnitude = 9, .increasing = true}, image, random), image);
    EXPECT_NEAR(unchanged, 250 + 1, 5 * 14);  // neither of two; or two inversions, 0.25 / 225 of the time
}

TEST(RandAugment, EqualSeedsGiveEqualPictures) {
    const Image image = speckled(30, 30, 13);
    const RandAugment augment = parse_rand_augment("rand-m9-mstd0.5-inc1");
    std::set<std::string> different;
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        Random one(seed), same_one(seed);
        const Image result = apply(augment, image, one);
        EXPECT_TRUE(same(result, apply(augment, image, same_one)));
        different.insert(bytes(result));
    }
    EXPECT_GT(different.size(), 25u);
}

TEST(RandAugment, KeepsAnySize) {
    Random random(14);
    for (const auto& [width, height] : {std::pair(1, 1), {1, 9}, {9, 1}, {2, 3}, {37, 21}})
        for (const char* text : {"rand-n8-p1-inc1", "rand-n8-p1-m1000-mmax1000", "rand-n8-p1-m0", "rand-n8-p1-mstd101"})
            for (int i = 0; i < 20; ++i) {
                const Image result = apply(parse_rand_augment(text), speckled(width, height, random.bits()), random);
                EXPECT_EQ(result.width, width);
                EXPECT_EQ(result.height, height);
                EXPECT_EQ(result.pixels.size(), static_cast<std::size_t>(3 * width * height));
            }
}

}  // namespace
}  // namespace dynvit
