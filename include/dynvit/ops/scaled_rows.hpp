// Rows of 8-bit floating point numbers with a scale each: what products in float8 read.
#pragma once

#include <ATen/core/Tensor.h>

namespace dynvit {

/// Row r stands for scales[r] * values[r]. Its largest value is float8's largest, 448, so that rows don't depend on
/// each other.
struct ScaledRows {
    at::Tensor values;  // (..., C), float8 e4m3: a sign, 4 bits of exponent, 3 of mantissa
    at::Tensor scales;  // (rows), float32
};

/// The definition, for any device. @param x (..., C), of any type @param gelu round GELU(x), its tanh approximation
ScaledRows quantize_rows_plain(const at::Tensor& x, bool gelu = false);

/// The same by one kernel on a GPU that multiplies in float8, for bfloat16 and C up to 6144, a multiple of 8.
ScaledRows quantize_rows(const at::Tensor& x, bool gelu = false);

/// The definition of the following: LayerNorm(x) in float32, rounded. @param weight, bias (C) @param epsilon added to
/// the variance
ScaledRows quantize_normed_rows_plain(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                      double epsilon);

/// The same by one kernel on a GPU that multiplies in float8, for what residual_norm's kernel takes.
ScaledRows quantize_normed_rows(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double epsilon);

}  // namespace dynvit
