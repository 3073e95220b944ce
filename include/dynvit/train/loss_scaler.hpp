// Keeping half-precision gradients in range, and noticing those that are not finite.
#pragma once

#include <ATen/TensorOperators.h>

#include "dynvit/io/safetensors.hpp"

namespace dynvit {

/// Dynamic loss scaling (Micikevicius et al., 2018): the loss is multiplied so that small gradients survive float16;
/// the factor is halved when a gradient overflows and doubled after 2,000 steps without. All on the device: no step
/// waits for the host. Where it isn't active the factor is 1 and stays so; gradients are checked all the same.
class LossScaler {
  public:
    /// @param active whether the run is in float16
    LossScaler(const at::Device& device, bool active);

    at::Tensor scale(const at::Tensor& loss) const { return active_ ? loss * scale_.squeeze(0) : loss; }

    /// Divides the gradients by the factor, in place.
    /// @return (1), float32: 1 where any gradient is not finite, else 0
    at::Tensor unscale(const std::vector<at::Tensor>& gradients) const;

    /// Halves the factor after a step that was skipped; doubles it after 2,000 in a row that were not.
    /// @param skipped (1), float32, on the factor's device: 1 where the step's loss or a gradient was not finite, else
    /// 0
    void update(const at::Tensor& skipped);

    /// "scaler.scale" and "scaler.growth"; empty where it isn't active.
    TensorMap state() const;
    /// Puts back what state() gave. Throws Error naming the file and the tensor that is missing or of another shape.
    void load_state(const TensorMap& state, const std::string& file);

  private:
    bool active_;
    at::Tensor scale_, growth_;  // (1) float32; (1) int32: steps since it changed
};

}  // namespace dynvit
