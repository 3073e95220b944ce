#include "dynvit/ops/packed_sequences.hpp"

#include <ATen/ATen.h>

#include "models/golden_model.hpp"

namespace dynvit {
namespace {

void expect_same(const PackedLayout& found, const PackedLayout& expected) {
    EXPECT_EQ(found.lengths(), expected.lengths());
    EXPECT_EQ(found.rows(), expected.rows());
    EXPECT_EQ(found.longest(), expected.longest());
    EXPECT_EQ(found.offsets().scalar_type(), at::kInt);
    EXPECT_TRUE(found.offsets().equal(expected.offsets()));
}

void expect_layouts(const at::Device& device) {
    const PackedLayout layout({2, 0, 3}, device);
    EXPECT_EQ(layout.rows(), 5);
    EXPECT_EQ(layout.longest(), 3);
    EXPECT_TRUE(layout.offsets().cpu().equal(at::tensor({0, 2, 2, 5}, at::kInt)));
    EXPECT_TRUE(layout.device_lengths().cpu().equal(at::tensor({2, 0, 3}, at::kLong)));
    EXPECT_TRUE(layout.sequence_of_row().cpu().equal(at::tensor({0, 0, 2, 2, 2}, at::kLong)));
    const PackedLayout none(std::vector<std::int64_t>{}, device);
    EXPECT_EQ(none.rows(), 0);
    for (const PackedLayout& one : {layout, none}) expect_same(PackedLayout::from_offsets(one.offsets()), one);
    expect_same(PackedLayout::uniform(3, 197, device), PackedLayout({197, 197, 197}, device));
    expect_same(PackedLayout::uniform(2, 1, device), PackedLayout({1, 1}, device));
    expect_same(PackedLayout::uniform(0, 5, device), none);
}

TEST(PackedLayout, WhereSequencesAre) {
    expect_layouts(at::kCPU);
    if (!at::hasCUDA()) GTEST_SKIP() << "the GPU's part needs one";
    expect_layouts(at::kCUDA);
}

TEST(PackedSequences, MeanOfEachSequence) {
    const at::Tensor x = at::tensor({1.0, 3.0, 5.0, 7.0, 9.0}).view({5, 1});
    EXPECT_CLOSE(packed_mean(x, PackedLayout({2, 0, 3}, at::kCPU)), at::tensor({2.0, 0.0, 7.0}).view({3, 1}), 1e-6);
    EXPECT_CLOSE(packed_mean(x.slice(0, 0, 0), PackedLayout({0, 0}, at::kCPU)), at::zeros({2, 1}), 0);
}

}  // namespace
}  // namespace dynvit
