// What follows a prediction module's first linear layer, for inference.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "dynvit/ops/inference_linear.hpp"
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

namespace cpu {
struct HeadLayers;
}

/// The mean and the three linear layers behind a prediction module's first one, GELU between them: log pi_keep. On the
/// processor, for float32 and bfloat16, by a kernel that computes in float32 with weights of float32; elsewhere by the
/// functions above and InferenceLinear. May be called from several threads at once.
class PredictionHead {
  public:
    struct Layer {
        at::Tensor weight, bias;
    };
    /// @param layers of weights (C / 2, C), (C / 4, C / 2), (2, C / 4), on the device where the head runs; copied
    /// @param precision kFloat, kBFloat16 or kHalf: of weights and input
    PredictionHead(const std::array<Layer, 3>& layers, at::ScalarType precision);

    /// @param h (B, n, C) or (T, C); may be changed @return (B, n) or (T), float32; of no meaning for skipped rows
    at::Tensor operator()(const at::Tensor& h, const RowGroups& groups) const;

    /// Of a head on a GPU: its layers as it has them.
    std::array<Layer, 3> layers() const;

  private:
    std::shared_ptr<const cpu::HeadLayers> on_cpu_;  // null where the kernel does not run; elsewhere all that is used
    std::vector<InferenceLinear> hidden_;
    at::Tensor last_weight_, last_bias_;
};

}  // namespace dynvit
