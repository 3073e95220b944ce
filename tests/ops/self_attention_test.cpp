#include "dynvit/ops/self_attention.hpp"

#include <ATen/ATen.h>

#include <array>
#include <cmath>

#include "models/golden_model.hpp"

namespace dynvit {
namespace {

// From the definition: (B, n, 3 C) -> (B, n, C), float64. Each key's weight is multiplied by its size, (B, n), if there
// are any.
at::Tensor defined(const at::Tensor& qkv, std::int64_t heads, const at::Tensor& sizes = {}) {
    const std::int64_t batch = qkv.size(0), tokens = qkv.size(1), head_dim = qkv.size(2) / (3 * heads);
    const at::Tensor parts = qkv.to(at::kDouble).view({batch, tokens, 3, heads, head_dim}).permute({2, 0, 3, 1, 4});
    const double scale = 1.0 / std::sqrt(static_cast<double>(head_dim));
    at::Tensor weights = at::softmax(at::matmul(parts[0], parts[1].transpose(2, 3)) * scale, -1);  // (B, h, n, n)
    if (sizes.defined()) {
        weights = weights * sizes.to(at::kDouble).view({batch, 1, 1, tokens});
        weights = weights / weights.sum(-1, true);
    }
    return at::matmul(weights, parts[2]).transpose(1, 2).flatten(2);
}

at::Tensor random_qkv(at::IntArrayRef shape, const at::Device& device, at::ScalarType type) {
    return (3 * at::randn(shape, test::generator(1))).to(device, type);
}

at::Tensor random_sizes(at::IntArrayRef shape, const at::Device& device) {
    return at::randint(1, 10, shape, test::generator(2), at::kFloat).to(device);
}

// Each of the packed sequences against the definition. attended: of qkv; sizes: (T), or undefined.
void expect_each(const at::Tensor& attended, const at::Tensor& qkv, std::int64_t heads,
                 const std::vector<std::int64_t>& lengths, const at::Tensor& sizes, double tolerance) {
    ASSERT_EQ(attended.sizes(), (at::IntArrayRef{qkv.size(0), qkv.size(1) / 3}));
    std::int64_t first = 0;
    for (const std::int64_t length : lengths) {
        const auto own = [&](const at::Tensor& x) { return x.narrow(0, first, length).unsqueeze(0); };
        EXPECT_CLOSE(own(attended).to(at::kDouble), defined(own(qkv), heads, sizes.defined() ? own(sizes) : sizes),
                     tolerance)
            << length << " tokens, " << qkv.scalar_type() << (sizes.defined() ? ", sizes" : "");
        first += length;
    }
}

void expect_attention(const at::Device& device, at::ScalarType type, double tolerance) {
    for (const auto& [tokens, heads, head_dim] :
         {std::array<std::int64_t, 3>{197, 3, 64}, {1, 2, 16}, {8, 1, 24}, {68, 6, 64}, {578, 1, 32}, {33, 2, 80}}) {
        const at::Tensor qkv = random_qkv({2, tokens, 3 * heads * head_dim}, device, type);
        EXPECT_CLOSE(self_attention(qkv, heads).to(at::kDouble), defined(qkv, heads), tolerance)
            << tokens << " tokens, " << heads << " heads of " << head_dim;
    }
    const std::vector<std::int64_t> lengths = {5, 1, 0, 33, 197, 64};
    const PackedLayout layout(lengths, device);
    const at::Tensor qkv = random_qkv({layout.rows(), 3 * 96}, device, type);
    expect_each(self_attention(qkv, 3, layout), qkv, 3, lengths, {}, tolerance);
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
    EXPECT_EQ(sized_self_attention(at::empty({0, 96}), 2, PackedLayout({0, 0}, at::kCPU), at::empty({0})).sizes(),
              (at::IntArrayRef{0, 32}));
}

void expect_sized_attention(const at::Device& device, at::ScalarType type, const std::vector<std::int64_t>& batches,
                            double tolerance) {
    constexpr std::int64_t kHeads = 2;
    for (const std::int64_t batch : batches) {
        for (const std::int64_t tokens : {1, 7, 16, 50, 137, 197, 300}) {
            for (const std::int64_t head_dim : {16, 24, 32, 64, 128}) {
                const at::Tensor qkv = random_qkv({batch, tokens, 3 * kHeads * head_dim}, device, type);
                const at::Tensor sizes = random_sizes({batch, tokens}, device);
                const at::Tensor attended = sized_self_attention(qkv, kHeads, sizes);
                EXPECT_EQ(attended.scalar_type(), type);
                EXPECT_CLOSE(attended.to(at::kDouble), defined(qkv, kHeads, sizes), tolerance)
                    << type << ", " << batch << " x " << tokens << " tokens, heads of " << head_dim;
            }
        }
    }
    const std::vector<std::int64_t> lengths = {5, 1, 0, 33, 197, 64, 137};
    const PackedLayout layout(lengths, device);
    const at::Tensor sizes = random_sizes({layout.rows()}, device);
    for (const std::int64_t head_dim : {24, 32, 64, 128}) {
        const at::Tensor qkv = random_qkv({layout.rows(), 3 * kHeads * head_dim}, device, type);
        expect_each(sized_self_attention(qkv, kHeads, layout, sizes), qkv, kHeads, lengths, sizes, tolerance);
    }
}

TEST(SizedAttention, EqualsTheDefinition) {
    expect_sized_attention(at::kCPU, at::kFloat, {1, 3}, 1e-5);
    expect_sized_attention(at::kCPU, at::kBFloat16, {1, 3}, 3e-2);
    expect_sized_attention(at::kCPU, at::kHalf, {1}, 5e-3);
}

TEST(SizedAttention, EqualsTheDefinitionOnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    expect_sized_attention(at::kCUDA, at::kFloat, {1, 3, 64}, 1e-4);
    expect_sized_attention(at::kCUDA, at::kBFloat16, {1, 3, 64}, 3e-2);
    expect_sized_attention(at::kCUDA, at::kHalf, {1, 3, 64}, 5e-3);
}

// A token of size s is seen as s equal tokens would be.
void expect_as_among_the_patches(const at::Device& device, at::ScalarType type, double tolerance) {
    constexpr std::int64_t kHeads = 2;
    const std::vector<std::int64_t> repeats = {1, 3, 1, 2, 5};
    const at::Tensor qkv = random_qkv({1, 5, 3 * kHeads * 16}, device, type);
    const at::Tensor sizes = at::tensor(std::vector<float>(repeats.begin(), repeats.end())).unsqueeze(0).to(device);
    const at::Tensor all = qkv.repeat_interleave(at::tensor(repeats, at::kLong).to(device), 1);
    const at::Tensor expected = self_attention(all, kHeads);  // (1, 12, C), of which equal tokens are equal
    const at::Tensor firsts = at::tensor({0, 1, 4, 5, 7}, at::kLong).to(device);
    EXPECT_CLOSE(sized_self_attention(qkv, kHeads, sizes), expected.index_select(1, firsts), tolerance) << type;
}

TEST(SizedAttention, EqualsAttentionAmongThePatches) {
    expect_as_among_the_patches(at::kCPU, at::kFloat, 1e-5);
    expect_as_among_the_patches(at::kCPU, at::kBFloat16, 2e-2);
}

TEST(SizedAttention, EqualsAttentionAmongThePatchesOnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    expect_as_among_the_patches(at::kCUDA, at::kFloat, 1e-4);
    expect_as_among_the_patches(at::kCUDA, at::kBFloat16, 2e-2);
    expect_as_among_the_patches(at::kCUDA, at::kHalf, 4e-3);
}

void expect_plain_without_sizes(const at::Device& device, at::ScalarType type) {
    const PackedLayout layout({5, 1, 44}, device);
    for (const std::int64_t batch : {1, 64}) {
        const at::Tensor qkv = random_qkv({batch, 50, 3 * 64}, device, type);
        EXPECT_TRUE(sized_self_attention(qkv, 2, {}).equal(self_attention(qkv, 2))) << type;
        EXPECT_TRUE(sized_self_attention(qkv[0], 2, layout, {}).equal(self_attention(qkv[0], 2, layout))) << type;
    }
}

TEST(SizedAttention, IsThePlainOneWithoutSizes) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) expect_plain_without_sizes(at::kCPU, type);
}

