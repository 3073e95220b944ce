#include "dynvit/core/processor_load.hpp"

#include <gtest/gtest.h>

namespace dynvit {
namespace {

constexpr const char* kStat =
    "cpu  1000 0 0 0 0 0 0 0 0 0\n"
    "cpu0 10 20 30 400 5 6 7 8 0 0\n"
    "cpu1 1 2 3 4 5 6 7 8 9 10\r\n"
    "cpu10 100 0 0 0 0 0 0 0 0 0\n"
    "intr 2565834 0 0\n"
    "ctxt 1990473\n";

TEST(ProcessorLoad, TicksAreOfTheProcessorsThatCount) {
    const auto of = [](const std::vector<int>& used) {
        const ProcessorTicks ticks = read_processor_ticks(kStat, used);
        return std::pair(ticks.busy, ticks.all);
    };
    EXPECT_EQ(of({0}), std::pair(std::int64_t{10 + 30 + 6 + 7 + 8}, std::int64_t{10 + 20 + 30 + 400 + 5 + 6 + 7 + 8}))
        << "niced work is not busy";
    EXPECT_EQ(of({1}), std::pair(std::int64_t{1 + 3 + 6 + 7 + 8}, std::int64_t{1 + 2 + 3 + 4 + 5 + 6 + 7 + 8}));
    EXPECT_EQ(of({1, 10}).first, 25 + 100);
    EXPECT_EQ(of({}), std::pair(std::int64_t{0}, std::int64_t{0}));
    EXPECT_EQ(read_processor_ticks("", {0}).all, 0);
    EXPECT_EQ(read_processor_ticks("cpu0 1 2\ncpu\ncpux 1 2 3 4 5 6 7 8\n", {0}).all, 0) << "lines of another kind";
}

TEST(ProcessorLoad, AControlGroupMayAllowFewer) {
    EXPECT_EQ(read_processor_quota("150000 100000\n"), 1.5);
    EXPECT_EQ(read_processor_quota("max 100000\n"), std::nullopt);
    EXPECT_EQ(read_processor_quota(""), std::nullopt);
    EXPECT_EQ(read_processor_quota("0 100000"), std::nullopt);
}

TEST(ProcessorLoad, ThreadsFindAProcessorEach) {
    EXPECT_EQ(threads_that_run(2, 2, 0.0), 2);
    EXPECT_EQ(threads_that_run(2, 2, 0.4), 2);
    EXPECT_EQ(threads_that_run(2, 2, 1.0), 1);
    EXPECT_EQ(threads_that_run(2, 2, 2.0), 1) << "one at least";
    EXPECT_EQ(threads_that_run(8, 16, 6.0), 8) << "two a core, of which others leave enough";
    EXPECT_EQ(threads_that_run(8, 16, 12.0), 4);
    EXPECT_EQ(threads_that_run(64, 1.5, 0.0), 2) << "a quota";
    EXPECT_EQ(threads_that_run(1, 64, 0.0), 1);
}

TEST(ProcessorLoad, IsOfThisMachine) {
    const ProcessorLoad load;
    EXPECT_GT(load.processors(), 0);
    const double busy = load.busy();
    EXPECT_GE(busy, 0);
    EXPECT_LE(busy, load.processors() + 0.5) << "ticks are coarse";
}

}  // namespace
}  // namespace dynvit
