// What the backbone and the prediction modules do under autocast on a GPU.
#pragma once

#include <ATen/autocast_mode.h>
#include <optional>

#include "dynvit/models/vision_transformer.hpp"
#include "dynvit/ops/residual_norm.hpp"

namespace dynvit {

/// The half-precision type that autocast computes with, where x is on a GPU under it.
inline std::optional<at::ScalarType> autocast_on_gpu(const at::Tensor& x) {
    if (!x.is_cuda() || !at::autocast::is_autocast_enabled(at::kCUDA)) return std::nullopt;
    return at::autocast::get_autocast_dtype(at::kCUDA);
}

/// The stream's sum and the layer's output. Under autocast on a GPU in one pass, `normed` of type `output`, which saves
/// a cast where that is its half type.
inline NormedResidual norm_of(const ResidualStream& stream, torch::nn::LayerNorm& layer, at::ScalarType output) {
    if (autocast_on_gpu(stream.x)) {
        return residual_norm(stream.x, stream.branch, stream.scale, layer->weight, layer->bias, layer->options.eps(),
                             output);
    }
    const at::Tensor sum = stream.sum();
    return {sum, layer(sum)};
}

}  // namespace dynvit
