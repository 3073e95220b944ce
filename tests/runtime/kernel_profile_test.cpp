#include "dynvit/runtime/kernel_profile.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dynvit/runtime/timing.hpp"

namespace dynvit {
namespace {

TEST(KernelProfile, TableAddsUp) {
    const std::vector<KernelTime> kernels = {{"product", 3, 0.006}, {"norm", 2, 0.003}, {"copy", 4, 0.001}};
    EXPECT_EQ(table_of(kernels, 2),
              "       ms  share   runs  kernel\n"
              "    6.000  60.0%      3  product\n"
              "    3.000  30.0%      2  norm\n"
              "    1.000  10.0%      4  the rest (1)\n"
              "   10.000 100.0%      9  all\n");
    EXPECT_EQ(table_of(kernels, 3).find("the rest"), std::string::npos);
}

TEST(KernelProfile, SeesWhatTheGpuRan) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    const at::Tensor x = at::randn({512, 512}, at::kCUDA);
    wait_for(x.device());
    const std::vector<KernelTime> kernels = profile_kernels([&] {
        for (int i = 0; i < 3; ++i) at::softmax(x, 1);
        wait_for(x.device());
    });
    ASSERT_EQ(kernels.size(), 1u);
    EXPECT_EQ(kernels[0].runs, 3);
    EXPECT_GT(kernels[0].seconds, 0);
    EXPECT_NE(kernels[0].name.find("oftmax"), std::string::npos) << kernels[0].name;
}

}  // namespace
}  // namespace dynvit
