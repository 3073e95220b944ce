#include "dynvit/ops/residual_norm.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/autograd.h>

#include "support.hpp"
#include "tensor_support.hpp"

namespace dynvit {
namespace {

constexpr double kEpsilon = 1e-6;

at::Generator generator_of(std::uint64_t seed) {
    return at::make_generator<at::CPUGeneratorImpl>(seed);
}

struct Inputs {
    at::Tensor x, branch, scale, weight, bias;  // branch and scale may be undefined
    at::Tensor to_sum, to_normed;               // gradients; may be undefined
};

struct Outputs {
    NormedResidual forward;
    at::Tensor x, branch, weight, bias;  // gradients; undefined where none is
};

at::Tensor leaf(const at::Tensor& tensor) {
    return tensor.defined() ? tensor.detach().clone().requires_grad_() : tensor;
}

template <class Norm>
Outputs run(const Norm& norm, const Inputs& in, at::ScalarType output) {
    const at::Tensor x = leaf(in.x), branch = leaf(in.branch), weight = leaf(in.weight), bias = leaf(in.bias);
    const NormedResidual forward = norm(x, branch, in.scale, weight, bias, kEpsilon, output);
    std::vector<at::Tensor> roots, gradients;
    if (in.to_sum.defined()) roots.push_back(forward.sum), gradients.push_back(in.to_sum);
    if (in.to_normed.defined()) roots.push_back(forward.normed), gradients.push_back(in.to_normed);
    if (!roots.empty()) torch::autograd::backward(roots, gradients);
    return {forward, x.grad(), branch.defined() ? branch.grad() : branch, weight.grad(), bias.grad()};
}

Inputs random_inputs(std::int64_t images, std::int64_t tokens, std::int64_t channels, std::uint64_t seed) {
    at::Generator generator = generator_of(seed);
    const auto normal = [&](at::IntArrayRef sizes) { return at::randn(sizes, generator, at::kDouble); };
    const std::vector<std::int64_t> sizes = {images, tokens, channels};
    return {normal(sizes) * 2 + 0.5,
            normal(sizes),
            (at::rand({images, 1, 1}, generator) < 0.7).to(at::kDouble) / 0.7,
            normal({channels}) * 0.3 + 1,
            normal({channels}),
            normal(sizes),
            normal(sizes)};
}

// Row by row, channel by channel, as the formulas are written; float64.
Outputs by_hand(const Inputs& in) {
    const std::int64_t images = in.x.size(0), tokens = in.x.size(1), channels = in.x.size(2);
    Outputs out{{at::zeros_like(in.x), at::zeros_like(in.x)},
                at::zeros_like(in.x),
                at::zeros_like(in.x),
                at::zeros_like(in.weight),
                at::zeros_like(in.weight)};
    const auto x = in.x.accessor<double, 3>(), branch = in.branch.accessor<double, 3>(),
               scale = in.scale.accessor<double, 3>(), to_sum = in.to_sum.accessor<double, 3>(),
               to_normed = in.to_normed.accessor<double, 3>();
    const auto weight = in.weight.accessor<double, 1>(), bias = in.bias.accessor<double, 1>();
    auto sum = out.forward.sum.accessor<double, 3>(), normed = out.forward.normed.accessor<double, 3>(),
         to_x = out.x.accessor<double, 3>(), to_branch = out.branch.accessor<double, 3>();
    auto to_weight = out.weight.accessor<double, 1>(), to_bias = out.bias.accessor<double, 1>();
    for (std::int64_t b = 0; b < images; ++b) {
        for (std::int64_t n = 0; n < tokens; ++n) {
            double mean = 0, variance = 0, mean_g = 0, mean_gy = 0;
            for (std::int64_t c = 0; c < channels; ++c) {
                sum[b][n][c] = x[b][n][c] + scale[b][0][0] * branch[b][n][c];
                mean += sum[b][n][c] / channels;
            }
            for (std::int64_t c = 0; c < channels; ++c) variance += std::pow(sum[b][n][c] - mean, 2) / channels;
            const double deviation = std::sqrt(variance + kEpsilon);
            const auto y = [&](std::int64_t c) { return (sum[b][n][c] - mean) / deviation; };
            for (std::int64_t c = 0; c < channels; ++c) {
                const double g = to_normed[b][n][c] * weight[c];
                normed[b][n][c] = y(c) * weight[c] + bias[c];
                to_weight[c] += to_normed[b][n][c] * y(c);
                to_bias[c] += to_normed[b][n][c];
                mean_g += g / channels;
                mean_gy += g * y(c) / channels;
            }
            for (std::int64_t c = 0; c < channels; ++c) {
                const double g = to_normed[b][n][c] * weight[c];
                to_x[b][n][c] = to_sum[b][n][c] + (g - mean_g - y(c) * mean_gy) / deviation;
                to_branch[b][n][c] = scale[b][0][0] * to_x[b][n][c];
            }
        }
    }
    return out;
}

TEST(ResidualNorm, IsWhatTheFormulaSaysWithGradients) {  // float64, both ways, against loops over the formula
    for (const std::int64_t channels : {2, 3, 20, 64}) {
        const Inputs in = random_inputs(3, 5, channels, channels);
        const Outputs expected = by_hand(in);
        for (const auto norm : {residual_norm_plain, residual_norm}) {
            const Outputs found = run(norm, in, at::kDouble);
            EXPECT_CLOSE(found.forward.sum, expected.forward.sum, 1e-14);
            EXPECT_CLOSE(found.forward.normed, expected.forward.normed, 1e-12);
            EXPECT_CLOSE(found.x, expected.x, 1e-12);
            EXPECT_CLOSE(found.branch, found.x * in.scale, 1e-14);
            EXPECT_CLOSE(found.weight, expected.weight, 1e-12);
            EXPECT_CLOSE(found.bias, expected.bias, 1e-12);
        }
    }
}

TEST(ResidualNorm, KeepsTheStreamsTypeAndGivesTheNormTheTypeAskedFor) {
    const Inputs in = random_inputs(2, 3, 16, 1);
    for (const at::ScalarType output : {at::kFloat, at::kBFloat16}) {
        const NormedResidual mixed =
            residual_norm(in.x.to(at::kFloat), in.branch.to(at::kBFloat16), in.scale.to(at::kFloat),
                          in.weight.to(at::kFloat), in.bias.to(at::kFloat), kEpsilon, output);
        EXPECT_EQ(mixed.sum.scalar_type(), at::kFloat);
        EXPECT_EQ(mixed.normed.scalar_type(), output);
    }
    const auto half = [](const at::Tensor& tensor) { return tensor.to(at::kHalf); };
    const NormedResidual halves = residual_norm(half(in.x), half(in.branch), in.scale.to(at::kFloat), half(in.weight),
                                                half(in.bias), kEpsilon, at::kFloat);
    EXPECT_EQ(halves.sum.scalar_type(), at::kHalf);
    EXPECT_EQ(halves.normed.scalar_type(), at::kFloat);
}

TEST(ResidualNorm, PackedRowsAreNormedLikeAnImages) {
    const Inputs in = random_inputs(1, 7, 16, 3);
    const NormedResidual image = residual_norm(in.x, in.branch, {}, in.weight, in.bias, kEpsilon, at::kDouble);
    const NormedResidual rows = residual_norm(in.x[0], in.branch[0], {}, in.weight, in.bias, kEpsilon, at::kDouble);
    EXPECT_TRUE(rows.sum.equal(image.sum[0]) && rows.normed.equal(image.normed[0]));
}

TEST(ResidualNorm, WithoutABranchTheSumIsTheStreamItself) {
    const Inputs in = random_inputs(2, 3, 8, 2);
    EXPECT_TRUE(residual_norm(in.x, {}, {}, in.weight, in.bias, kEpsilon, at::kDouble).sum.is_same(in.x));
}

// ---- The kernels, against the definition in float64 at the sum that they rounded to x's type.

// Half a unit in the last place, relative to the value.
double rounding(at::ScalarType type) {
    return type == at::kFloat ? 6e-8 : type == at::kHalf ? 4.9e-4 : 3.91e-3;  // 24, 11 and 8 bits
}

// A few hundred roundings in float32, most of which cancel.
constexpr double kFloatArithmetic = 1e-5;

at::Tensor wide(const at::Tensor& tensor) {
    return tensor.defined() ? tensor.detach().to(at::kDouble) : tensor;
}

// As test::relative_error, on the tensors' device.
double difference(const at::Tensor& found, const at::Tensor& expected) {
    if (!found.defined() || found.sizes() != expected.sizes()) return std::numeric_limits<double>::infinity();
    const at::Tensor error = (wide(found) - expected).abs().max() / expected.abs().max().clamp_min(1e-30);
    return error.isnan().item<bool>() ? std::numeric_limits<double>::infinity() : error.item<double>();
}

struct Types {
    at::ScalarType x, branch, weight, output;
};

std::vector<Types> all_types() {
    std::vector<Types> types;
    for (const at::ScalarType output : {at::kFloat, at::kHalf, at::kBFloat16}) {
        for (const at::ScalarType branch : {at::kFloat, at::kHalf, at::kBFloat16}) {
            types.push_back({at::kFloat, branch, at::kFloat, output});
        }
        for (const at::ScalarType half : {at::kHalf, at::kBFloat16}) {
            types.push_back({half, half, at::kFloat, output});
            types.push_back({half, half, half, output});
        }
    }
    return types;
}

Inputs on_gpu(Inputs in, const Types& types) {
    const auto put = [](at::Tensor& tensor, at::ScalarType type) {
        if (tensor.defined()) tensor = tensor.to(at::kCUDA, type);
    };
    put(in.x, types.x), put(in.to_sum, types.x), put(in.branch, types.branch), put(in.scale, at::kFloat);
    put(in.weight, types.weight), put(in.bias, types.weight), put(in.to_normed, types.output);
    return in;
}

void expect_kernels_agree(const Inputs& in, const Types& types) {
    const Outputs fast = run(residual_norm, in, types.output);
    Inputs exact = {wide(in.x),    wide(in.branch), wide(in.scale),    wide(in.weight),
                    wide(in.bias), wide(in.to_sum), wide(in.to_normed)};
    const at::Tensor sum =
        residual_norm_plain(exact.x, exact.branch, exact.scale, exact.weight, exact.bias, kEpsilon, at::kDouble).sum;
    EXPECT_LE(difference(fast.forward.sum, sum), in.branch.defined() ? rounding(types.x) + 1e-7 : 0);

    exact.x = exact.x + (wide(fast.forward.sum) - sum);
    const Outputs plain = run(residual_norm_plain, exact, at::kDouble);
    EXPECT_EQ(fast.forward.normed.scalar_type(), types.output);
    EXPECT_LE(difference(fast.forward.normed, plain.forward.normed), rounding(types.output) + kFloatArithmetic);
    if (plain.x.defined()) {
        EXPECT_LE(difference(fast.x, plain.x), rounding(types.x) + kFloatArithmetic);
    }
    if (plain.branch.defined()) {
        EXPECT_LE(difference(fast.branch, plain.branch), rounding(types.branch) + kFloatArithmetic);
    }
    if (!in.to_normed.defined()) return;
    EXPECT_LE(difference(fast.weight, plain.weight), rounding(types.weight) + kFloatArithmetic);
    EXPECT_LE(difference(fast.bias, plain.bias), rounding(types.weight) + kFloatArithmetic);
}

#define NEEDS_GPU() \
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU"

TEST(ResidualNorm, CudaKernelsEqualTheDefinitionForAllTypesAndWidths) {
    NEEDS_GPU();
    for (const std::int64_t channels : {8, 192, 256, 320, 384, 512, 640, 768, 1024, 2048}) {
        for (const auto& [images, tokens] : std::vector<std::pair<int, int>>{{1, 1}, {3, 3}, {5, 197}}) {
            const Inputs random = random_inputs(images, tokens, channels, channels + tokens);
            for (const Types& types : all_types()) {
                SCOPED_TRACE(::testing::Message()
                             << channels << " channels, " << images << " x " << tokens << ", " << types.x << ' '
                             << types.branch << ' ' << types.weight << ' ' << types.output);
                expect_kernels_agree(on_gpu(random, types), types);
                if (::testing::Test::HasFailure()) return;
            }
        }
    }
}

TEST(ResidualNorm, CudaKernelsTakeEveryChoiceOfArguments) {
    NEEDS_GPU();
    const Types half{at::kBFloat16, at::kBFloat16, at::kBFloat16, at::kBFloat16},
        mixed{at::kFloat, at::kBFloat16, at::kFloat, at::kBFloat16};
    for (const std::int64_t channels : {8, 384, 1024, 2048}) {
        for (const Types& types : {half, mixed}) {
            for (int choice = 0; choice < 16; ++choice) {
                Inputs in = on_gpu(random_inputs(4, 21, channels, choice), types);
                if (choice & 1) in.branch.reset();
                if (choice & 2) in.scale.reset();
                if (choice & 4) in.to_sum.reset();
                if (choice & 8) in.to_normed.reset();
                SCOPED_TRACE(::testing::Message() << channels << " channels, " << types.x << ", choice " << choice);
                expect_kernels_agree(in, types);
            }
        }
    }
}

TEST(ResidualNorm, CudaKernelsTakeManyRowsAndGiveTheSameEachTime) {
    NEEDS_GPU();
    const Types mixed{at::kFloat, at::kBFloat16, at::kFloat, at::kBFloat16};
    for (const std::int64_t channels : {8, 192, 384, 768}) {
        SCOPED_TRACE(::testing::Message() << channels << " channels");
        const Inputs in = on_gpu(random_inputs(256, 197, channels, 5), mixed);
        expect_kernels_agree(in, mixed);
        const Outputs first = run(residual_norm, in, mixed.output), second = run(residual_norm, in, mixed.output);
        EXPECT_TRUE(first.weight.equal(second.weight) && first.bias.equal(second.bias));
        EXPECT_TRUE(first.x.equal(second.x) && first.branch.equal(second.branch));
    }
}

TEST(ResidualNorm, CudaKernelsTakeViewsAndExpandedGradients) {
    NEEDS_GPU();
    const Types types{at::kHalf, at::kHalf, at::kHalf, at::kHalf};
    Inputs in = on_gpu(random_inputs(4, 9, 48, 6), types);
    in.x = in.x.slice(1, 1);                                                       // tokens after [CLS]
    in.branch = in.branch.flatten().slice(0, 1, 1 + 4 * 8 * 48).view({4, 8, 48});  // not aligned to 16 bytes
    in.to_sum = at::ones({}, in.x.options()).expand_as(in.x);
    in.to_normed = in.to_normed.slice(1, 0, 8);
    const NormedResidual views = residual_norm(in.x, in.branch, in.scale, in.weight, in.bias, kEpsilon, at::kHalf);
    const NormedResidual copies =
        residual_norm(in.x.clone(), in.branch.clone(), in.scale, in.weight, in.bias, kEpsilon, at::kHalf);
    EXPECT_TRUE(views.sum.equal(copies.sum) && views.normed.equal(copies.normed));
    expect_kernels_agree(in, types);
}

TEST(ResidualNorm, WithoutABranchNothingIsCopiedOnAGpu) {
    NEEDS_GPU();
    const Inputs in = on_gpu(random_inputs(2, 5, 64, 8), {at::kFloat, at::kFloat, at::kFloat, at::kFloat});
    const at::Tensor x = leaf(in.x);
    const NormedResidual training = residual_norm(x, {}, {}, in.weight, in.bias, kEpsilon, at::kFloat);
    EXPECT_EQ(training.sum.const_data_ptr(), x.const_data_ptr());
    EXPECT_TRUE(residual_norm(in.x, {}, {}, in.weight, in.bias, kEpsilon, at::kFloat).sum.is_same(in.x));
}

TEST(ResidualNorm, FrozenInputsGetNoGradient) {
    NEEDS_GPU();
    const Inputs in = on_gpu(random_inputs(2, 5, 64, 7), {at::kFloat, at::kHalf, at::kFloat, at::kHalf});
    for (int wanted = 0; wanted < 4; ++wanted) {
        const std::vector<at::Tensor> leaves = {leaf(in.x), leaf(in.branch), leaf(in.weight), leaf(in.bias)};
        for (int i = 0; i < 4; ++i) leaves[i].requires_grad_(i == wanted);
        const auto [sum, normed] =
            residual_norm(leaves[0], leaves[1], in.scale, leaves[2], leaves[3], kEpsilon, at::kHalf);
        torch::autograd::backward({sum, normed}, {in.to_sum, in.to_normed});
        for (int i = 0; i < 4; ++i) EXPECT_EQ(leaves[i].grad().defined(), i == wanted) << i << ' ' << wanted;
    }
}

TEST(ResidualNorm, OtherWidthsGoThePlainWayOnAGpu) {  // 20 is no multiple of 8, 2056 is too wide
    NEEDS_GPU();
    for (const std::int64_t channels : {20, 2056}) {
        const Types types{at::kFloat, at::kHalf, at::kFloat, at::kHalf};
        expect_kernels_agree(on_gpu(random_inputs(2, 3, channels, channels), types), types);
    }
}

}  // namespace
}  // namespace dynvit
