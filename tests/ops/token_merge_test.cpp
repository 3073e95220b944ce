// Merging against a loop written out; attention among merged tokens against attention among their patches.
#include "dynvit/ops/token_merge.hpp"

#include <ATen/ATen.h>

#include "dynvit/ops/self_attention.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

constexpr std::int64_t kBatch = 2, kTokens = 30, kChannels = 12, kMetric = 5;

struct Example {
    at::Tensor x, sizes, places, metric;
};

Example make_example(std::int64_t prefix, std::int64_t count, const at::Device& device = at::kCPU) {
    const at::Tensor order = at::argsort(at::rand({kBatch, kTokens}, test::generator(1)), /*stable=*/true, /*dim=*/1);
    return {at::randn({kBatch, prefix + kTokens, kChannels}, test::generator(2)).to(device),
            at::randint(1, 5, {kBatch, kTokens}, test::generator(3), at::kFloat).to(device),
            std::get<0>(order.slice(1, 0, count).sort(1)).to(device),
            at::randn({kBatch, kTokens, kMetric}, test::generator(4)).to(device)};
}

// One token after another. @return (prefix + k, C) and (k)
MergedTokens by_hand(const Example& e, std::int64_t image, double threshold, std::int64_t prefix) {
    const at::Tensor patches = e.x[image].slice(0, prefix), places = e.places[image];
    const std::int64_t count = places.size(0);
    std::vector<at::Tensor> sums;
    std::vector<double> sizes;
    std::vector<bool> kept(kTokens);
    for (std::int64_t j = 0; j < count; ++j) {
        const auto place = places[j].item<std::int64_t>();
        kept[static_cast<std::size_t>(place)] = true;
        sizes.push_back(e.sizes[image][place].item<double>());
        sums.push_back(patches[place] * sizes.back());
    }
    for (std::int64_t i = 0; i < kTokens; ++i) {
        if (kept[static_cast<std::size_t>(i)]) continue;
        double nearest = -2;
        std::size_t slot = 0;
        for (std::int64_t j = 0; j < count; ++j) {
            const double cosine =
                at::cosine_similarity(e.metric[image][i], e.metric[image][places[j].item<std::int64_t>()], 0)
                    .item<double>();
            if (cosine > nearest) {
                nearest = cosine;
                slot = static_cast<std::size_t>(j);
            }
        }
        if (nearest <= threshold) continue;
        const double size = e.sizes[image][i].item<double>();
        sums[slot] = sums[slot] + patches[i] * size;
        sizes[slot] += size;
    }
    for (std::size_t j = 0; j < sums.size(); ++j) sums[j] = sums[j] / sizes[j];
    return {at::cat({e.x[image].slice(0, 0, prefix), at::stack(sums)}), at::tensor(sizes, at::kFloat)};
}

void expect_by_hand(const at::Device& device) {
    for (const std::int64_t prefix : {0, 1, 3}) {
        for (const std::int64_t count : {1, 7, 29, 30}) {
            for (const double threshold : {-1.0, 0.0, 0.5, 1.0}) {
                const Example e = make_example(prefix, count), there = make_example(prefix, count, device);
                const MergedTokens merged =
                    merge_dropped(there.x, there.sizes, there.places, there.metric, threshold, prefix);
                for (std::int64_t image = 0; image < kBatch; ++image) {
                    const MergedTokens expected = by_hand(e, image, threshold, prefix);
                    EXPECT_CLOSE(merged.x[image].cpu(), expected.x, 1e-5) << prefix << ' ' << count << ' ' << threshold;
                    EXPECT_CLOSE(merged.sizes[image].cpu(), expected.sizes, 1e-6);
                }
            }
        }
    }
}

TEST(TokenMerge, EqualsALoop) {
    expect_by_hand(at::kCPU);
}

TEST(TokenMerge, EqualsALoopOnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    expect_by_hand(at::kCUDA);
}

