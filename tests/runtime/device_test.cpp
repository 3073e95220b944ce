#include "dynvit/runtime/device.hpp"

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

}  // namespace
}  // namespace dynvit
