#include "dynvit/infer/slow_paths.hpp"

#include <ATen/Context.h>
#include <gtest/gtest.h>

#include "inference_support.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

TEST(SlowPaths, TellsWhatRunsByLibTorchsKernels) {
    const ModelSettings odd = [] {
        ModelSettings settings = test::tiny_settings({1, 2});
        settings.embed_dim = 20;
        settings.num_heads = 2;
        return settings;
    }();
    EXPECT_TRUE(slow_paths(odd, at::kCPU).empty());
    if (!at::hasCUDA()) GTEST_SKIP() << "the rest needs a GPU";
    const std::vector<std::string> lines = slow_paths(odd, at::kCUDA);
    ASSERT_FALSE(lines.empty());
    if (lines.front().starts_with("everything")) return;  // a build without kernels
    ASSERT_EQ(lines.size(), 4u) << "attention, norms, products, prediction modules";
    EXPECT_NE(lines[0].find("found heads of 10"), std::string::npos);
    EXPECT_NE(lines[1].find("found 20 channels"), std::string::npos);
    EXPECT_NE(lines[2].find("found 20 inputs and 80 outputs"), std::string::npos);
    EXPECT_NE(lines[3].find("found 20 channels"), std::string::npos);
    EXPECT_TRUE(slow_paths(model_settings("deit_small"), at::kCUDA).empty());
}

}  // namespace
}  // namespace dynvit
