// All blocks of one image by one kernel, against the same blocks and prediction modules written out.
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
constexpr OneImageBlocks::Epsilons kEpsilons{1e-6, 1e-5};
constexpr std::int64_t kDepth = 4;

bool has_kernel() {
    return at::hasCUDA() && OneImageBlocks::supports(at::kCUDA, at::kBFloat16, kSizes, 197);
}

struct RandomParameters {
    at::ScalarType type;
    at::Generator generator;

    at::Tensor operator()(at::IntArrayRef sizes, double scale, double mean = 0) const {
        return (mean + scale * at::randn(sizes, generator)).to(at::kCUDA, type);
    }
};

std::vector<OneImageBlocks::Block> random_blocks(at::ScalarType type, std::uint64_t seed = 1) {
    const RandomParameters random{type, test::generator(seed)};
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

// Before blocks 1 and 2, next to each other, and 3.
std::vector<OneImageBlocks::Predictor> random_predictors(at::ScalarType type, std::uint64_t seed = 7) {
    const RandomParameters random{type, test::generator(seed)};
    const std::int64_t c = kSizes.embed_dim;
    std::vector<OneImageBlocks::Predictor> predictors;
    for (const std::int64_t block : {1, 2, 3}) {
        OneImageBlocks::Predictor predictor{block, random({c}, 0.2, 1), random({c}, 0.1), {}};
        std::int64_t inputs = c, outputs = c;
        for (auto& layer : predictor.layers) {
            layer.weight = random({outputs, inputs}, 1.5 / std::sqrt(static_cast<double>(inputs)));
            if (block != 2) layer.bias = random({outputs}, 0.1);
            inputs = outputs;
            outputs = outputs == c / 4 ? 2 : outputs / 2;
        }
        predictors.push_back(std::move(predictor));
    }
    return predictors;
}

OneImageBlocks dense_blocks(const std::vector<OneImageBlocks::Block>& blocks, at::ScalarType type) {
    return OneImageBlocks(blocks, {}, type, kEpsilons);
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
        return at::layer_norm(from, {from.size(2)}, of_type(weight), of_type(bias), kEpsilons.norm);
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

at::Tensor written_out(const std::vector<OneImageBlocks::Block>& blocks, at::Tensor x) {
    for (const OneImageBlocks::Block& block : blocks) x = written_out(block, x);
    return x;
}

// log pi_keep from the definition: (1, prefix + n, C) -> (n).
at::Tensor scores_written_out(const OneImageBlocks::Predictor& predictor, const at::Tensor& x, std::int64_t prefix) {
    const auto of_type = [&](const at::Tensor& from) { return from.defined() ? from.to(x.scalar_type()) : from; };
    const auto layer = [&](std::size_t i, const at::Tensor& from) {
        return at::linear(from, of_type(predictor.layers[i].weight), of_type(predictor.layers[i].bias));
    };
    const at::Tensor normed = at::layer_norm(x[0].slice(0, prefix), {x.size(2)}, of_type(predictor.norm_weight),
                                             of_type(predictor.norm_bias), kEpsilons.predictor_norm);
    const std::vector<at::Tensor> halves = at::gelu(layer(0, normed), "tanh").chunk(2, 1);
    at::Tensor z = at::cat({halves[0], halves[1].mean(0, true).expand_as(halves[1])}, 1);
    for (const std::size_t i : {1, 2}) z = at::gelu(layer(i, z), "tanh");
    return at::log_softmax(layer(3, z), 1).select(1, 0);
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
        const auto all = random_blocks(type);
        for (const auto& blocks : {all, {all[1]}}) {
            OneImageBlocks one_image = dense_blocks(blocks, type);
            for (const std::int64_t tokens : {1, 17, 68, 97, 138, 197, 257, 400, 512}) {
                const at::Tensor x = random_tokens(tokens, type);
                const at::Tensor expected = written_out(blocks, x.to(at::kDouble));
                const at::Tensor found = one_image.run(x, {}).x;
                ASSERT_EQ(found.sizes(), x.sizes());
                EXPECT_LE(mean_error(found, expected), mean_error(written_out(blocks, x), expected))
                    << type << ", " << tokens << " tokens, " << blocks.size() << " blocks";
            }
        }
    }
}

// The kept tokens have the highest scores, and what is computed from them is what the blocks make of them alone.
void expect_definition(at::ScalarType type, std::int64_t tokens, std::int64_t prefix,
                       const std::vector<std::int64_t>& counts) {
    SCOPED_TRACE(testing::Message() << type << ", " << tokens << " tokens, " << prefix << " before the patches, "
                                    << at::IntArrayRef(counts));
    const auto blocks = random_blocks(type);
    const auto predictors = random_predictors(type);
    OneImageBlocks one_image(blocks, predictors, type, kEpsilons, prefix);
    const at::Tensor x = random_tokens(tokens, type);
    const OneImageBlocks::Output found = one_image.run(x, counts);
    at::Tensor exact = written_out(blocks[0], x.to(at::kDouble)), rounded = written_out(blocks[0], x);
    at::Tensor left = at::arange(tokens - prefix, found.kept[0].options());  // places of exact's patches
    const auto with_prefix = [&](const at::Tensor& patches) {
        return at::cat({at::arange(prefix, patches.options()), prefix + patches});
    };
    for (std::size_t s = 0; s < counts.size(); ++s) {
        const at::Tensor kept = found.kept[s][0];
        ASSERT_EQ(kept.size(0), counts[s]);
        const at::Tensor keeps = at::isin(left, kept);
        ASSERT_EQ(keeps.sum().item<std::int64_t>(), counts[s]) << "stage " << s;
        if (counts[s] > 1) {
            EXPECT_TRUE((kept.slice(0, 1) > kept.slice(0, 0, -1)).all().item<bool>()) << "stage " << s;
        }
        if (counts[s] > 0 && counts[s] < left.size(0)) {
            const at::Tensor scores = scores_written_out(predictors[s], exact, prefix);
            const at::Tensor off = (scores_written_out(predictors[s], rounded, prefix) - scores).abs();
            EXPECT_GE(scores.masked_select(keeps).min().item<double>(),
                      scores.masked_select(~keeps).max().item<double>() - 2 * off.max().item<double>())
                << "stage " << s;
        }
        const at::Tensor rows = with_prefix(keeps.nonzero().flatten());
        left = kept;
        exact = written_out(blocks[s + 1], exact.index_select(1, rows));
        rounded = written_out(blocks[s + 1], rounded.index_select(1, rows));
    }
    EXPECT_LE(mean_error(found.x.index_select(1, with_prefix(left)), exact), mean_error(rounded, exact));
}

TEST(OneImageBlocks, DropsTokensAsTheDefinitionDoes) {
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
        for (const std::vector<std::int64_t>& counts : std::vector<std::vector<std::int64_t>>{{16, 9, 3},
                                                                                              {60, 60, 0},
                                                                                              {137, 96, 67},
                                                                                              {196, 20, 1},
                                                                                              {250, 100, 50},
                                                                                              {400, 399, 7},
                                                                                              {300, 0, 0},
                                                                                              {0, 0, 0}}) {
            for (const std::int64_t tokens : {std::int64_t{197}, counts[0] + 1, counts[0] + 100}) {
                if (tokens <= counts[0] || tokens > 512) continue;
                expect_definition(type, tokens, 1, counts);
            }
        }
        // [CLS] and registers, as many as fill a word of the kernel's selection, and one more.
        for (const std::int64_t prefix : {2, 5, 32, 33}) {
            expect_definition(type, prefix + 256, prefix, {179, 125, 88});
            expect_definition(type, prefix + 40, prefix, {40, 1, 0});
        }
    }
}

