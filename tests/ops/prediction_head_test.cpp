// The prediction module's parts: the plain versions against loops written out, the kernels against the plain versions.
#include "dynvit/ops/prediction_head.hpp"

#include <ATen/ATen.h>

#include <array>
#include <cmath>

#include "models/golden_model.hpp"

namespace dynvit {
namespace {

at::Tensor shared_by_hand(const at::Tensor& h, const std::vector<std::int64_t>& lengths, std::int64_t skipped) {
    at::Tensor result = h.to(at::kDouble).clone();
    std::int64_t first = 0;
    for (const std::int64_t length : lengths) {
        at::Tensor half = result.narrow(0, first, length).slice(1, h.size(1) / 2);
        if (length > skipped) half.copy_(half.slice(0, skipped).mean(0, true).expand_as(half));
        first += length;
    }
    return result;
}

// Rows that count: the others are of no meaning.
at::Tensor counted(const at::Tensor& h, const std::vector<std::int64_t>& lengths, std::int64_t skipped) {
    std::vector<at::Tensor> parts;
    std::int64_t first = 0;
    for (const std::int64_t length : lengths) {
        parts.push_back(h.narrow(0, first, length).slice(0, skipped));
        first += length;
    }
    return at::cat(parts).to(at::kCPU, at::kDouble);
}

void expect_shared_mean(const at::Device& device, at::ScalarType type, double tolerance) {
    for (const std::int64_t channels : {16, 192, 384, 1024}) {
        const std::vector<std::int64_t> lengths = {6, 1, 197, 40, 2};
        for (const std::int64_t skipped : {0, 1}) {
            const PackedLayout layout(lengths, device);
            const at::Tensor h = at::randn({layout.rows(), channels}, test::generator(4)).to(device, type);
            const at::Tensor expected = shared_by_hand(h.cpu(), lengths, skipped);
            const at::Tensor found = share_mean(h.clone(), {skipped, &layout});
            EXPECT_CLOSE(counted(found, lengths, skipped), counted(expected, lengths, skipped), tolerance);
            EXPECT_TRUE(found.isfinite().all().item<bool>());
            const at::Tensor images = at::randn({3, 50, channels}, test::generator(5)).to(device, type);
            const at::Tensor by_hand = shared_by_hand(images.cpu().flatten(0, 1), {50, 50, 50}, skipped);
            EXPECT_CLOSE(counted(share_mean(images.clone(), {skipped}).flatten(0, 1), {50, 50, 50}, skipped),
                         counted(by_hand, {50, 50, 50}, skipped), tolerance);
        }
    }
    const at::Tensor alone = at::randn({2, 1, 32}, test::generator(6)).to(device, type);  // [CLS] without a token
    EXPECT_TRUE(share_mean(alone.clone(), {1}).isfinite().all().item<bool>());
}

TEST(PredictionHead, SharesTheMeanOfEachGroup) {
    expect_shared_mean(at::kCPU, at::kFloat, 1e-6);
    if (!at::hasCUDA()) GTEST_SKIP() << "the GPU's part needs one";
    expect_shared_mean(at::kCUDA, at::kFloat, 1e-6);
    expect_shared_mean(at::kCUDA, at::kHalf, 1e-3);
    expect_shared_mean(at::kCUDA, at::kBFloat16, 8e-3);
}

TEST(PredictionHead, KeepLogProbability) {
    for (const std::int64_t channels : {8, 48, 96, 264}) {
        const at::Tensor z = at::randn({3, 7, channels}, test::generator(7)),
                         weight = at::randn({2, channels}, test::generator(8)),
                         bias = at::randn({2}, test::generator(9));
        const at::Tensor plain = keep_log_probability_plain(z, weight, bias);
        const at::Tensor scores = at::matmul(z.to(at::kDouble), weight.t().to(at::kDouble)) + bias;  // (3, 7, 2)
        EXPECT_CLOSE(plain, -((scores.select(2, 1) - scores.select(2, 0)).exp() + 1).log(), 1e-5);
        if (!at::hasCUDA()) continue;
        for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
            const auto rounded = [&](const at::Tensor& tensor) { return tensor.to(type).to(at::kFloat); };
            EXPECT_CLOSE(keep_log_probability(z.cuda().to(type), weight.cuda().to(type), bias.cuda().to(type)),
                         keep_log_probability_plain(rounded(z), rounded(weight), rounded(bias)), 1e-5);
        }
    }
}

// Against its definition in float64, with random layers; rows of zero, one and many tokens.
void expect_head(const at::Device& device, at::ScalarType type, double tolerance) {
    for (const std::int64_t channels : {4, 8, 22, 32, 72, 192, 384, 784}) {
        std::array<PredictionHead::Layer, 3> layers, in_double;
        std::int64_t in = channels;
        for (std::size_t i = 0; i < 3; ++i) {
            const std::int64_t out = i == 2 ? 2 : channels / (i == 0 ? 2 : 4);
            const at::Tensor weight = at::randn({out, in}, test::generator(20 + i)) / std::sqrt(0.3 * in);
            const at::Tensor bias = at::randn({out}, test::generator(30 + i)) / 3;
            layers[i] = {weight.to(device), bias.to(device)};
            in_double[i] = {weight.to(at::kDouble), bias.to(at::kDouble)};
            in = out;
        }
        const PredictionHead head(layers, type);
        const auto defined = [&](const at::Tensor& h, const RowGroups& groups) {
            at::Tensor z = share_mean_plain(h.to(at::kCPU, at::kDouble), groups);
            for (int i : {0, 1}) z = at::gelu(at::linear(z, in_double[i].weight, in_double[i].bias));
            return at::log_softmax(at::linear(z, in_double[2].weight, in_double[2].bias), -1).select(-1, 0);
        };
        for (const std::int64_t skipped : {0, 1}) {
            for (const auto& [batch, tokens] :
                 {std::pair<std::int64_t, std::int64_t>{1, 197}, {5, 68}, {2, 1}, {1, 2}}) {
                const at::Tensor h = at::randn({batch, tokens, channels}, test::generator(40)).to(device, type);
                const at::Tensor found = head(h.clone(), {skipped});
                ASSERT_EQ(found.sizes(), (at::IntArrayRef{batch, tokens}));
                EXPECT_EQ(found.scalar_type(), at::kFloat);
                EXPECT_CLOSE(found.slice(1, skipped), defined(h, {skipped}).slice(1, skipped), tolerance)
                    << batch << " x " << tokens << " x " << channels << ", skipped " << skipped;
            }
            const std::vector<std::int64_t> lengths = {6, 1, 197, skipped, 40, 2};
            const PackedLayout layout(lengths, device), on_cpu(lengths, at::kCPU);
            const at::Tensor h = at::randn({layout.rows(), channels}, test::generator(41)).to(device, type);
            EXPECT_CLOSE(counted(head(h.clone(), {skipped, &layout}), lengths, skipped),
                         counted(defined(h, {skipped, &on_cpu}), lengths, skipped), tolerance)
                << channels << ", skipped " << skipped;
        }
        EXPECT_EQ(head(at::empty({2, 0, channels}, at::device(device).dtype(type)), {}).sizes(),
                  (at::IntArrayRef{2, 0}));
    }
}

TEST(PredictionHead, EqualsItsDefinition) {
    expect_head(at::kCPU, at::kFloat, 1e-5);
    expect_head(at::kCPU, at::kBFloat16, 1e-5);  // computes in float32
    expect_head(at::kCPU, at::kHalf, 5e-3);
    if (!at::hasCUDA()) GTEST_SKIP() << "the GPU's part needs one";
    expect_head(at::kCUDA, at::kFloat, 2e-3);  // of one value near 0, where both classes are sure
    expect_head(at::kCUDA, at::kHalf, 5e-3);
    expect_head(at::kCUDA, at::kBFloat16, 4e-2);
}

}  // namespace
}  // namespace dynvit
