// What a model's config.json says that its tensors' shapes do not.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "dynvit/io/preprocessing.hpp"

namespace dynvit {

/// Of timm's config.json, of transformers' or of open_clip's open_clip_config.json; empty where one says nothing.
struct ModelConfig {
    std::filesystem::path path;
    std::string library;       // "timm", "transformers" or "open_clip"
    std::string architecture;  // timm's name of it, or transformers' model_type
    std::optional<std::int64_t> embed_dim, depth, num_heads, patch_size;
    std::vector<std::int64_t> image_size;   // height, width
    std::optional<std::int64_t> rope_grid;  // as ModelSettings has it
    std::optional<double> norm_epsilon;
    std::string mlp;      // its activation, as ModelSettings has it
    std::string pooling;  // timm's: "token", "avg", "map"
    std::vector<std::string> class_names;
    std::optional<Preprocessing> preprocessing;  // of pictures
    std::int64_t picture_size = 0;               // that those are cropped to; 0: image_size
    std::vector<std::string> notes;              // what of it dynvit does otherwise, a line each
};

/// Reads the file. Nothing where it describes something else than a model. Throws Error naming file and key for what is
/// no JSON, or of another type than it should be. transformers has preprocessor_config.json beside it: read, too.
std::optional<ModelConfig> read_model_config(const std::filesystem::path& path);

}  // namespace dynvit