TEST(OneImageBlocks, EqualBitsEachTime) {
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    OneImageBlocks one_image(random_blocks(at::kBFloat16), random_predictors(at::kBFloat16), at::kBFloat16, kEpsilons);
    for (const std::int64_t tokens : {68, 197, 257, 500}) {
        const at::Tensor x = random_tokens(tokens, at::kBFloat16), before = x.clone();
        const std::vector<std::int64_t> counts{tokens / 2, tokens / 3, tokens / 5};
        const at::Tensor dense = one_image.run(x, {}).x;
        const OneImageBlocks::Output pruned = one_image.run(x, counts);
        for (int i = 0; i < 50; ++i) {
            if (i % 3 == 0) {
                EXPECT_TRUE(one_image.run(x, {}).x.equal(dense)) << tokens << " tokens, run " << i;
            }
            const OneImageBlocks::Output again = one_image.run(x, counts);
            EXPECT_TRUE(again.x.equal(pruned.x)) << tokens << " tokens, run " << i;
            for (std::size_t s = 0; s < counts.size(); ++s) EXPECT_TRUE(again.kept[s].equal(pruned.kept[s]));
        }
        EXPECT_TRUE(x.equal(before));
    }
    for (const std::size_t depth : {1, 3}) {  // odd numbers: the next run finds other buffers
        auto blocks = random_blocks(at::kBFloat16);
        blocks.resize(depth);
        OneImageBlocks few = dense_blocks(blocks, at::kBFloat16);
        const at::Tensor x = random_tokens(197, at::kBFloat16), expected = few.run(x, {}).x;
        for (int i = 0; i < 50; ++i) EXPECT_TRUE(few.run(x, {}).x.equal(expected)) << "run " << i;
    }
}

