#include "dynvit/core/random.hpp"

#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "support.hpp"

namespace dynvit {
namespace {

TEST(Random, FollowsSplitMix64) {  // the published generator's first values from seed 1234567
    Random random(1234567);
    EXPECT_EQ(random.bits(), 6457827717110365317ULL);
    EXPECT_EQ(random.bits(), 3203168211198807973ULL);
}

TEST(Random, SeedsDependOnEveryPartAndItsPlace) {
    std::set<std::uint64_t> seeds = {mix_seed({}),     mix_seed({0}),    mix_seed({1}),    mix_seed({0, 0}),
                                     mix_seed({0, 1}), mix_seed({1, 0}), mix_seed({1, 1}), mix_seed({0, 0, 0})};
    EXPECT_EQ(seeds.size(), 8u);
    EXPECT_EQ(mix_seed({3, 4}), mix_seed({3, 4}));
}

TEST(Random, MomentsOfTheDistributions) {
    constexpr int kDraws = 200000;
    Random random(1);
    double uniform = 0, normal = 0, squares = 0;
    std::vector<int> counts(7);
    for (int i = 0; i < kDraws; ++i) {
        uniform += random.uniform();
        const double value = random.normal();
        normal += value;
        squares += value * value;
        ++counts[random.integer(-3, 4) + 3];
    }
    const double error = 5 / std::sqrt(kDraws);  // five standard errors of a unit deviation
    EXPECT_NEAR(uniform / kDraws, 0.5, error * 0.29);
    EXPECT_NEAR(normal / kDraws, 0.0, error);
    EXPECT_NEAR(squares / kDraws, 1.0, error * 1.42);
    for (const int count : counts) EXPECT_NEAR(double(count) / kDraws, 1.0 / 7, error * 0.35);
}

TEST(Random, ShufflePermutes) {
    std::vector<int> values(50);
    std::iota(values.begin(), values.end(), 0);
    std::vector<int> shuffled = values;
    Random(5).shuffle(shuffled);
    EXPECT_NE(shuffled, values);
    std::sort(shuffled.begin(), shuffled.end());
    EXPECT_EQ(shuffled, values);
}

}  // namespace
}  // namespace dynvit