TEST(TokenMerge, NothingIsLostBelowTheThreshold) {
    const Example e = make_example(1, 7);
    const MergedTokens merged = merge_dropped(e.x, e.sizes, e.places, e.metric, -2, 1);
    EXPECT_CLOSE(merged.sizes.sum(1), e.sizes.sum(1), 1e-6) << "every patch is in a token";
    const MergedTokens once = merge_dropped(e.x, {}, e.places, e.metric, -2, 1);
    EXPECT_CLOSE(once.sizes.sum(1), at::full({kBatch}, double(kTokens)), 1e-6) << "one patch each";
    EXPECT_TRUE(merged.x.slice(1, 0, 1).equal(e.x.slice(1, 0, 1))) << "[CLS] stays as it is";
}

TEST(TokenMerge, NoneKept) {
    const Example e = make_example(1, 0);
    const MergedTokens merged = merge_dropped(e.x, e.sizes, e.places, e.metric, 0, 1);
    EXPECT_TRUE(merged.x.equal(e.x.slice(1, 0, 1)));
    EXPECT_EQ(merged.sizes.sizes(), (at::IntArrayRef{kBatch, 0}));
}

// The gradient of a mean is what each token has in it; a deleted token has none.
TEST(TokenMerge, GradientsFlowThroughTheMeans) {
    const Example e = make_example(1, 7);
    const at::Tensor x = e.x.clone().requires_grad_(),
                     direction = at::randn({kBatch, 8, kChannels}, test::generator(9));
    (merge_dropped(x, e.sizes, e.places, e.metric, 0.2, 1).x * direction).sum().backward();
    const double step = 1e-2;
    const at::Tensor probe = at::randn_like(e.x);
    const auto value = [&](double t) {
        return (merge_dropped(e.x + t * probe, e.sizes, e.places, e.metric, 0.2, 1).x * direction).sum();
    };
    EXPECT_CLOSE((x.grad() * probe).sum(), (value(step) - value(-step)) / (2 * step), 1e-3);
}

// A token of size s is seen as s equal tokens would be.
TEST(SizedAttention, EqualsAttentionAmongThePatches) {
    constexpr std::int64_t kHeads = 2;
    const std::vector<std::int64_t> repeats = {1, 3, 1, 2, 5};
    const at::Tensor qkv = at::randn({1, 5, 3 * kChannels}, test::generator(5));
    const at::Tensor sizes = at::tensor(std::vector<float>(repeats.begin(), repeats.end())).unsqueeze(0);
    const at::Tensor all = qkv.repeat_interleave(at::tensor(repeats, at::kLong), 1);
    const at::Tensor expected = self_attention(all, kHeads);  // (1, 12, C), of which equal tokens are equal
    const at::Tensor firsts = at::tensor({0, 1, 4, 5, 7}, at::kLong);
    EXPECT_CLOSE(sized_self_attention(qkv, kHeads, sizes), expected.index_select(1, firsts), 1e-5);
    EXPECT_TRUE(sized_self_attention(qkv, kHeads, {}).equal(self_attention(qkv, kHeads))) << "one each";
}

TEST(MeanKeys, AreTheMeanOfTheHeadsKeys) {
    constexpr std::int64_t kHeads = 3;
    const at::Tensor weight = at::randn({3 * kChannels, kChannels}, test::generator(6)),
                     bias = at::randn({3 * kChannels}, test::generator(7)),
                     x = at::randn({4, kChannels}, test::generator(8));
    const auto [mean_weight, mean_bias] = mean_key_layer(weight, bias, kHeads);
    const at::Tensor keys = at::linear(x, weight, bias).view({4, 3, kHeads, kChannels / kHeads}).select(1, 1);
    EXPECT_CLOSE(at::linear(x, mean_weight, mean_bias), keys.mean(1), 1e-5);
    EXPECT_FALSE(mean_key_layer(weight, {}, kHeads).bias.defined());
}

}  // namespace
}  // namespace dynvit
