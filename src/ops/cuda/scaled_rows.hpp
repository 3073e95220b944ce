// The kernel that rounds rows to float8, for tensors. See ops/scaled_rows.hpp.
#pragma once

#include <ATen/core/Tensor.h>

#include "dynvit/ops/scaled_rows.hpp"

namespace dynvit::cuda {

/// Rounds each row of x to float8 with a scale of its own, as dynvit::quantize_rows() does.
/// @param x (..., C) @param gelu whether GELU(x) is rounded in place of x
/// @return undefined tensors where the kernel does not take x: it takes bfloat16 on a GPU that multiplies float8, C a
/// multiple of 8 up to 6144
ScaledRows quantize_rows(const at::Tensor& x, bool gelu);

}  // namespace dynvit::cuda
