#include "dynvit/ops/self_attention.hpp"

#include <ATen/ATen.h>

#include <array>
#include <cmath>

#include "models/golden_model.hpp"

namespace dynvit {
namespace {

// One sequence from the definition: (n, 3 C) -> (n, C), float64. Parts: (3, h, n, d).
at::Tensor defined(const at::Tensor& qkv, std::int64_t heads) {
    const at::Tensor parts =
        qkv.to(at::kDouble).view({qkv.size(0), 3, heads, qkv.size(1) / (3 * heads)}).permute({1, 2, 0, 3});
    const double scale = 1.0 / std::sqrt(static_cast<double>(parts.size(3)));
    const at::Tensor weights = at::softmax(at::matmul(parts[0], parts[1].transpose(1, 2)) * scale, -1);
    return at::matmul(weights, parts[2]).transpose(0, 1).flatten(1);
}

at::Tensor random_qkv(at::IntArrayRef shape, const at::Device& device, at::ScalarType type) {
    return (3 * at::randn(shape, test::generator(1))).to(device, type);
}

void expect_attention(const at::Device& device, at::ScalarType type, double tolerance) {
    for (const auto& [tokens, heads, head_dim] :
         {std::array<std::int64_t, 3>{197, 3, 64}, {1, 2, 16}, {8, 1, 24}, {68, 6, 64}, {578, 1, 32}, {33, 2, 80}}) {
        const at::Tensor qkv = random_qkv({2, tokens, 3 * heads * head_dim}, device, type);
        const at::Tensor attended = self_attention(qkv, heads);
        ASSERT_EQ(attended.sizes(), (at::IntArrayRef{2, tokens, heads * head_dim}));
        for (int b = 0; b < 2; ++b) {
            EXPECT_CLOSE(attended[b].to(at::kDouble), defined(qkv[b], heads), tolerance)
                << tokens << " tokens, " << heads << " heads of " << head_dim;
        }
    }
    const std::vector<std::int64_t> lengths = {5, 1, 0, 33, 197, 64};
    const PackedLayout layout(lengths, device);
    const at::Tensor qkv = random_qkv({layout.rows(), 3 * 96}, device, type);
    const at::Tensor attended = self_attention(qkv, 3, layout);
    ASSERT_EQ(attended.sizes(), (at::IntArrayRef{layout.rows(), 96}));
    std::int64_t first = 0;
    for (const std::int64_t length : lengths) {
        EXPECT_CLOSE(attended.narrow(0, first, length).to(at::kDouble), defined(qkv.narrow(0, first, length), 3),
                     tolerance)
            << length << " tokens";
        first += length;
    }
}

TEST(SelfAttention, StaysWithinEachSequence) {
    expect_attention(at::kCPU, at::kFloat, 1e-5);
    expect_attention(at::kCPU, at::kBFloat16, 3e-2);
    expect_attention(at::kCPU, at::kHalf, 5e-3);
}

TEST(SelfAttention, OnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    expect_attention(at::kCUDA, at::kFloat, 1e-4);
    expect_attention(at::kCUDA, at::kBFloat16, 3e-2);
    expect_attention(at::kCUDA, at::kHalf, 5e-3);
}

TEST(SelfAttention, NoSequenceAtAll) {
    EXPECT_EQ(self_attention(at::empty({0, 96}), 2, PackedLayout({0, 0}, at::kCPU)).sizes(), (at::IntArrayRef{0, 32}));
}

}  // namespace
}  // namespace dynvit
