// The part of a prediction module behind its first linear layer, for inference.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "dynvit/ops/inference_linear.hpp"
#include "dynvit/ops/packed_sequences.hpp"

namespace dynvit {

/// Which rows of h, (B, n, C) or (T, C), form a group: the tokens of one image.
struct RowGroups {
    std::int64_t skipped = 0;              ///< number of first rows of each group that do not count: 1 for [CLS]
    const PackedLayout* layout = nullptr;  ///< of the groups in h, (T, C); null: h is (B, n, C), a group for each b
};

/// Replaces the second half of each row's channels by the mean of that half over the rows of its group that count; by
/// zero where none count. The definition, for any device.
/// @param h (B, n, C) or (T, C)
/// @return a new tensor of the shape and type of h
at::Tensor share_mean_plain(const at::Tensor& h, const RowGroups& groups);

/// Computes log pi_keep, the first of the two log-softmax values of z W^T + b, with the softmax in float32. The
/// definition, for any device.
/// @param z (..., C), weight (2, C), bias (2)
/// @return (...), float32
at::Tensor keep_log_probability_plain(const at::Tensor& z, const at::Tensor& weight, const at::Tensor& bias);

/// The same as share_mean_plain(), by one kernel in half precision on a GPU that the CUDA kernels were built for, where
/// h is contiguous and C a multiple of 16.
/// @param h (B, n, C) or (T, C); the kernel changes it in place
/// @return h itself or a new tensor like it; the values in skipped rows are of no meaning, but finite
at::Tensor share_mean(const at::Tensor& h, const RowGroups& groups);

/// The same as keep_log_probability_plain(), by one kernel in half precision on a GPU that the CUDA kernels were built
/// for, where z is contiguous and C a multiple of 8.
at::Tensor keep_log_probability(const at::Tensor& z, const at::Tensor& weight, const at::Tensor& bias);

namespace cpu {
struct HeadLayers;
}

/// Computes log pi_keep from the output of a prediction module's first linear layer: the shared mean and the three
/// further layers, with GELU between them. On the processor, for float32 and bfloat16, it runs by a kernel that
/// computes in float32 with weights of float32; elsewhere by the functions above and InferenceLinear. One head may be
/// called from several threads at once.
class PredictionHead {
  public:
    /// weight (out, in), bias (out).
    struct Layer {
        at::Tensor weight, bias;
    };
    /// Copies the layers' parameters.
    /// @param layers of weights (C / 2, C), (C / 4, C / 2), (2, C / 4), on the device where the head is to run
    /// @param precision kFloat, kBFloat16 or kHalf: the type of weights and input
    PredictionHead(const std::array<Layer, 3>& layers, at::ScalarType precision);

    /// @param h (B, n, C) or (T, C), of the head's precision; may be changed in place
    /// @return log pi_keep, (B, n) or (T), float32; of no meaning for skipped rows
    at::Tensor operator()(const at::Tensor& h, const RowGroups& groups) const;

    /// @return the layers that the head was made of, in its precision. Throws c10::Error for a head that runs by the
    /// processor's kernel, which keeps them in an order of its own; of no meaning for a hidden layer that is not
    /// fused() (see InferenceLinear)
    std::array<Layer, 3> layers() const;

  private:
    std::shared_ptr<const cpu::HeadLayers> on_cpu_;  // null where the kernel does not run; elsewhere all that is used
    std::vector<InferenceLinear> hidden_;
    at::Tensor last_weight_, last_bias_;
};

}  // namespace dynvit
