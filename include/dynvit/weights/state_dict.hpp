// A model's weights as tensors by name, the names being those of published checkpoints.
#pragma once

#include <string>
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

/// The model's parameters, detached, on their device.
TensorMap state_dict(const torch::nn::Module& module);

/// Copies tensors of equal name and shape, the target's as they are called there. Throws Error("run", file ...) naming
/// the first that is missing or of another shape. @param file what the error calls the source
void copy_state(const TensorMap& from, const TensorMap& to, const std::string& file);

/// Copies weights into the model, converting their type. A position embedding of another grid is resampled (see
/// resize_pos_embed); its grid is a square. What doesn't fit is left as it was and reported.
LoadReport load_state_dict(DynamicVitImpl& model, const TensorMap& weights);

}  // namespace dynvit
