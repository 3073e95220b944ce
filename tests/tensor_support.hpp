// Comparing tensors.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dynvit/io/safetensors.hpp"

namespace dynvit::test {

/// Largest difference, relative to the largest magnitude expected (or 1e-30).
inline double relative_error(const at::Tensor& found, const at::Tensor& expected) {
    const at::Tensor a = found.detach().to(at::kCPU, at::kDouble), b = expected.detach().to(at::kCPU, at::kDouble);
    if (a.sizes() != b.sizes()) return std::numeric_limits<double>::infinity();
    if (a.numel() == 0) return 0;
    return (a - b).abs().max().item<double>() / std::max(b.abs().max().item<double>(), 1e-30);
}

}  // namespace dynvit::test

#define EXPECT_CLOSE(found, expected, tolerance) \
    EXPECT_LE(::dynvit::test::relative_error((found), (expected)), (tolerance)) << #found " against " #expected
