#include "dynvit/ops/inference_linear.hpp"

#include <ATen/ATen.h>

#include "dynvit/ops/gpu_kernels.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

// Against the definition in float64, for shapes and precisions that models have and odd ones.
void expect_linear(const at::Device& device, at::ScalarType precision, double tolerance) {
    const at::ScalarType type = activation_type(precision);
    using Sizes = std::pair<std::int64_t, std::int64_t>;
    for (const auto& [in, out] : {Sizes{192, 576}, Sizes{33, 7}, Sizes{8, 2}}) {
        const at::Tensor weight = at::randn({out, in}, test::generator(1)) / std::sqrt(static_cast<double>(in));
        const at::Tensor bias = at::randn({out}, test::generator(2));
        const at::Tensor x = at::randn({2, 5, in}, test::generator(3)).to(device, type);
        const at::Tensor residual = at::randn({2, 5, out}, test::generator(4)).to(device, type);
        for (const bool has_bias : {true, false}) {
            const InferenceLinear linear(weight.to(device), has_bias ? bias.to(device) : at::Tensor(), precision);
            const at::Tensor expected = at::linear(x.cpu().to(at::kDouble), weight.to(at::kDouble),
                                                   has_bias ? bias.to(at::kDouble) : at::Tensor());
            EXPECT_EQ(linear(x).scalar_type(), type);
            EXPECT_CLOSE(linear(x).to(at::kDouble), expected, tolerance) << in << " to " << out;
            EXPECT_CLOSE(linear.gelu(x).to(at::kDouble), at::gelu(expected), tolerance) << in << " to " << out;
            EXPECT_CLOSE(linear.add(x, residual).to(at::kDouble), expected + residual.cpu(), tolerance);
            EXPECT_EQ(linear(x.slice(1, 0, 0)).sizes(), (at::IntArrayRef{2, 0, out}));
            const at::Tensor rows = x.transpose(0, 1);  // not contiguous
            EXPECT_CLOSE(linear(rows).to(at::kDouble), expected.transpose(0, 1), tolerance);
        }
    }
}

TEST(InferenceLinear, EqualsTheDefinition) {
    EXPECT_TRUE(fast_on_cpu(at::kFloat));
    expect_linear(at::kCPU, at::kFloat, 1e-5);
    expect_linear(at::kCPU, at::kBFloat16, 2e-2);
    expect_linear(at::kCPU, at::kHalf, 3e-3);
}

TEST(InferenceLinear, EightBits) {
    if (!fast_on_cpu(at::kQInt8)) GTEST_SKIP() << "needs a processor with VNNI";
    expect_linear(at::kCPU, at::kQInt8, 4e-2);
    const InferenceLinear none(at::zeros({3, 4}), {}, at::kQInt8);
    EXPECT_CLOSE(none(at::ones({1, 4})), at::zeros({1, 3}), 0);
}

TEST(InferenceLinear, OnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    expect_linear(at::kCUDA, at::kFloat, 1e-4);
    expect_linear(at::kCUDA, at::kBFloat16, 2e-2);
    expect_linear(at::kCUDA, at::kHalf, 3e-3);
}

TEST(InferenceLinear, Float8) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    if (const std::string reason = why_no_float8(at::kCUDA); !reason.empty()) GTEST_SKIP() << "float8: " << reason;
    // Two roundings by up to a sixteenth, in sums of many products with errors of either sign.
    expect_linear(at::kCUDA, at::kFloat8_e4m3fn, 6e-2);
    const InferenceLinear odd(at::ones({8, 24}, at::kCUDA), {}, at::kFloat8_e4m3fn);
    EXPECT_FALSE(odd.takes_scaled_rows());
    const InferenceLinear none(at::zeros({32, 16}, at::kCUDA), {}, at::kFloat8_e4m3fn);
    EXPECT_CLOSE(none(at::ones({1, 16}, at::device(at::kCUDA).dtype(at::kBFloat16))), at::zeros({1, 32}), 0);
}

at::Tensor unscaled(const ScaledRows& rows) {
    return rows.values.cpu().to(at::kDouble) * rows.scales.cpu().to(at::kDouble).unsqueeze(1);
}

