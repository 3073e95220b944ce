#include "dynvit/infer/device.hpp"

#include <ATen/Context.h>

#include "models/golden_model.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

TEST(Device, ByName) {
    EXPECT_EQ(parse_device("cpu"), at::Device(at::kCPU));
    EXPECT_EQ(parse_device("auto").is_cuda(), at::hasCUDA());
    EXPECT_EQ(test::error_of([] { parse_device("gpu"); }),
              "[device] unknown device 'gpu'; expected auto, cpu, cuda, cuda:1, ...");
    EXPECT_NE(test::error_of([] { parse_device("cuda:99"); }).find("cuda:99 was asked for, but LibTorch sees"),
              std::string::npos);
}

TEST(Device, PrecisionsByName) {
    EXPECT_EQ(parse_precision("bfloat16"), at::kBFloat16);
    EXPECT_EQ(parse_inference_precision("int8"), at::kQInt8);
    EXPECT_EQ(parse_inference_precision("float8"), at::kFloat8_e4m3fn);
    EXPECT_EQ(test::error_of([] { parse_precision("float8"); }),
              "[precision] unknown precision 'float8'; expected one of float32, bfloat16, float16");
}

TEST(Device, TellsWhatRunsByLibTorchsKernels) {
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
    EXPECT_EQ(lines.size(), 2u);
    EXPECT_NE(lines[0].find("found heads of 10"), std::string::npos);
    EXPECT_TRUE(slow_paths(model_settings("deit_small"), at::kCUDA).empty());
}

}  // namespace
}  // namespace dynvit
