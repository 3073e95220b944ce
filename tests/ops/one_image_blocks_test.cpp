// Blocks of one image by one kernel, against the same blocks written out.
#include "dynvit/ops/one_image_blocks.hpp"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <array>
#include <atomic>
#include <cmath>
#include <thread>

#include "dynvit/ops/device_graphs.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

constexpr OneImageBlocks::Sizes kSizes{384, 6, 1536};
constexpr double kEpsilon = 1e-6;
constexpr std::int64_t kDepth = 4;

bool has_kernel() {
    return at::hasCUDA() && OneImageBlocks::supports(at::kCUDA, at::kBFloat16, kSizes, 197);
}

std::vector<OneImageBlocks::Block> random_blocks(at::ScalarType type, std::uint64_t seed = 1) {
    const at::Generator generator = test::generator(seed);
    const auto random = [&](at::IntArrayRef sizes, double scale, double mean = 0) {
        return (mean + scale * at::randn(sizes, generator)).to(at::kCUDA, type);
    };
    const std::int64_t c = kSizes.embed_dim, h = kSizes.hidden_dim;
    const double scale = 1 / std::sqrt(static_cast<double>(c));
    std::vector<OneImageBlocks::Block> blocks;
    for (std::int64_t i = 0; i < kDepth; ++i) {
        blocks.push_back({.norm1_weight = random({c}, 0.2, 1),
                          .norm1_bias = random({c}, 0.1),
                          .qkv_weight = random({3 * c, c}, 1.5 * scale),
                          .qkv_bias = i == 1 ? at::Tensor() : random({3 * c}, 0.1),
                          .proj_weight = random({c, c}, scale),
                          .proj_bias = random({c}, 0.1),
                          .norm2_weight = random({c}, 0.2, 1),
                          .norm2_bias = random({c}, 0.1),
                          .fc1_weight = random({h, c}, scale),
                          .fc1_bias = random({h}, 0.1),
                          .fc2_weight = random({c, h}, scale / 2),
                          .fc2_bias = random({c}, 0.1)});
    }
    return blocks;
}

at::Tensor random_tokens(std::int64_t tokens, at::ScalarType type, std::uint64_t seed = 2) {
    return (0.1 + at::randn({1, tokens, kSizes.embed_dim}, test::generator(seed))).to(at::kCUDA, type);
}

// A block from the definition, in x's type: (1, n, C) -> (1, n, C).
at::Tensor written_out(const OneImageBlocks::Block& block, const at::Tensor& x) {
    const auto of_type = [&](const at::Tensor& from) { return from.defined() ? from.to(x.scalar_type()) : from; };
    const auto linear = [&](const at::Tensor& from, const at::Tensor& weight, const at::Tensor& bias) {
        return at::linear(from, of_type(weight), of_type(bias));
    };
    const auto norm = [&](const at::Tensor& from, const at::Tensor& weight, const at::Tensor& bias) {
        return at::layer_norm(from, {from.size(2)}, of_type(weight), of_type(bias), kEpsilon);
    };
    const at::Tensor qkv = linear(norm(x, block.norm1_weight, block.norm1_bias), block.qkv_weight, block.qkv_bias);
    const at::Tensor parts =
        qkv.view({x.size(1), 3, kSizes.heads, x.size(2) / kSizes.heads}).permute({1, 2, 0, 3});  // (3, h, n, d)
    const double scale = 1 / std::sqrt(static_cast<double>(parts.size(3)));
    const at::Tensor weights = at::softmax(at::matmul(parts[0], parts[1].transpose(1, 2)) * scale, -1);
    const at::Tensor attended = at::matmul(weights, parts[2]).transpose(0, 1).flatten(1).unsqueeze(0);
    const at::Tensor y = x + linear(attended, block.proj_weight, block.proj_bias);
    const at::Tensor hidden =
        at::gelu(linear(norm(y, block.norm2_weight, block.norm2_bias), block.fc1_weight, block.fc1_bias), "tanh");
    return y + linear(hidden, block.fc2_weight, block.fc2_bias);
}

at::Tensor written_out(const std::vector<OneImageBlocks::Block>& blocks, std::int64_t first, std::int64_t last,
                       at::Tensor x) {
    for (std::int64_t i = first; i < last; ++i) x = written_out(blocks[static_cast<std::size_t>(i)], x);
    return x;
}

