#include "dynvit/ops/token_gather.hpp"

#include <ATen/ATen.h>

#include <limits>

#include "models/golden_model.hpp"

namespace dynvit {
namespace {

TEST(TokenGather, PicksRowByRow) {  // against a loop
    const at::Tensor tokens = at::arange(2 * 4 * 3).view({2, 4, 3});
    const at::Tensor indices = at::tensor({3, 1, 0, 2}, at::kLong).view({2, 2});
    const at::Tensor found = gather_tokens(tokens, indices);
    ASSERT_EQ(found.sizes(), (at::IntArrayRef{2, 2, 3}));
    for (int b = 0; b < 2; ++b) {
        for (int i = 0; i < 2; ++i) EXPECT_TRUE(found[b][i].equal(tokens[b][indices[b][i].item<std::int64_t>()]));
    }
    EXPECT_EQ(gather_tokens(tokens, indices.slice(1, 0, 0)).sizes(), (at::IntArrayRef{2, 0, 3}));
}

TEST(TokenGather, TopPlacesAscendAndTiesGoToTheLowerPlace) {
    const at::Tensor scores = at::tensor({1.0, 3.0, 3.0, 2.0, 3.0, 5.0, 5.0, 5.0, 5.0, 5.0}).view({2, 5});
    EXPECT_TRUE(top_places(scores, 2).equal(at::tensor({1, 2, 0, 1}, at::kLong).view({2, 2})));
    EXPECT_TRUE(top_places(scores, 4).equal(at::tensor({1, 2, 3, 4, 0, 1, 2, 3}, at::kLong).view({2, 4})));
    EXPECT_EQ(top_places(scores, 0).sizes(), (at::IntArrayRef{2, 0}));
    EXPECT_TRUE(top_places(scores, 5).equal(at::arange(5).expand({2, 5})));
}

at::Tensor places_by_sorting(const at::Tensor& scores, std::int64_t count) {
    const at::Tensor order = at::argsort(scores, /*stable=*/true, /*dim=*/1, /*descending=*/true);
    return std::get<0>(order.slice(1, 0, count).sort(1));
}

void expect_top_tokens(const at::Device& device, std::int64_t prefix) {
    for (const std::int64_t tokens : {1, 7, 196, 576, 1024}) {
        for (const std::int64_t batch : {1, 3, 70}) {
            const at::Tensor x = at::randn({batch, prefix + tokens, 24}, test::generator(10)).to(device, at::kBFloat16);
            // Few different scores: many ties, 0 and -0 too; and one that is no number, which sorting puts first.
            at::Tensor scores = at::randint(-4, 5, {batch, tokens}, test::generator(11), at::kFloat) *
                                (2 * at::randint(0, 2, {batch, tokens}, test::generator(13), at::kFloat) - 1);
            scores[batch - 1][0] = -std::numeric_limits<float>::infinity();
            scores[0][tokens / 2] = std::numeric_limits<float>::quiet_NaN();
            const at::Tensor positions = at::randint(0, 5000, {batch, tokens}, test::generator(12), at::kLong);
            for (const std::int64_t count : {std::int64_t{0}, tokens / 3, tokens}) {
                const at::Tensor places = places_by_sorting(scores, count);
                EXPECT_TRUE(top_places(scores.to(device), count).cpu().equal(places)) << tokens << ' ' << count;
                EXPECT_TRUE(top_places(scores.to(device, at::kDouble), count).cpu().equal(places));
                const KeptTokens kept = keep_top_tokens(x, scores.to(device), positions.to(device), count, prefix);
                EXPECT_TRUE(kept.positions.cpu().equal(positions.gather(1, places))) << tokens << ' ' << count;
                EXPECT_TRUE(kept.tokens.slice(1, prefix).cpu().equal(gather_tokens(x.cpu().slice(1, prefix), places)));
                EXPECT_TRUE(kept.tokens.slice(1, 0, prefix).equal(x.slice(1, 0, prefix)));
            }
        }
    }
}

TEST(KeepTopTokens, IsSortingAndGathering) {
    for (const std::int64_t prefix : {0, 1, 5}) expect_top_tokens(at::kCPU, prefix);
    if (!at::hasCUDA()) GTEST_SKIP() << "the GPU's part needs one";
    for (const std::int64_t prefix : {0, 1, 5}) expect_top_tokens(at::kCUDA, prefix);
}

}  // namespace
}  // namespace dynvit
