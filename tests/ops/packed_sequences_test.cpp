#include "dynvit/ops/packed_sequences.hpp"

#include <ATen/ATen.h>

#include "models/golden_model.hpp"

namespace dynvit {
namespace {

TEST(PackedLayout, WhereSequencesAre) {
    const PackedLayout layout({2, 0, 3}, at::kCPU);
    EXPECT_EQ(layout.rows(), 5);
    EXPECT_EQ(layout.longest(), 3);
    EXPECT_TRUE(layout.offsets().equal(at::tensor({0, 2, 2, 5}, at::kInt)));
    EXPECT_TRUE(layout.sequence_of_row().equal(at::tensor({0, 0, 2, 2, 2}, at::kLong)));
    EXPECT_EQ(PackedLayout({}, at::kCPU).rows(), 0);
}

TEST(PackedSequences, MeanOfEachSequence) {
    const at::Tensor x = at::tensor({1.0, 3.0, 5.0, 7.0, 9.0}).view({5, 1});
    EXPECT_CLOSE(packed_mean(x, PackedLayout({2, 0, 3}, at::kCPU)), at::tensor({2.0, 0.0, 7.0}).view({3, 1}), 1e-6);
    EXPECT_CLOSE(packed_mean(x.slice(0, 0, 0), PackedLayout({0, 0}, at::kCPU)), at::zeros({2, 1}), 0);
}

// Each sequence by itself, from the definition.
void expect_attention(const at::Device& device, at::ScalarType type, double tolerance) {
    const std::vector<std::int64_t> lengths = {5, 1, 0, 33, 197, 64};
    const PackedLayout layout(lengths, device);
    const at::Tensor qkv = at::randn({layout.rows(), 3, 3, 32}, test::generator(1)).to(device, type);
    const at::Tensor q = qkv.select(1, 0), k = qkv.select(1, 1), v = qkv.select(1, 2);
    const at::Tensor attended = packed_attention(q, k, v, layout, 0.2);
    ASSERT_EQ(attended.sizes(), q.sizes());
    std::int64_t first = 0;
    for (const std::int64_t length : lengths) {
        const auto part = [&](const at::Tensor& x) {
            return x.narrow(0, first, length).transpose(0, 1).to(at::kDouble);  // (h, n, d)
        };
        const at::Tensor weights = at::softmax(at::matmul(part(q), part(k).transpose(1, 2)) * 0.2, -1);
        const at::Tensor expected = at::matmul(weights, part(v)).transpose(0, 1);
        EXPECT_CLOSE(attended.narrow(0, first, length).to(at::kDouble), expected, tolerance) << length << " tokens";
        first += length;
    }
}

TEST(PackedSequences, AttentionStaysWithinEachSequence) {
    expect_attention(at::kCPU, at::kFloat, 1e-5);
}

TEST(PackedSequences, AttentionOnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    expect_attention(at::kCUDA, at::kFloat, 1e-4);
    expect_attention(at::kCUDA, at::kBFloat16, 2e-2);
    expect_attention(at::kCUDA, at::kHalf, 3e-3);
}

}  // namespace
}  // namespace dynvit
