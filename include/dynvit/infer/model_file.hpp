// Models in files: weights with the settings that they belong to.
#pragma once

#include <filesystem>
#include <optional>

#include "dynvit/models/dynamic_vit.hpp"
#include "dynvit/models/state_dict.hpp"

namespace dynvit {

/// Weights as they stand in a file.
struct ModelFile {
    std::filesystem::path path;
    std::optional<ModelSettings> settings;  // of a file that dynvit wrote
    TensorMap weights;
};

/// Reads a safetensors file. Throws Error naming it.
ModelFile read_model_file(const std::filesystem::path& path);

/// Writes a model's weights with its settings, beside `path` and renamed.
void write_model_file(const std::filesystem::path& path, const DynamicVitImpl& model, at::ScalarType type = at::kFloat);

/// How strictly weights must fit.
enum class Fit {
    kEvaluate,  // all of the backbone and the head; prediction modules may be missing (said in the log)
    kFineTune,  // the head may have another number of classes, the prediction modules may be missing: both start anew
    kTeacher,   // all of the backbone and the head; prediction modules in the file are passed over
};

/// Loads the file's weights into the model. Throws Error naming the file and the keys that don't fit.
void load_weights(DynamicVitImpl& model, const ModelFile& file, Fit fit);

}  // namespace dynvit
