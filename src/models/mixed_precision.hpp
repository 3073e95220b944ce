// What the backbone and the prediction modules do under autocast on a GPU.
#pragma once

#include <ATen/autocast_mode.h>
#include <torch/nn/modules/normalization.h>

#include <optional>

#include "dynvit/ops/residual_norm.hpp"

namespace dynvit {

/// The half-precision type that autocast computes with, where x is on a GPU under it.
inline std::optional<at::ScalarType> autocast_on_gpu(const at::Tensor& x) {
    if (!x.is_cuda() || !at::autocast::is_autocast_enabled(at::kCUDA)) return std::nullopt;
    return at::autocast::get_autocast_dtype(at::kCUDA);
}

/// The layer's output. Under autocast on a GPU in one pass, in `output`, which saves a cast where that is its half
/// type.
inline at::Tensor norm_of(const at::Tensor& x, torch::nn::LayerNorm& layer, at::ScalarType output) {
    if (!autocast_on_gpu(x)) return layer(x);
    return residual_norm(x, {}, {}, layer->weight, layer->bias, layer->options.eps(), output).normed;
}

}  // namespace dynvit
