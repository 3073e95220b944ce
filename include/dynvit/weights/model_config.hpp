// What a model's config.json says that its tensors' shapes do not.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace dynvit {

/// Of timm's config.json, of transformers' or of open_clip's open_clip_config.json; empty where one says nothing.
struct ModelConfig {
    std::filesystem::path path;
    std::string library;       // "timm", "transformers" or "open_clip"
    std::string architecture;  // timm's name of it, or transformers' model_type
    std::optional<std::int64_t> embed_dim, depth, num_heads, patch_size;
    std::vector<std::int64_t> image_size;  // height, width
    std::optional<double> norm_epsilon;
    std::string mlp;      // its activation, as ModelSettings has it
    std::string pooling;  // timm's: "token", "avg", "map"
    std::vector<std::string> class_names;
};

/// Reads the file. Nothing where it describes something else than a model. Throws Error naming file and key for what is
/// no JSON, or of another type than it should be.
std::optional<ModelConfig> read_model_config(const std::filesystem::path& path);

}  // namespace dynvit
