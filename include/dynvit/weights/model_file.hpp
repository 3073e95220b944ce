// Models in files: weights with the settings that they belong to.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dynvit/io/preprocessing.hpp"
#include "dynvit/io/pth.hpp"
#include "dynvit/models/dynamic_vit.hpp"
#include "dynvit/weights/bundle_settings.hpp"
#include "dynvit/weights/recognize.hpp"
#include "dynvit/weights/state_dict.hpp"

namespace dynvit {

/// Weights as they stand in a file or a folder.
struct ModelFile {
    std::filesystem::path path;                      // of the file that was read
    std::optional<ModelSettings> settings;           // of a file that dynvit wrote, or of a model that was recognized
    TensorMap weights;                               // under the names of dynvit's models, where it was recognized
    std::string part = {};                           // of a PyTorch checkpoint: the key that they stood under
    std::vector<std::string> skipped = {};           // of a PyTorch checkpoint: what else is there, quoted
    std::map<std::string, std::string> unread = {};  // tensors that were not read, and why
    std::optional<BundleSettings> bundle = {};       // of a file that `dynvit export --format bundle` wrote
    bool recognized = false;                         // the settings are what names, shapes and config.json say
    bool heads_known = true;                         // the number of heads was not assumed
    std::string incomplete = {};                     // what of the settings is not known, as an error says it
    std::string description = {};                    // of a recognized model: "vit 384 wide, 12 blocks, ..."
    std::vector<std::string> class_names = {};       // in index order, where config.json or a bundle has them
    /// How its pictures are prepared; none: ImageNet's way.
    std::optional<Preprocessing> preprocessing = {};
};

/// What to read of a file, and what is known of the model that the file may not say.
struct ReadOptions {
    std::string part = {};    // which weights of a PyTorch checkpoint: a key, "ema"; empty: the plain ones
    std::string prefix = {};  // of the wanted model's names, where several are there
    KnownParts known = {};
    bool recognize = true;  // otherwise names stay as they are, without "module." where all have it
    bool quiet = false;     // nothing is said in the log: the same file was read before
};

/// Reads the weights of a Vision Transformer as people have them: a safetensors file or a PyTorch checkpoint, whichever
/// its first bytes say it is, of dynvit or of another library, or a folder of such files (see find_model_files). What
/// was found is said in the log in a line, and so is what was assumed or passed over.
/// Throws Error naming the file, as find_model_files, read_safetensors, read_pth, canonical_weights and recognize do;
/// for weights that are not finite. Tensors of types that are not read are passed over where no model needs them.
ModelFile read_model_file(const std::filesystem::path& path, const ReadOptions& options = {});

/// A file's own settings. @param model name of a zoo model, if it must be one; see zoo_settings
/// Throws Error where the file does not say which model it is of, and no name does.
ModelSettings settings_of(const ModelFile& file, const std::string& model = {});

/// Whether the file has prediction modules: without them only what chooses by itself can prune.
bool has_prediction_modules(const ModelFile& file);

/// Throws Error for a model that gives embeddings, not classes.
void check_classifies(const ModelFile& file);

/// Writes the weights, and whatever settings there are, beside `path` and renamed: a safetensors file.
void write_model_file(const std::filesystem::path& path, const TensorMap& weights,
                      const std::optional<ModelSettings>& settings, const std::optional<BundleSettings>& bundle = {},
                      const std::optional<Preprocessing>& preprocessing = {});

/// The same of a model. @param type what its weights are stored in
void write_model_file(const std::filesystem::path& path, const DynamicVitImpl& model, at::ScalarType type = at::kFloat,
                      const std::optional<Preprocessing>& preprocessing = {});

/// Says in the log where pixels are scaled otherwise than the file says of its weights. @param whose "the teacher"
void warn_of_other_scaling(const ModelFile& file, const Preprocessing& given, const std::string& whose);

/// A zoo model's settings with as many classes as the file's head has. Of a file whose model was recognized: what was
/// recognized, with the zoo's size of pictures and stages.
/// Throws Error as model_settings does, and where the recognized model is another one than the name says.
ModelSettings zoo_settings(const std::string& name, const ModelFile& file);

/// How strictly weights must fit.
enum class Fit {
    kEvaluate,  // all of the backbone and the head; prediction modules may be missing (said in the log)
    kFineTune,  // the head may be missing or have another number of classes, the prediction modules may be missing:
                // both start anew
    kTeacher,   // all of the backbone and the head; prediction modules in the file are passed over
};

/// A dense model of these sizes (their stages left out) with the file's weights, frozen, on the device: a teacher, or
/// what pruned models are compared with. Throws Error as load_weights does.
DynamicVit load_dense(const ModelFile& file, ModelSettings settings, const at::Device& device);

/// Loads the file's weights into the model. Throws Error naming the file and the keys that don't fit.
/// @param prunes whether prediction modules will be asked: only then it is said that the file has none
void load_weights(DynamicVitImpl& model, const ModelFile& file, Fit fit, bool prunes = true);

}  // namespace dynvit
