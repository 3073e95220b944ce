#include "dynvit/runtime/timing.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <numeric>
#include <thread>

namespace dynvit {
namespace {

TEST(Timing, EveryCaseOnceARoundAndEveryOtherRoundInReverse) {
    std::vector<int> calls;
    const auto sleeper = [&](int which, int milliseconds) {
        return [&calls, which, milliseconds] {
            calls.push_back(which);
            std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
        };
    };
    TimingOptions options;
    options.seconds = 0.004;
    options.min_rounds = 11;
    double last_share = 0;
    const std::vector<Timing> timings =
        time_interleaved({sleeper(0, 1), sleeper(1, 4)}, options, [&](double share) { last_share = share; });
    ASSERT_EQ(timings.size(), 2u);
    EXPECT_EQ(timings[0].latency.size(), 11u);
    EXPECT_EQ(timings[1].latency, timings[1].pace) << "on the CPU a call by itself is a call in a row";
    EXPECT_EQ(last_share, 1.0);
    EXPECT_GE(*std::ranges::min_element(timings[1].latency), 0.004);
    EXPECT_GE(*std::ranges::min_element(timings[0].latency), 0.001);
    const std::vector<int> rounds(calls.end() - 22, calls.end());
    for (std::size_t r = 0; r < 11; ++r) {
        EXPECT_EQ(rounds[2 * r], r % 2 == 0 ? 0 : 1);
        EXPECT_EQ(rounds[2 * r + 1], r % 2 == 0 ? 1 : 0);
    }
}

TEST(Timing, Percentiles) {
    EXPECT_DOUBLE_EQ(percentile({3, 1, 2}, 0.5), 2);
    EXPECT_DOUBLE_EQ(percentile({4, 1, 2, 3}, 0.5), 2.5);
    EXPECT_DOUBLE_EQ(percentile({0, 10}, 0.95), 9.5);
    EXPECT_DOUBLE_EQ(percentile({7}, 0.99), 7);
    EXPECT_DOUBLE_EQ(percentile({1, 2, 3}, 1.0), 3);
}

TEST(Timing, IntervalOfTheMedian) {
    std::vector<double> values(100);
    std::iota(values.begin(), values.end(), 1.0);
    const MedianInterval m = median_interval(values);
    EXPECT_DOUBLE_EQ(m.median, 50.5);
    EXPECT_DOUBLE_EQ(m.low, 40) << "tables of the binomial distribution: the 40th and the 61st of 100";
    EXPECT_DOUBLE_EQ(m.high, 61);
    const MedianInterval few = median_interval({2, 1, 3});
    EXPECT_DOUBLE_EQ(few.low, 1);
    EXPECT_DOUBLE_EQ(few.high, 3);
}

TEST(Timing, SpeedupIsTheMedianOfTheRounds) {
    Timing faster, slower;
    faster.pace = {1, 2, 1};
    slower.pace = {2, 2, 3};
    EXPECT_DOUBLE_EQ(speedup(faster, slower).median, 2);
    EXPECT_DOUBLE_EQ(speedup(faster, slower).low, 1);
    EXPECT_DOUBLE_EQ(speedup(faster, slower).high, 3);
}

TEST(Timing, MostMemoryThatACallHolds) {
    const auto call = [] {
        at::Tensor a = at::empty({1 << 20}, at::kByte);
        a = at::Tensor();
        const at::Tensor b = at::empty({3 << 20}, at::kByte), c = at::empty({1 << 19}, at::kByte);
    };
    EXPECT_EQ(peak_tensor_bytes(call, at::kCPU), (3 << 20) + (1 << 19));
}

}  // namespace
}  // namespace dynvit