TEST(SizedAttention, IsThePlainOneWithoutSizesOnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
        expect_plain_without_sizes(at::kCUDA, type);
    }
}

// Sizes are numbers above 0, also below 1 and beyond what float16 holds.
void expect_any_size(const at::Device& device, at::ScalarType type, double tolerance) {
    for (const std::int64_t batch : {1, 64}) {
        const at::Tensor qkv = random_qkv({batch, 70, 3 * 64}, device, type);
        at::Tensor sizes = at::full({batch, 70}, 0.5, at::device(device).dtype(at::kFloat));
        sizes.select(1, 3).fill_(1e5);
        sizes.select(1, 69).fill_(3e5);
        EXPECT_CLOSE(sized_self_attention(qkv, 1, sizes).to(at::kDouble), defined(qkv, 1, sizes), tolerance) << type;
    }
}

TEST(SizedAttention, TakesAnySize) {
    expect_any_size(at::kCPU, at::kFloat, 1e-5);
    expect_any_size(at::kCPU, at::kBFloat16, 3e-2);
}

TEST(SizedAttention, TakesAnySizeOnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    expect_any_size(at::kCUDA, at::kFloat, 1e-4);
    expect_any_size(at::kCUDA, at::kBFloat16, 3e-2);
    expect_any_size(at::kCUDA, at::kHalf, 5e-3);
}

