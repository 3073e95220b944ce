// Patches' rows: the plain version against a convolution, the kernel against the plain version.
#include "dynvit/ops/patch_rows.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "models/golden_model.hpp"

namespace dynvit {
namespace {

const PixelScaling kScaling{{0.5f, 0.25f, 2.0f}, {1.0f, -2.0f, 0.5f}};

TEST(PatchRows, AreWhatAConvolutionMultiplies) {
    const at::Tensor images = at::randn({2, 3, 24, 32}, test::generator(1));
    const at::Tensor weight = at::randn({5, 3, 8, 8}, test::generator(2));
    const at::Tensor expected = at::conv2d(images, weight, {}, 8).flatten(2).transpose(1, 2);
    const at::Tensor rows = patch_rows_plain(images, 8, {}, at::kFloat);
    EXPECT_CLOSE(at::matmul(rows, weight.flatten(1).t()), expected, 1e-5);
    const at::Tensor scaled = patch_rows_plain(images, 8, kScaling, at::kFloat);
    EXPECT_CLOSE(scaled.view({2, 12, 3, 64}).select(2, 1), rows.view({2, 12, 3, 64}).select(2, 1) * 0.25 - 2, 1e-6);
    at::Tensor written = at::empty_like(rows);
    write_patch_rows(written, images, 8, kScaling);
    EXPECT_TRUE(written.equal(scaled));
}

TEST(PatchRows, HaveZerosBehindThePixelsOfOddPatches) {
    const at::Tensor images = at::randn({2, 3, 28, 42}, test::generator(1));
    EXPECT_EQ(patch_row_width(14), 592);
    const at::Tensor rows = at::full({2, 6, 592}, NAN);
    write_patch_rows(rows, images, 14, kScaling);
    EXPECT_TRUE(rows.slice(2, 0, 588).equal(patch_rows_plain(images, 14, kScaling, at::kFloat)));
    EXPECT_TRUE(rows.slice(2, 588).equal(at::zeros({2, 6, 4})));
}

TEST(PatchRows, OnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    for (const at::ScalarType pixels : {at::kByte, at::kFloat, at::kHalf, at::kBFloat16}) {
        for (const at::ScalarType type : {at::kHalf, at::kBFloat16, at::kFloat}) {
            for (const int patch : {8, 16, 4, 14, 5}) {
                const at::Tensor images =
                    (at::rand({3, 3, 3 * patch, 4 * patch}, test::generator(3)) * 255).to(pixels).cuda();
                at::Tensor expected = patch_rows_plain(images, patch, kScaling, type);
                expected = at::constant_pad_nd(expected, {0, patch_row_width(patch) - expected.size(2)});
                at::Tensor rows = at::full_like(expected, NAN);
                write_patch_rows(rows, images, patch, kScaling);
                EXPECT_CLOSE(rows, expected, type == at::kFloat ? 1e-6 : type == at::kHalf ? 1e-3 : 8e-3) << pixels;
            }
        }
    }
}

}  // namespace
}  // namespace dynvit
