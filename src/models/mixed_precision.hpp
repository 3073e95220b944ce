// What the backbone and the prediction modules do under autocast on a GPU.
#pragma once

#include <ATen/ATen.h>
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

/// A layer norm's parameters.
struct NormWeights {
    const at::Tensor &weight, &bias;  // (C)
    double epsilon;
};

/// The stream's sum and the layer norm's output. Under autocast on a GPU in one pass, `normed` of type `output`, which
/// saves a cast where that is its half type.
inline NormedResidual norm_of(const ResidualStream& stream, const NormWeights& norm, at::ScalarType output) {
    if (autocast_on_gpu(stream.x)) {
        return residual_norm(stream.x, stream.branch, stream.scale, norm.weight, norm.bias, norm.epsilon, output);
    }
    const at::Tensor sum = stream.sum();
    return {sum, at::layer_norm(sum, norm.weight.sizes(), norm.weight, norm.bias, norm.epsilon)};
}

}  // namespace dynvit