// The root of the mean square of the difference, relative to that of what is expected.
double mean_error(const at::Tensor& found, const at::Tensor& expected) {
    return ((found.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
}

TEST(OneImageBlocks, AsExactAsTheBlocksWrittenOut) {
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    // Written out in that type, operators round what the kernel keeps in float32: the residual connections, the norms'
    // outputs. What it rounds and they don't, the norms' weights times the layers' and fc2's parts, is less.
    for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
        const auto blocks = random_blocks(type);
        OneImageBlocks one_image(blocks, type, kEpsilon);
        for (const std::int64_t tokens : {1, 17, 68, 97, 138, 197, 257, 400, 512}) {
            const at::Tensor x = random_tokens(tokens, type);
            for (const auto& [first, last] : {std::array<std::int64_t, 2>{0, kDepth}, {1, 2}}) {
                const at::Tensor expected = written_out(blocks, first, last, x.to(at::kDouble));
                const at::Tensor found = one_image.run(first, last, x);
                ASSERT_EQ(found.sizes(), x.sizes());
                EXPECT_LE(mean_error(found, expected), mean_error(written_out(blocks, first, last, x), expected))
                    << type << ", " << tokens << " tokens, blocks " << first << " to " << last;
            }
        }
    }
}

TEST(OneImageBlocks, EqualBitsEachTime) {
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    OneImageBlocks one_image(random_blocks(at::kBFloat16), at::kBFloat16, kEpsilon);
    for (const std::int64_t tokens : {68, 197, 257}) {
        const at::Tensor x = random_tokens(tokens, at::kBFloat16), before = x.clone();
        const at::Tensor expected = one_image.run(0, kDepth, x);
        const at::Tensor of_three = one_image.run(0, 3, x);  // an odd number: the next run finds other buffers
        for (int i = 0; i < 50; ++i) {
            EXPECT_TRUE(one_image.run(0, kDepth, x).equal(expected)) << tokens << " tokens, run " << i;
            EXPECT_TRUE(one_image.run(0, 3, x).equal(of_three)) << tokens << " tokens, run " << i;
        }
        EXPECT_TRUE(one_image.run(3, kDepth, of_three).isfinite().all().item<bool>());
        EXPECT_TRUE(x.equal(before));
    }
}

TEST(OneImageBlocks, NumbersThatAreNoneDoNotHoldItUp) {
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
        OneImageBlocks one_image(random_blocks(type), type, kEpsilon);
        const at::Tensor x = random_tokens(138, type), expected = one_image.run(0, kDepth, x);
        for (const double value : {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::quiet_NaN(),
                                   std::numeric_limits<double>::infinity()}) {
            const at::Tensor broken = x.clone();
            broken[0][5].fill_(value);
            EXPECT_TRUE(one_image.run(0, kDepth, broken)[0][5].isnan().all().item<bool>());
            EXPECT_TRUE(one_image.run(0, kDepth, x).equal(expected));
        }
    }
}

TEST(OneImageBlocks, ReplaysInARecording) {
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    OneImageBlocks one_image(random_blocks(at::kBFloat16), at::kBFloat16, kEpsilon);
    const auto pass = [&](const at::Tensor& x) {
        return one_image.run(3, kDepth, one_image.run(0, 3, x).slice(1, 0, 68));
    };
    const std::array<at::Tensor, 2> inputs{random_tokens(197, at::kBFloat16, 3), random_tokens(197, at::kBFloat16, 4)};
    const std::array<at::Tensor, 2> expected{pass(inputs[0]), pass(inputs[1])};
    DeviceGraphs graphs(at::kCUDA);
    const at::Tensor input = inputs[0].clone();
    at::Tensor output;
    const std::size_t graph = graphs.record([&] { output = pass(input); });
    for (std::size_t i = 0; i < 200; ++i) {
        at::Tensor found;
        graphs.run(
            graph, [&] { input.copy_(inputs[i % 2]); }, [&] { found = output.clone(); });
        ASSERT_TRUE(found.equal(expected[i % 2])) << "replay " << i;
        if (i % 7 == 0) {  // between them, one that is not recorded
            ASSERT_TRUE(pass(inputs[0]).equal(expected[0])) << "after replay " << i;
        }
    }
    EXPECT_THROW(graphs.record([&] { one_image.run(0, 1, inputs[0].slice(1, 0, 30)); }), c10::Error);
}

TEST(OneImageBlocks, TwoAtOnceFinish) {  // each needs most multiprocessors: they take turns
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    std::atomic<int> different = 0;
    const auto work = [&](std::uint64_t seed) {
        const c10::impl::VirtualGuardImpl streams(at::kCUDA);
        const c10::StreamGuard stream(streams.getStreamFromGlobalPool(streams.getDevice()));
        OneImageBlocks one_image(random_blocks(at::kBFloat16, seed), at::kBFloat16, kEpsilon);
        const at::Tensor x = random_tokens(197, at::kBFloat16, seed), expected = one_image.run(0, kDepth, x).cpu();
        for (int round = 0; round < 20; ++round) {
            at::Tensor found;
            for (int i = 0; i < 20; ++i) found = one_image.run(0, kDepth, x);
            different += !found.cpu().equal(expected);
        }
    };
    std::thread first(work, 5), second(work, 6);
    first.join();
    second.join();
    EXPECT_EQ(different, 0);
}

TEST(OneImageBlocks, SaysWhatItDoesNotTake) {
    EXPECT_FALSE(OneImageBlocks::supports(at::kCPU, at::kBFloat16, kSizes, 197));
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    EXPECT_FALSE(OneImageBlocks::supports(at::kCUDA, at::kFloat, kSizes, 197));
    EXPECT_FALSE(OneImageBlocks::supports(at::kCUDA, at::kHalf, {192, 3, 768}, 197));
    EXPECT_FALSE(OneImageBlocks::supports(at::kCUDA, at::kHalf, kSizes, 577));
    OneImageBlocks one_image(random_blocks(at::kHalf), at::kHalf, kEpsilon);
    const at::Tensor x = random_tokens(5, at::kHalf);
    EXPECT_THROW(one_image.run(0, kDepth + 1, x), c10::Error);
    EXPECT_THROW(one_image.run(0, 1, x.to(at::kFloat)), c10::Error);
    EXPECT_THROW(one_image.run(0, 1, x.expand({2, -1, -1})), c10::Error);
}

}  // namespace
}  // namespace dynvit
