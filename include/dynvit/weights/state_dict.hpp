// A model's weights as tensors by name, the names being those of published checkpoints.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dynvit/io/safetensors.hpp"
#include "dynvit/models/dynamic_vit.hpp"

namespace dynvit {

/// What did not fit when weights were loaded.
struct LoadReport {
    std::vector<std::string> missing;     // of the model, not in the weights
    std::vector<std::string> unexpected;  // of the weights, not in the model
    std::vector<std::string> mis_shaped;  // "head.weight: (1000, 192) in the weights, (7, 192) in the model"
    bool pos_embed_resized = false;

    bool clean() const { return missing.empty() && unexpected.empty() && mis_shaped.empty(); }
    /// One line that names up to `most` of each kind.
    std::string text(std::size_t most = 4) const;
};

/// The module's parameters and then its buffers, in the order in which they were registered.
std::vector<std::pair<std::string, at::Tensor>> named_state(const torch::nn::Module& module);

/// The same, detached, on their device.
TensorMap state_dict(const torch::nn::Module& module);

/// "(3, 224, 224)"
std::string shape_text(at::IntArrayRef shape);

/// Copies weights into the model, converting their type. A position embedding of another grid is resampled (see
/// resize_pos_embed). What doesn't fit is left as it was and reported.
/// @param own the settings of the model that the weights are of, which say its grid; none: a square
LoadReport load_state_dict(DynamicVitImpl& model, const TensorMap& weights,
                           const std::optional<ModelSettings>& own = {});

}  // namespace dynvit
