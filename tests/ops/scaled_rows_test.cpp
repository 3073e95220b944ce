// Rows in float8: the definition against what rounding may do, the kernels against both.
#include "dynvit/ops/scaled_rows.hpp"

#include <ATen/ATen.h>

#include "dynvit/ops/gpu_kernels.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

constexpr double kArithmetic = 1e-5;  // of float32, relative to the largest of what a row was computed from

// Each value is off by at most half a step of e4m3: a sixteenth of it, or of the steps of 2^-9 around 0.
// @param input what `exact` was computed from
void expect_rounded(const ScaledRows& rows, const at::Tensor& exact, const at::Tensor& input) {
    ASSERT_EQ(rows.values.sizes(), exact.sizes());
    EXPECT_EQ(rows.values.scalar_type(), at::kFloat8_e4m3fn);
    EXPECT_EQ(rows.scales.scalar_type(), at::kFloat);
    const at::Tensor expected = exact.to(at::kCPU, at::kDouble).reshape({-1, exact.size(-1)});
    const at::Tensor values = rows.values.cpu().to(at::kDouble).view_as(expected);
    const at::Tensor scales = rows.scales.cpu().to(at::kDouble).unsqueeze(1);
    const at::Tensor largest = expected.abs().amax(1, true).clamp_min(1e-12);
    const at::Tensor arithmetic =
        kArithmetic *
        input.to(at::kCPU, at::kDouble).reshape({-1, input.size(-1)}).abs().amax(1, true).clamp_min(1e-12);
    EXPECT_TRUE(((scales * 448 - largest).abs() <= arithmetic).all().item<bool>());
    const at::Tensor allowed = expected.abs() / 16 + scales / 1024 + arithmetic;
    EXPECT_TRUE(((values * scales - expected).abs() <= allowed).all().item<bool>())
        << exact.sizes() << ", at most " << ((values * scales - expected).abs() / largest).max().item<double>();
}

void expect_rounded(const ScaledRows& rows, const at::Tensor& exact) {
    expect_rounded(rows, exact, exact);
}

void expect_rounded_gelu(const ScaledRows& rows, const at::Tensor& x) {
    expect_rounded(rows, at::gelu(x.to(at::kCPU, at::kDouble), "tanh"), x);
}

// Rows of very different sizes, one of them zeros.
at::Tensor uneven_rows(std::int64_t rows, std::int64_t channels) {
    at::Tensor x =
        at::randn({rows, channels}, test::generator(1)) * at::pow(10, at::rand({rows, 1}, test::generator(2)) * 8 - 4);
    x[rows - 1].zero_();
    return x;
}

TEST(ScaledRows, AreRoundedToTheNearest) {
    for (const std::int64_t channels : {1, 16, 33, 384}) {
        const at::Tensor x = uneven_rows(9, channels);
        expect_rounded(quantize_rows(x), x);
        expect_rounded_gelu(quantize_rows(x, /*gelu=*/true), x);
        expect_rounded(quantize_rows(x.view({3, 3, channels})), x.view({3, 3, channels}));
    }
    EXPECT_EQ(quantize_rows(at::zeros({0, 16})).values.sizes(), (at::IntArrayRef{0, 16}));
    const ScaledRows known = quantize_rows(at::tensor({448.0f, -16.9f, 1.0f, 0.0f}).view({1, 4}));
    EXPECT_TRUE(known.values.to(at::kFloat).equal(at::tensor({448.0f, -16.0f, 1.0f, 0.0f}).view({1, 4})));
    EXPECT_CLOSE(known.scales, at::ones({1}), 1e-6);
}

TEST(ScaledRows, OfANorm) {
    const at::Tensor x = at::randn({2, 5, 48}, test::generator(3)), weight = at::randn({48}, test::generator(4)),
                     bias = at::randn({48}, test::generator(5));
    expect_rounded(quantize_normed_rows(x, weight, bias, 1e-6), at::layer_norm(x, {48}, weight, bias, 1e-6));
}

TEST(ScaledRows, OnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    if (const std::string reason = why_no_float8(at::kCUDA); !reason.empty()) GTEST_SKIP() << "float8: " << reason;
    for (const std::int64_t channels : {8, 16, 24, 192, 384, 768, 776, 1536, 1544, 3072, 4096, 6144, 6160, 33}) {
        for (const std::int64_t rows : {1, 7, 8, 197, 1000}) {
            const at::Tensor x = uneven_rows(rows, channels).to(at::kCUDA, at::kBFloat16);
            const ScaledRows found = quantize_rows(x), plain = quantize_rows_plain(x);
            EXPECT_CLOSE(found.scales, plain.scales, 1e-6);
            EXPECT_TRUE(found.values.view(at::kByte).equal(plain.values.view(at::kByte))) << rows << " x " << channels;
            expect_rounded(found, x);
            expect_rounded_gelu(quantize_rows(x, /*gelu=*/true), x);
            expect_rounded_gelu(quantize_rows_plain(x, /*gelu=*/true), x);
        }
    }
    const at::Tensor columns = at::randn({64, 48}, test::generator(6)).to(at::kCUDA, at::kBFloat16).t();
    expect_rounded(quantize_rows(columns), columns);
}

TEST(ScaledRows, OfANormOnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    if (const std::string reason = why_no_float8(at::kCUDA); !reason.empty()) GTEST_SKIP() << "float8: " << reason;
    for (const std::int64_t channels : {8, 16, 192, 256, 384, 512, 640, 768, 1024, 1536, 2048, 2064, 33}) {
        const at::Tensor weight = at::randn({channels}, test::generator(7)).cuda(),
                         bias = at::randn({channels}, test::generator(8)).cuda();
        for (const at::ScalarType type : {at::kBFloat16, at::kFloat}) {
            for (const std::int64_t rows : {1, 3, 197, 1000}) {
                const at::Tensor x = (at::randn({rows, channels}, test::generator(9)) * 3 + 1).to(at::kCUDA, type);
                const at::Tensor gain = weight.to(type), shift = bias.to(type);
                const at::Tensor exact =
                    at::layer_norm(x.to(at::kDouble), {channels}, gain.to(at::kDouble), shift.to(at::kDouble), 1e-6);
                expect_rounded(quantize_normed_rows(x, gain, shift, 1e-6), exact);
                expect_rounded(quantize_normed_rows_plain(x, gain, shift, 1e-6), exact);
            }
        }
    }
}

}  // namespace
}  // namespace dynvit
