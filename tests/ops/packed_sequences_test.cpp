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

}  // namespace
}  // namespace dynvit
