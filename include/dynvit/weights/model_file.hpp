// Models in files: weights with the settings that they belong to.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "dynvit/io/preprocessing.hpp"
#include "dynvit/io/pth.hpp"
#include "dynvit/models/dynamic_vit.hpp"
#include "dynvit/weights/bundle_settings.hpp"
#include "dynvit/weights/state_dict.hpp"

namespace dynvit {

/// Weights as they stand in a file.
struct ModelFile {
    std::filesystem::path path;
    std::optional<ModelSettings> settings;      // of a file that dynvit wrote
    TensorMap weights;                          // names without "module." where all have it
    std::string part = {};                      // of a PyTorch checkpoint: the key that they stood under
    std::vector<std::string> skipped = {};      // of a PyTorch checkpoint: what else is there, quoted
    std::optional<BundleSettings> bundle = {};  // of a file that `dynvit export --format bundle` wrote
    /// How its pictures are prepared; none: ImageNet's way.
    std::optional<Preprocessing> preprocessing = {};
};

/// Reads a safetensors file or a PyTorch checkpoint, whichever its first bytes say it is.
/// @param part which weights of a checkpoint; a safetensors file has the plain ones only
/// Throws Error naming the file, as read_safetensors and read_pth do.
ModelFile read_model_file(const std::filesystem::path& path, WeightsPart part = WeightsPart::kPlain);

/// Writes the weights, and whatever settings there are, beside `path` and renamed: a safetensors file.
void write_model_file(const std::filesystem::path& path, const TensorMap& weights,
                      const std::optional<ModelSettings>& settings, const std::optional<BundleSettings>& bundle = {},
                      const std::optional<Preprocessing>& preprocessing = {});

/// The same of a model. @param type what its weights are stored in
void write_model_file(const std::filesystem::path& path, const DynamicVitImpl& model, at::ScalarType type = at::kFloat,
                      const std::optional<Preprocessing>& preprocessing = {});

/// Says in the log where pixels are scaled otherwise than the file says of its weights. @param whose "the teacher"
void warn_of_other_scaling(const ModelFile& file, const Preprocessing& given, const std::string& whose);

/// A zoo model's settings with as many classes as the file's head has. Throws Error as model_settings does.
ModelSettings zoo_settings(const std::string& name, const ModelFile& file);

/// How strictly weights must fit.
enum class Fit {
    kEvaluate,  // all of the backbone and the head; prediction modules may be missing (said in the log)
    kFineTune,  // the head may have another number of classes, the prediction modules may be missing: both start anew
    kTeacher,   // all of the backbone and the head; prediction modules in the file are passed over
};

/// A dense model of these sizes (their stages left out) with the file's weights, frozen, on the device: a teacher, or
/// what pruned models are compared with. Throws Error as load_weights does.
DynamicVit load_dense(const ModelFile& file, ModelSettings settings, const at::Device& device);

/// Loads the file's weights into the model. Throws Error naming the file and the keys that don't fit.
void load_weights(DynamicVitImpl& model, const ModelFile& file, Fit fit);

}  // namespace dynvit
