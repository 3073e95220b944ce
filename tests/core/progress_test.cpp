#include "dynvit/core/progress.hpp"

#include "support.hpp"

namespace dynvit {
namespace {

TEST(Progress, ClockText) {
    EXPECT_EQ(clock_text(0), "0:00");
    EXPECT_EQ(clock_text(65.4), "1:05");
    EXPECT_EQ(clock_text(3600 + 2 * 60 + 3), "1:02:03");
    EXPECT_EQ(clock_text(-5), "0:00");
}

TEST(Progress, Fixed) {
    EXPECT_EQ(fixed(0.7254, 2), "0.73");
    EXPECT_EQ(fixed(-3, 1), "-3.0");
}

}  // namespace
}  // namespace dynvit
