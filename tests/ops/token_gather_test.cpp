#include "dynvit/ops/token_gather.hpp"

#include "support.hpp"
#include "tensor_support.hpp"

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

}  // namespace
}  // namespace dynvit
