#include "dynvit/weights/model_file.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>

#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/io/weights_format.hpp"
#include "dynvit/weights/model_files.hpp"

namespace dynvit {
namespace {

constexpr const char* kSettingsKey = "dynvit.model";
constexpr const char* kBundleKey = "dynvit.bundle";
constexpr const char* kPreprocessingKey = "dynvit.preprocessing";

bool of_head(const std::string& key) {
    return key.starts_with("head.") || key.starts_with("head_dist.");
}

/// A file's tensors as they stand there, and what is known of them.
struct RawFile {
    ModelFile file;
    std::vector<std::string> other_parts;
    bool torchscript = false;
};

RawFile read_checkpoint(const std::filesystem::path& path, const ReadOptions& options) {
    const bool ema = options.part == "ema";
    Pth read = read_pth(path, ema ? WeightsPart::kEma : WeightsPart::kPlain, ema ? "" : options.part);
    return {{path, std::nullopt, std::move(read.tensors), std::move(read.part), std::move(read.skipped),
             std::move(read.unread)},
            std::move(read.other_parts),
            read.torchscript};
}

RawFile read_safetensors_model(const std::filesystem::path& path, const ReadOptions& options) {
    if (!options.part.empty()) {
        throw Error("weights", path.string(), ": is a safetensors file, which holds one set of weights; ",
                    options.part == "ema" ? "EMA weights" : "parts", " are read from PyTorch checkpoints");
    }
    Safetensors read = read_safetensors(path);
    take_off_wrapper_prefixes(read.tensors, read.unread);
    ModelFile file{path, std::nullopt, std::move(read.tensors)};
    file.unread = std::move(read.unread);
    const auto text = [&](const char* key) -> std::optional<ConfigSource> {
        const auto found = read.metadata.find(key);
        if (found == read.metadata.end()) return std::nullopt;
        return ConfigSource{found->second, path.string() + " (its " + key + ")", {}};
    };
    if (const auto source = text(kSettingsKey)) file.settings = read_config<ModelSettings>(*source);
    if (const auto source = text(kBundleKey)) file.bundle = read_config<BundleSettings>(*source);
    if (const auto source = text(kPreprocessingKey)) {
        file.preprocessing = read_config<Preprocessing>(*source);
    } else if (file.bundle) {
        file.preprocessing.emplace().resize = file.bundle->resize;
    }
    if (file.bundle && file.settings) {
        file.bundle->plan.policy = own_policy(*file.settings);
        check_plan(file.bundle->plan, *file.settings, path.string());
    }
    if (file.bundle) file.class_names = file.bundle->class_names;
    return {std::move(file), {}, false};
}

RawFile read_one(const std::filesystem::path& path, const ReadOptions& options) {
    if (weights_format(path) == WeightsFormat::kPth) return read_checkpoint(path, options);
    return read_safetensors_model(path, options);
}

// The parts that an index lists are one model's.
RawFile read_all(const std::filesystem::path& path, const ModelFiles& files, const ReadOptions& options) {
    RawFile whole = read_one(files.weights.front(), options);
    for (std::size_t i = 1; i < files.weights.size(); ++i) {
        RawFile part = read_one(files.weights[i], options);
        whole.file.weights.merge(part.file.weights);
        whole.file.unread.merge(part.file.unread);
        if (!part.file.weights.empty()) {
            throw Error("weights", files.weights[i].string(), ": ", part.file.weights.begin()->first,
                        " is in another part of the same model, too");
        }
    }
    if (files.weights.size() > 1) whole.file.path = path;
    return whole;
}

void check_finite(const TensorMap& weights, const std::filesystem::path& path) {
    for (const auto& [name, tensor] : weights) {
        if (!tensor.is_floating_point() || tensor.numel() == 0) continue;
        const auto [least, most] = at::aminmax(tensor.to(at::kFloat));
        if (std::isfinite(least.item<float>()) && std::isfinite(most.item<float>())) continue;
        throw Error("weights", path.string(), ": ", name, " holds numbers that are not finite");
    }
}

// ---- Which model it is ----

// config.json of the library that the names are of; none where it is of another model.
bool may_be_of(const ModelConfig& config, const CanonicalWeights& weights) {
    const std::string_view names = weights.naming->library;
    if (config.library == "open_clip")
        return names == "OpenAI" || (names == "timm" && weights.prefix.ends_with("trunk."));
    return config.library == names;
}

std::optional<ModelConfig> find_config(const ModelFiles& files, const CanonicalWeights& weights, bool quiet) {
    for (const char* name : {"config.json", "open_clip_config.json"}) {
        const std::filesystem::path path = files.folder / name;
        if (!std::filesystem::exists(path)) continue;
        try {
            const std::optional<ModelConfig> config = read_model_config(path);
            if (!config || !may_be_of(*config, weights)) continue;
            const std::string other = disagreement(*config, weights);
            if (other.empty()) return config;
            throw Error("weights", path.string(), ": is of another model than the weights: ", other);
        } catch (const Error& error) {
            if (files.is_folder) throw;  // beside a file that was named it may be anything
            if (!quiet) log::warn(str("passed over: ", error.what()));
        }
    }
    return std::nullopt;
}

// A state dict of OpenAI's has numbers of its own beside the weights. What it publishes are TorchScript archives.
bool is_of_openai(const TensorMap& tensors) {
    return tensors.contains("input_resolution") && tensors.contains("context_length");
}

void say_what_was_found(const RawFile& raw, const CanonicalWeights& weights, const RecognizedModel& model) {
    const ModelFile& file = raw.file;
    const std::string path = file.path.string();
    log::note(str(path, ": ", model.description));
    for (const std::string& note : weights.notes) log::note(str(path, ": ", note));
    if (!raw.other_parts.empty()) {
        log::note(str(path, ": the weights under \"", file.part,
                      "\" were taken; beside them: ", join(raw.other_parts, ", "), " (--weights-part)"));
    }
    if (!weights.passed_over.empty()) log::note(str(path, ": ", describe_passed_over(weights.passed_over)));
    for (const std::string& note : model.notes) log::warn(str(path, ": ", note));
}

void recognize_model(RawFile& raw, const ModelFiles& files, const ReadOptions& options) {
    ModelFile& file = raw.file;
    const bool of_openai = raw.torchscript || is_of_openai(file.weights);
    std::optional<CanonicalWeights> weights =
        canonical_weights(file.weights, file.path.string(), options.prefix, file.unread);
    if (!weights) return;
    check_finite(weights->tensors, file.path);
    const std::optional<ModelConfig> config = find_config(files, *weights, options.quiet);
    RecognizedModel model = recognize(*weights, config, options.known, of_openai, file.path.string());
    if (config) weights->notes.insert(weights->notes.end(), config->notes.begin(), config->notes.end());
    if (!options.quiet) say_what_was_found(raw, *weights, model);
    file.recognized = true;
    file.settings = model.settings;
    file.preprocessing = model.preprocessing;
    file.heads_known = model.heads_known;
    file.incomplete = model.incomplete;
    file.description = model.description;
    file.weights = std::move(weights->tensors);
    if (config && model.settings.classifies() && std::ssize(config->class_names) == model.settings.num_classes) {
        file.class_names = config->class_names;
    }
}

}  // namespace

ModelFile read_model_file(const std::filesystem::path& path, const ReadOptions& options) {
    const ModelFiles files = find_model_files(path);
    RawFile raw = read_all(path, files, options);
    if (!options.recognize) return std::move(raw.file);
    if (!raw.file.settings) recognize_model(raw, files, options);
    if (!raw.file.recognized) {
        for (auto& [name, tensor] : raw.file.weights) tensor = computable(tensor);
        check_finite(raw.file.weights, raw.file.path);
    }
    return std::move(raw.file);
}

ModelSettings settings_of(const ModelFile& file, const std::string& model) {
    if (!model.empty()) return zoo_settings(model, file);
    if (!file.incomplete.empty()) throw Error("weights", file.path.string(), ": ", file.incomplete);
    if (file.settings) return *file.settings;
    std::vector<std::string> names;
    for (const auto& [name, tensor] : file.weights) {
        if (names.size() < 3) names.push_back(name);
    }
    throw Error("weights", file.path.string(), ": holds no Vision Transformer that dynvit knows, found ",
                file.weights.size(), " tensors: ", join(names, ", "), file.weights.size() > names.size() ? " ..." : "");
}

bool has_prediction_modules(const ModelFile& file) {
    return std::ranges::any_of(file.weights, [](const auto& item) { return is_of_prediction_module(item.first); });
}

void check_classifies(const ModelFile& file) {
    if (!file.settings || file.settings->classifies()) return;
    throw Error("weights", file.path.string(), ": has no head for classes: its outputs are an embedding of ",
                file.settings->outputs(), " numbers, expected a model that classifies");
}

void write_model_file(const std::filesystem::path& path, const TensorMap& weights,
                      const std::optional<ModelSettings>& settings, const std::optional<BundleSettings>& bundle,
                      const std::optional<Preprocessing>& preprocessing) {
    std::map<std::string, std::string> metadata;
    if (bundle) metadata.emplace(kBundleKey, write_config(*bundle, false));
    if (settings) metadata.emplace(kSettingsKey, write_config(*settings, false));
    if (preprocessing) metadata.emplace(kPreprocessingKey, write_config(*preprocessing, false));
    write_safetensors(path, weights, metadata);
}

void write_model_file(const std::filesystem::path& path, const DynamicVitImpl& model, at::ScalarType type,
                      const std::optional<Preprocessing>& preprocessing) {
    TensorMap weights = state_dict(model);
    for (auto& [name, tensor] : weights) tensor = tensor.to(type);
    write_model_file(path, weights, model.settings(), std::nullopt, preprocessing);
}

void warn_of_other_scaling(const ModelFile& file, const Preprocessing& given, const std::string& whose) {
    if (!file.preprocessing || file.preprocessing->same_scaling(given)) return;
    const Preprocessing& own = *file.preprocessing;
    log::warn(str(file.path.string(), ", ", whose, ": is used to pixels of mean ", join(own.mean, ", "), " and std ",
                  join(own.std, ", "), ", and gets those of mean ", join(given.mean, ", "), " and std ",
                  join(given.std, ", ")));
}

ModelSettings zoo_settings(const std::string& name, const ModelFile& file) {
    ModelSettings settings = model_settings(name);
    if (file.recognized) {
        ModelSettings recognized = *file.settings;
        if (!file.heads_known) recognized.num_heads = settings.num_heads;
        if (const std::string difference = difference_from_zoo(recognized, name); !difference.empty()) {
            throw Error("weights", file.path.string(), ": is no ", name, ", as --model says: ", difference, " (it is ",
                        file.description, ')');
        }
        recognized.image_size = settings.image_size;
        recognized.pruning_loc = settings.pruning_loc;
        return recognized;
    }
    const auto head = file.weights.find("head.weight");
    if (head != file.weights.end() && head->second.dim() == 2) settings.num_classes = head->second.size(0);
    return settings;
}

namespace {

// What no tensor's shape tells: a model that computes otherwise than the weights' own takes them without a word.
void warn_of_other_numerics(const ModelSettings& model, const ModelFile& file) {
    const ModelSettings& own = *file.settings;
    std::vector<std::string> found;
    const auto compare = [&](const char* what, const auto& is, const auto& expected) {
        if (is != expected) found.push_back(str(what, ' ', is, ", the weights' own model has ", expected));
    };
    compare("mlp", model.mlp, own.mlp);
    constexpr double kLost = 1e-6;  // beside the variance of any token of a trained model
    if (std::max(model.norm_epsilon, own.norm_epsilon) > kLost) {
        compare("norm_epsilon", model.norm_epsilon, own.norm_epsilon);
    }
    if (file.heads_known) compare("num_heads", model.num_heads, own.num_heads);
    compare("pooling", model.pooling, own.pooling);
    if (!found.empty()) log::warn(str(file.path.string(), ": the model differs: ", join(found, "; ")));
}

}  // namespace

void load_weights(DynamicVitImpl& model, const ModelFile& file, Fit fit, bool prunes) {
    LoadReport report = load_state_dict(model, file.weights, file.settings);
    const std::size_t missing = report.missing.size();
    if (fit != Fit::kTeacher) std::erase_if(report.missing, is_of_prediction_module);
    if (report.missing.size() < missing) {
        if (fit == Fit::kFineTune) {
            log::note("prediction modules start anew");
        } else if (prunes) {
            log::warn(str(file.path.string(),
                          " has no prediction modules: theirs are untrained, and what they keep is arbitrary"));
        }
    }
    const bool predicts = model.settings().stages() > 0 && model.settings().predicts();
    if (fit == Fit::kTeacher || !predicts) std::erase_if(report.unexpected, is_of_prediction_module);
    if (fit == Fit::kFineTune) {
        for (const auto* keys : {&report.mis_shaped, &report.missing}) {
            for (const std::string& key : *keys) {
                if (of_head(key)) log::note(str("starting the head anew: ", key));
            }
        }
        std::erase_if(report.mis_shaped, of_head);
        std::erase_if(report.missing, of_head);
        if (model.settings().num_classes == 0) std::erase_if(report.unexpected, of_head);
    }
    if (file.recognized) warn_of_other_numerics(model.settings(), file);
    for (const std::string& name : report.missing) {
        const auto unread = file.unread.find(name);
        if (unread != file.unread.end())
            throw Error("weights", file.path.string(), ": tensor ", name, ": ", unread->second);
    }
    if (!report.clean()) throw Error("weights", file.path.string(), ": does not fit the model: ", report.text());
    if (report.pos_embed_resized) {
        log::note(str("pos_embed resized to a grid of ", model.settings().grid_height(), " x ",
                      model.settings().grid_width()));
    }
}

DynamicVit load_dense(const ModelFile& file, ModelSettings settings, const at::Device& device) {
    settings.pruning_loc = {};
    settings.drop_path = 0;
    DynamicVit model(settings, at::make_generator<at::CPUGeneratorImpl>(0));
    load_weights(*model, file, Fit::kTeacher);
    model->to(device);
    model->eval();
    for (at::Tensor& parameter : model->parameters()) parameter.requires_grad_(false);
    return model;
}

}  // namespace dynvit
