// Orders against what they promise: each index once, near its place in a stream of shards that the test builds itself.
#include "dynvit/data/training_order.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "dynvit/core/random.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using Sizes = std::vector<std::size_t>;
using Order = std::vector<std::size_t>;

const Sizes kShards = {100, 100, 37, 100, 1, 100, 62};  // 500 samples
constexpr std::size_t kSamples = 500;

Order counting(std::size_t samples) {
    Order order(samples);
    std::iota(order.begin(), order.end(), std::size_t{0});
    return order;
}

Order sorted(Order order) {
    std::sort(order.begin(), order.end());
    return order;
}

/// The shards' numbers in the order in which `order` has them on average.
std::vector<std::size_t> shards_by_mean_place(const Order& order, const Sizes& shards) {
    std::vector<std::size_t> shard_of;
    for (std::size_t s = 0; s < shards.size(); ++s) shard_of.insert(shard_of.end(), shards[s], s);
    std::vector<std::pair<double, std::size_t>> means(shards.size());
    for (std::size_t s = 0; s < shards.size(); ++s) means[s].second = s;
    for (std::size_t place = 0; place < order.size(); ++place) {
        const std::size_t shard = shard_of[order[place]];
        means[shard].first += static_cast<double>(place) / static_cast<double>(shards[shard]);
    }
    std::sort(means.begin(), means.end());
    std::vector<std::size_t> sequence;
    for (const auto& [mean, shard] : means) sequence.push_back(shard);
    return sequence;
}

TEST(TrainingOrder, HasEverySampleOnce) {
    for (const std::int64_t window : {0, 1, 2, 10, 499, 500, 10000})
        for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
            EXPECT_EQ(sorted(training_order(kSamples, kShards, window, 1, epoch)), counting(kSamples)) << window;
            EXPECT_EQ(sorted(training_order(kSamples, {}, window, 1, epoch)), counting(kSamples)) << window;
        }
    EXPECT_EQ(training_order(0, {}, 5, 0, 0), Order{});
    EXPECT_EQ(training_order(3, {0, 3, 0}, 1, 0, 0), (Order{0, 1, 2}));
}

TEST(TrainingOrder, DependsOnSeedAndEpochAlone) {
    std::set<Order> orders;
    for (const std::int64_t window : {0, 50})
        for (std::uint64_t seed = 0; seed < 3; ++seed)
            for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
                const Order order = training_order(kSamples, kShards, window, seed, epoch);
                EXPECT_EQ(training_order(kSamples, kShards, window, seed, epoch), order);
                orders.insert(order);
            }
    EXPECT_EQ(orders.size(), 18u);
}

TEST(TrainingOrder, WindowBoundsTheWayFromTheStream) {
    const Sizes equal(20, 50);  // of equal size, so that the test finds the stream: shards in the order of their means
    for (const std::int64_t window : {1, 2, 10, 40})
        for (std::int64_t epoch = 0; epoch < 5; ++epoch) {
            const Order order = training_order(1000, equal, window, 3, epoch);
            Order stream;
            for (const std::size_t shard : shards_by_mean_place(order, equal))
                for (std::size_t i = 0; i < 50; ++i) stream.push_back(50 * shard + i);
            std::map<std::size_t, std::int64_t> place;
            for (std::size_t i = 0; i < order.size(); ++i) place[order[i]] = static_cast<std::int64_t>(i);
            std::int64_t furthest = 0;
            for (std::size_t i = 0; i < stream.size(); ++i)
                furthest = std::max(furthest, std::abs(place[stream[i]] - static_cast<std::int64_t>(i)));
            EXPECT_LT(furthest, window);
            if (window >= 10) {
                EXPECT_GT(furthest, window / 2) << "the window is used";
            }
        }
}

TEST(TrainingOrder, ShardsComeInAnotherOrderEachEpoch) {
    const Sizes equal(6, 100);
    std::set<std::vector<std::size_t>> sequences;
    for (std::int64_t epoch = 0; epoch < 20; ++epoch)
        sequences.insert(shards_by_mean_place(training_order(600, equal, 20, 0, epoch), equal));
    EXPECT_GT(sequences.size(), 15u);  // of 720
}

TEST(TrainingOrder, WithoutAWindowItIsThePermutationOfAllSamples) {
    const Order all = training_order(kSamples, {}, 0, 9, 4);
    EXPECT_EQ(training_order(kSamples, {}, 100, 9, 4), all) << "no shards: nothing to be read in sequence";
    EXPECT_EQ(training_order(kSamples, kShards, 0, 9, 4), all);
    EXPECT_EQ(training_order(kSamples, kShards, 500, 9, 4), all);
    Order expected = counting(kSamples);  // what checkpoints of earlier versions were trained with
    Random(mix_seed({9, 4, 0x6f72646572})).shuffle(expected);
    EXPECT_EQ(all, expected);
}

}  // namespace
}  // namespace dynvit