// The product of what was rounded, in float64: what is left is the result's rounding to bfloat16, and of a sum's before
// the residual where that is added afterwards.
TEST(InferenceLinear, MultipliesScaledRows) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    if (const std::string reason = why_no_float8(at::kCUDA); !reason.empty()) GTEST_SKIP() << "float8: " << reason;
    using Sizes = std::pair<std::int64_t, std::int64_t>;
    for (const auto& [in, out] : {Sizes{16, 16}, Sizes{48, 16}, Sizes{192, 576}, Sizes{768, 192}, Sizes{384, 1152},
                                  Sizes{384, 384}, Sizes{384, 1536}, Sizes{1536, 384}}) {
        const at::Tensor weight = at::randn({out, in}, test::generator(1)) * at::linspace(0.1, 3, out).unsqueeze(1);
        const at::Tensor bias = (at::randn({out}, test::generator(2)) * 5).to(at::kBFloat16);
        const at::Tensor rounded_weight = unscaled(quantize_rows_plain(weight));
        for (const std::int64_t rows : {1, 3, 16, 197, 1001}) {
            const at::Tensor x = at::randn({rows, in}, test::generator(3)) * at::linspace(2, 0.1, rows).unsqueeze(1);
            const at::Tensor residual = (at::randn({rows, out}, test::generator(4)) * 5).to(at::kCUDA, at::kBFloat16);
            const ScaledRows quantized = quantize_rows(x.to(at::kCUDA, at::kBFloat16));
            for (const bool has_bias : {true, false}) {
                const InferenceLinear linear(weight.cuda(), has_bias ? bias.cuda() : at::Tensor(), at::kFloat8_e4m3fn);
                ASSERT_TRUE(linear.takes_scaled_rows());
                at::Tensor expected = at::linear(unscaled(quantized), rounded_weight);
                if (has_bias) expected = expected + bias.to(at::kDouble);
                EXPECT_EQ(linear(quantized).scalar_type(), at::kBFloat16);
                EXPECT_CLOSE(linear(quantized), expected, 5e-3)
                    << rows << " x " << in << " to " << out << ' ' << has_bias;
                EXPECT_CLOSE(linear.add(quantized, residual), expected + residual.cpu(), 8e-3)
                    << rows << " x " << in << " to " << out << ' ' << has_bias;
            }
        }
    }
}

TEST(InferenceLinear, WritesASumIntoPartOfATensorOnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    const at::Tensor weight = at::randn({48, 64}, test::generator(1)) / 8, bias = at::randn({48}, test::generator(2)),
                     x = at::randn({3, 9, 64}, test::generator(3)), added = at::randn({1, 9, 48}, test::generator(4));
    const InferenceLinear linear(weight.cuda(), bias.cuda(), at::kBFloat16);
    if (!linear.fused()) GTEST_SKIP() << "needs the CUDA kernels";
    at::Tensor whole = at::full({3, 10, 48}, 7, at::device(at::kCUDA).dtype(at::kBFloat16));
    linear.write_sum(whole.slice(1, 1), x.cuda().to(at::kBFloat16), added.cuda().to(at::kBFloat16));
    EXPECT_CLOSE(whole.slice(1, 1).to(at::kFloat), at::linear(x, weight, bias) + added, 2e-2);
    EXPECT_TRUE(whole.select(1, 0).eq(7).all().item<bool>());
}

// The first of near numbers of rows chooses the algorithm of all of them.
TEST(InferenceLinear, NearNumbersOfRowsOnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    const at::Tensor weight = at::randn({96, 64}, test::generator(1)) / 8, bias = at::randn({96}, test::generator(2)),
                     x = at::randn({36000, 64}, test::generator(3));
    const at::Tensor expected = at::linear(x, weight, bias);
    for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
        const InferenceLinear linear(weight.cuda(), bias.cuda(), type);
        const at::Tensor on_gpu = x.cuda().to(type);
        for (const std::int64_t rows : {1023, 960, 961, 1000, 512, 513, 575, 32768, 36000, 35001, 33333}) {
            const at::Tensor some = on_gpu.slice(0, 0, rows), residual = at::ones({rows, 96}, some.options());
            EXPECT_CLOSE(linear(some).to(at::kFloat), expected.slice(0, 0, rows), 2e-2) << rows;
            EXPECT_CLOSE(linear.gelu(some).to(at::kFloat), at::gelu(expected.slice(0, 0, rows)), 2e-2) << rows;
            EXPECT_CLOSE(linear.add(some, residual).to(at::kFloat), expected.slice(0, 0, rows) + 1, 2e-2) << rows;
        }
    }
}

}  // namespace
}  // namespace dynvit
