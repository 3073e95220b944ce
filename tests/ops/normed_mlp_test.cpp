// A block's second half by one kernel, against its definition.
#include "dynvit/ops/normed_mlp.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "models/golden_model.hpp"

namespace dynvit {
namespace {

constexpr std::int64_t kChannels = 384, kHidden = 4 * kChannels;
constexpr double kEpsilon = 1e-6;

bool has_kernel() {
    return at::hasCUDA() && NormedMlp::supports(at::kCUDA, at::kBFloat16, kChannels, kHidden);
}

at::Tensor random(std::uint64_t seed, at::IntArrayRef sizes, double scale, double mean = 0) {
    return (mean + scale * at::randn(sizes, test::generator(seed))).to(at::kCUDA);
}

NormedMlp::Parameters random_parameters(bool has_biases) {
    return {.norm_weight = random(1, {kChannels}, 0.3, 1),
            .norm_bias = random(2, {kChannels}, 0.2),
            .norm_epsilon = kEpsilon,
            .fc1_weight = random(3, {kHidden, kChannels}, 0.07),
            .fc1_bias = has_biases ? random(4, {kHidden}, 0.3) : at::Tensor(),
            .fc2_weight = random(5, {kChannels, kHidden}, 0.03),
            .fc2_bias = has_biases ? random(6, {kChannels}, 0.3) : at::Tensor()};
}

// The definition, in x's type.
at::Tensor written_out(const NormedMlp::Parameters& parameters, const at::Tensor& x) {
    const auto of_type = [&](const at::Tensor& from) { return from.defined() ? from.to(x.scalar_type()) : from; };
    const at::Tensor normed = at::layer_norm(x, {kChannels}, of_type(parameters.norm_weight),
                                             of_type(parameters.norm_bias), parameters.norm_epsilon);
    const at::Tensor hidden =
        at::gelu(at::linear(normed, of_type(parameters.fc1_weight), of_type(parameters.fc1_bias)), "tanh");
    return x + at::linear(hidden, of_type(parameters.fc2_weight), of_type(parameters.fc2_bias));
}

double mean_error(const at::Tensor& found, const at::Tensor& expected) {
    return ((found.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
}

TEST(NormedMlp, AsExactAsTheOperationsOneByOne) {
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    for (const bool has_biases : {true, false}) {
        const NormedMlp::Parameters parameters = random_parameters(has_biases);
        for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
            const NormedMlp mlp(parameters, type);
            // One CTA's rows and one more, several rounds, a round that is full with 96 rows and with 104.
            for (const std::int64_t rows : {1, 95, 96, 97, 104, 105, 208, 1374, 12672, 12673, 13728, 50432}) {
                const at::Tensor x = random(7, {rows, kChannels}, 1.5, 0.3).to(type);
                const at::Tensor expected = written_out(parameters, x.to(at::kDouble)), found = mlp(x);
                EXPECT_LE(mean_error(found, expected), mean_error(written_out(parameters, x), expected))
                    << type << ", " << rows << " rows";
                EXPECT_TRUE(mlp(x).equal(found)) << "not the same bits again: " << type << ", " << rows << " rows";
            }
        }
    }
}

// What a row becomes depends on nothing but the row, wherever it stands, to the last bit.
TEST(NormedMlp, RowsAreByThemselves) {
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    const NormedMlp mlp(random_parameters(true), at::kBFloat16);
    const at::Tensor x = random(8, {13728, kChannels}, 1).to(at::kBFloat16), all = mlp(x);
    for (const auto& [first, count] :
         {std::pair(0, 1), std::pair(0, 12672), std::pair(5000, 333), std::pair(13727, 1)}) {
        EXPECT_TRUE(mlp(x.slice(0, first, first + count)).equal(all.slice(0, first, first + count)));
    }
    const at::Tensor batch = x.view({2, 6864, kChannels});
    EXPECT_TRUE(mlp(batch).equal(all.view(batch.sizes())));
    EXPECT_TRUE(mlp(batch.transpose(0, 1)).equal(all.view(batch.sizes()).transpose(0, 1)));  // not contiguous
    at::Tensor broken = x.clone();
    broken[100].fill_(std::nan(""));
    const at::Tensor found = mlp(broken);
    EXPECT_TRUE(found[100].isnan().all().item<bool>());
    EXPECT_TRUE(found.slice(0, 0, 100).equal(all.slice(0, 0, 100)));
    EXPECT_TRUE(found.slice(0, 101).equal(all.slice(0, 101)));
    EXPECT_EQ(mlp(x.slice(0, 0, 0)).sizes(), (at::IntArrayRef{0, kChannels}));
}

// Rows with a few values far above the others, as trained models have them, and a mean of several deviations.
TEST(NormedMlp, LargeValues) {
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    const NormedMlp::Parameters parameters = random_parameters(true);
    for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
        at::Tensor x = random(9, {500, kChannels}, 1, 10);
        x.select(1, 7).mul_(20);
        x.select(1, 200).add_(300);
        x = x.to(type);
        const at::Tensor expected = written_out(parameters, x.to(at::kDouble));
        // Of what is added alone: beside the large values everything else would be lost in the norm.
        const at::Tensor added = expected - x.to(at::kDouble), found = NormedMlp(parameters, type)(x);
        EXPECT_LE(mean_error(found.to(at::kDouble) - x.to(at::kDouble), added),
                  1.5 * mean_error(written_out(parameters, x).to(at::kDouble) - x.to(at::kDouble), added))
            << type;
    }
}

TEST(NormedMlp, SaysWhatItDoesNotTake) {
    EXPECT_FALSE(NormedMlp::supports(at::kCPU, at::kBFloat16, kChannels, kHidden));
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    EXPECT_FALSE(NormedMlp::supports(at::kCUDA, at::kFloat, kChannels, kHidden));
    EXPECT_FALSE(NormedMlp::supports(at::kCUDA, at::kHalf, 768, 3072));
    const NormedMlp mlp(random_parameters(true), at::kHalf);
    EXPECT_FALSE(mlp.pays(1));
    EXPECT_TRUE(mlp.pays(12672));
    EXPECT_FALSE(mlp.pays(14000));
    EXPECT_TRUE(mlp.pays(1000000));
    EXPECT_THROW(mlp(random(1, {3, kChannels}, 1)), c10::Error);
    EXPECT_THROW(mlp(random(1, {3, 64}, 1).to(at::kHalf)), c10::Error);
}

}  // namespace
}  // namespace dynvit
