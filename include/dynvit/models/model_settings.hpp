// What a DynamicViT is made of, and the names that the field gives to common sizes.
#pragma once

#include <string>
#include <vector>

#include "dynvit/core/fields.hpp"

namespace dynvit {

/// Of the layer norms: in the backbone as DeiT has them, in the prediction modules as the reference does.
inline constexpr double kNormEpsilon = 1e-6, kPredictorNormEpsilon = 1e-5;

struct ModelSettings {
    std::string name = "deit_small";               // of the zoo below; "custom": every field is given
    std::vector<std::int64_t> image_size = {224};  // height, width; one number: a square
    std::int64_t patch_size = 16;
    std::int64_t num_classes = 1000;
    std::int64_t embed_dim = 384;
    std::int64_t depth = 12;
    std::int64_t num_heads = 6;
    double mlp_ratio = 4.0;
    bool qkv_bias = true;
    double drop_path = 0.0;
    std::vector<std::int64_t> pruning_loc = {3, 6, 9};

    void fields(FieldVisitor& visitor);

    std::int64_t image_height() const { return image_size.front(); }
    std::int64_t image_width() const { return image_size.back(); }
    std::int64_t grid_height() const { return image_height() / patch_size; }
    std::int64_t grid_width() const { return image_width() / patch_size; }
    std::int64_t patches() const { return grid_height() * grid_width(); }  // N
    std::int64_t stages() const { return static_cast<std::int64_t>(pruning_loc.size()); }
    std::int64_t hidden_dim() const { return static_cast<std::int64_t>(mlp_ratio * static_cast<double>(embed_dim)); }
};

/// The zoo's names, in order of size.
const std::vector<std::string>& model_names();

/// A zoo model's settings. Throws Error listing the names if there is no such model.
ModelSettings model_settings(const std::string& name);

/// What is wrong with the settings together ("image_size 100 is no multiple of patch_size 16"); empty if nothing is.
std::string find_fault(const ModelSettings& settings);

}  // namespace dynvit
