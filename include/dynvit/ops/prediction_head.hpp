// The parts of a prediction module between and behind its linear layers, for inference.
#pragma once

#include "dynvit/ops/packed_sequences.hpp"

namespace dynvit {

/// Which rows belong together.
struct RowGroups {
    std::int64_t skipped = 0;              ///< the first rows of each that do not count: 1 for [CLS]
    const PackedLayout* layout = nullptr;  ///< of h, (T, C); null: h is (B, n, C)
};

/// Each row's own first half beside the mean of the second half over its group (zero for one without rows).
/// @param h (B, n, C) or (T, C); may be changed @return like h
at::Tensor share_mean_plain(const at::Tensor& h, const RowGroups& groups);

/// log pi_keep: the first of the two log-softmax values of z W^T + b, computed in float32.
/// @param z (..., C), weight (2, C), bias (2) @return (...), float32
at::Tensor keep_log_probability_plain(const at::Tensor& z, const at::Tensor& weight, const at::Tensor& bias);

/// The same by one kernel each in half precision on a GPU that the CUDA kernels were built for (C a multiple of 16).
/// What share_mean returns in skipped rows is of no meaning, but finite.
at::Tensor share_mean(const at::Tensor& h, const RowGroups& groups);
at::Tensor keep_log_probability(const at::Tensor& z, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace dynvit
