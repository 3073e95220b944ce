// Rows of 8-bit floating point numbers with a scale each: what products in float8 read.
#pragma once

#include <ATen/core/Tensor.h>

namespace dynvit {

/// Rows in float8: row r stands for scales[r] * values[r]. Each row has its own scale, by which its largest magnitude
/// becomes float8's largest number, 448: no row's rounding depends on another row.
struct ScaledRows {
    at::Tensor values;  // (..., C), float8 e4m3: a sign, 4 bits of exponent, 3 of mantissa
    at::Tensor scales;  // (rows), float32: one for each row, whatever the dimensions before the last
};

/// Rounds each row of x to float8: the definition, for any device.
/// @param x (..., C), of any floating point type
/// @param gelu whether GELU(x), by its tanh approximation, is rounded in place of x
ScaledRows quantize_rows_plain(const at::Tensor& x, bool gelu = false);

/// The same, by one kernel on a GPU that multiplies in float8, where x is bfloat16 and C a multiple of 8 up to 6144.
ScaledRows quantize_rows(const at::Tensor& x, bool gelu = false);

/// Computes LayerNorm(x) in float32 and rounds each of its rows to float8: the definition, for any device.
/// @param x (..., C); weight, bias (C)
/// @param epsilon added to the variance
ScaledRows quantize_normed_rows_plain(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                      double epsilon);

/// The same, by one kernel on a GPU that multiplies in float8, where residual_norm()'s kernel takes x, weight and bias.
ScaledRows quantize_normed_rows(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double epsilon);

}  // namespace dynvit