TEST(OneImageBlocks, NumbersThatAreNoneDoNotHoldItUp) {
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
        OneImageBlocks one_image(random_blocks(type), random_predictors(type), type, kEpsilons);
        const std::vector<std::int64_t> counts{100, 70, 20};
        const at::Tensor x = random_tokens(138, type), expected = one_image.run(x, {}).x;
        const at::Tensor pruned = one_image.run(x, counts).x;
        for (const double value : {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::quiet_NaN(),
                                   std::numeric_limits<double>::infinity()}) {
            const at::Tensor broken = x.clone();
            broken[0][5].fill_(value);
            EXPECT_TRUE(one_image.run(broken, {}).x[0][5].isnan().all().item<bool>());
            EXPECT_TRUE(one_image.run(x, {}).x.equal(expected));
            EXPECT_EQ(one_image.run(broken, counts).kept[2].size(1), counts[2]);
            EXPECT_TRUE(one_image.run(x, counts).x.equal(pruned));
        }
    }
}

TEST(OneImageBlocks, ReplaysInARecording) {
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    OneImageBlocks one_image(random_blocks(at::kBFloat16), random_predictors(at::kBFloat16), at::kBFloat16, kEpsilons);
    const auto pass = [&](const at::Tensor& x) { return one_image.run(x, {137, 96, 67}).x; };
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
    EXPECT_THROW(graphs.record([&] { one_image.run(inputs[0].slice(1, 0, 30), {}); }), c10::Error);
}

TEST(OneImageBlocks, TwoAtOnceFinish) {  // each needs most multiprocessors: they take turns
    if (!has_kernel()) GTEST_SKIP() << "needs a GPU of compute capability 9.0 and CUDA kernels";
    std::atomic<int> different = 0;
    const auto work = [&](std::uint64_t seed) {
        const c10::impl::VirtualGuardImpl streams(at::kCUDA);
        const c10::StreamGuard stream(streams.getStreamFromGlobalPool(streams.getDevice()));
        OneImageBlocks one_image(random_blocks(at::kBFloat16, seed), random_predictors(at::kBFloat16, seed),
                                 at::kBFloat16, kEpsilons);
        const auto pass = [&](const at::Tensor& x) { return one_image.run(x, {137, 96, 67}).x; };
        const at::Tensor x = random_tokens(197, at::kBFloat16, seed), expected = pass(x).cpu();
        for (int round = 0; round < 20; ++round) {
            at::Tensor found;
            for (int i = 0; i < 20; ++i) found = pass(x);
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
    OneImageBlocks one_image(random_blocks(at::kHalf), random_predictors(at::kHalf), at::kHalf, kEpsilons);
    const at::Tensor x = random_tokens(5, at::kHalf);
    EXPECT_THROW(one_image.run(x.to(at::kFloat), {}), c10::Error);
    EXPECT_THROW(one_image.run(x.expand({2, -1, -1}), {}), c10::Error);
    EXPECT_THROW(one_image.run(x, {3, 2}), c10::Error);
    EXPECT_THROW(one_image.run(x, {3, 4, 1}), c10::Error);
    EXPECT_THROW(one_image.run(x, {5, 4, 1}), c10::Error);
    auto predictors = random_predictors(at::kHalf);
    predictors[2].block = kDepth;
    EXPECT_THROW(OneImageBlocks(random_blocks(at::kHalf), predictors, at::kHalf, kEpsilons), c10::Error);
}

}  // namespace
}  // namespace dynvit
