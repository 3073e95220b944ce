// Launchers of the kernels of ops/prediction_head.hpp.
#pragma once

#include <cuda_runtime_api.h>

#include "element_type.hpp"

namespace dynvit::cuda {

/// Sequences of rows of C values of a half type, of which the first `skipped` do not count.
struct PredictionShape {
    int sequences, rows, skipped, channels;  // rows: of each sequence, unless there are offsets
};

/// What the channels of share_mean and of keep_log_probability are multiples of.
inline constexpr int kSharedStep = 16, kDecidedStep = 8;

/// Replaces the second half of each row of h by the mean of that half over the sequence's rows. C is a multiple of
/// kSharedStep.
/// @param offsets (sequences + 1), where each begins; null: all have as many rows
cudaError_t share_mean(Element element, PredictionShape shape, const int* offsets, void* h, cudaStream_t stream);

/// The first of two log-softmax values of z W^T + b, for each of `rows` rows. C is a multiple of
/// kDecidedStep.
/// @param z (rows, C), weight (2, C), bias (2), of `element`; result (rows)
cudaError_t keep_log_probability(Element element, int rows, int channels, const void* z, const void* weight,
                                 const void* bias, float* result, cudaStream_t stream);

}  // namespace dynvit::cuda
