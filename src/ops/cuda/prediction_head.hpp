// The kernels of ops/prediction_head.hpp for tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "dynvit/ops/prediction_head.hpp"

namespace dynvit::cuda {

/// @return why the kernels do not take all of a prediction head with an input of so many channels: they take multiples
/// of 32, as the last of its layers has a quarter of them; empty where they do
std::string why_no_prediction_head(std::int64_t channels);

/// Replaces the second half of each row of h by its mean over the row's group, in place, as dynvit::share_mean() does.
/// @param h (B, n, C) or (T, C)
/// @return whether the kernel takes h; where it does not, nothing is changed. It takes a half type on a GPU that the
/// kernels were built for, contiguous, C a multiple of 16
bool share_mean(const at::Tensor& h, const RowGroups& groups);

/// Computes log pi_keep as dynvit::keep_log_probability() does.
/// @param z (..., C), weight (2, C), bias (2)
/// @return (...), float32; undefined where the kernel does not take them. It takes one half type for all on a GPU that
/// the kernels were built for, contiguous, C a multiple of 8
at::Tensor keep_log_probability(const at::Tensor& z, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace dynvit::cuda