// The gradient of qkv against autograd of the definition, from the same rounded inputs.
void expect_gradients(const at::Device& device, at::ScalarType type, double tolerance) {
    constexpr std::int64_t kHeads = 2;
    for (const std::int64_t tokens : {1, 16, 17, 65, 137, 197, 208, 209, 300}) {
        for (const std::int64_t head_dim : {16, 32, 64, 128}) {
            const std::int64_t channels = kHeads * head_dim;
            const at::Tensor qkv = (random_qkv({3, tokens, 3 * channels}, device, type) / 2).requires_grad_(),
                             exact = qkv.detach().to(at::kDouble).requires_grad_(),
                             sizes = random_sizes({3, tokens}, device),
                             to_out = at::randn({3, tokens, channels}, test::generator(3)).to(device, type);
            const at::Tensor attended = sized_self_attention(qkv, kHeads, sizes);
            const at::Tensor expected = defined(exact, kHeads, sizes);
            EXPECT_CLOSE(attended.to(at::kDouble), expected, tolerance);
            attended.backward(to_out);
            expected.backward(to_out.to(at::kDouble));
            // One token: softmax is constant, the gradients of q and k are rounding alone.
            const std::int64_t first = tokens > 1 ? 0 : 2 * channels;
            EXPECT_CLOSE(qkv.grad().slice(2, first).to(at::kDouble), exact.grad().slice(2, first), tolerance)
                << type << ", " << tokens << " tokens, heads of " << head_dim;
        }
    }
}

TEST(SizedAttention, GradientsEqualTheDefinition) {
    expect_gradients(at::kCPU, at::kFloat, 1e-5);
}

TEST(SizedAttention, GradientsEqualTheDefinitionOnTheGpu) {  // half types: two units in the last place
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    expect_gradients(at::kCUDA, at::kFloat, 1e-4);
    expect_gradients(at::kCUDA, at::kBFloat16, 0x1p-6);
    expect_gradients(at::kCUDA, at::kHalf, 0x1p-9);
}

TEST(SizedAttention, WrongSizesAreNamed) {
    const at::Tensor qkv = at::zeros({2, 5, 96});
    EXPECT_THROW(sized_self_attention(qkv, 2, at::ones({2, 4})), c10::Error);
    EXPECT_THROW(sized_self_attention(qkv[0], 2, PackedLayout({2, 3}, at::kCPU), at::ones({2, 5})), c10::Error);
}

}  // namespace
}  // namespace dynvit
