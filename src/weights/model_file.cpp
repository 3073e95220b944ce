#include "dynvit/weights/model_file.hpp"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>

#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/io/weights_format.hpp"

namespace dynvit {
namespace {

constexpr const char* kSettingsKey = "dynvit.model";
constexpr const char* kBundleKey = "dynvit.bundle";
constexpr const char* kPreprocessingKey = "dynvit.preprocessing";

bool of_head(const std::string& key) {
    return key.starts_with("head.");
}

ModelFile read_checkpoint(const std::filesystem::path& path, WeightsPart part) {
    Pth read = read_pth(path, part);
    return {path, std::nullopt, std::move(read.tensors), std::move(read.part), std::move(read.skipped)};
}

}  // namespace

ModelFile read_model_file(const std::filesystem::path& path, WeightsPart part) {
    if (weights_format(path) == WeightsFormat::kPth) return read_checkpoint(path, part);
    if (part == WeightsPart::kEma) {
        throw Error("weights", path.string(),
                    ": is a safetensors file, which holds one set of weights; "
                    "EMA weights are read from PyTorch checkpoints");
    }
    Safetensors read = read_safetensors(path);
    ModelFile file{path, std::nullopt, without_wrapper_prefixes(std::move(read.tensors))};
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
    return file;
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
    const auto head = file.weights.find("head.weight");
    if (head != file.weights.end() && head->second.dim() == 2) settings.num_classes = head->second.size(0);
    return settings;
}

void load_weights(DynamicVitImpl& model, const ModelFile& file, Fit fit) {
    LoadReport report = load_state_dict(model, file.weights);
    const std::size_t missing = report.missing.size();
    if (fit != Fit::kTeacher) std::erase_if(report.missing, is_of_prediction_module);
    if (report.missing.size() < missing) {
        if (fit == Fit::kFineTune) {
            log::info("prediction modules start anew");
        } else {
            log::warn(str(file.path.string(),
                          " has no prediction modules: theirs are untrained, and what they keep is arbitrary"));
        }
    }
    const bool predicts = model.settings().stages() > 0 && model.settings().predicts();
    if (fit == Fit::kTeacher || !predicts) std::erase_if(report.unexpected, is_of_prediction_module);
    if (fit == Fit::kFineTune) {
        for (const std::string& key : report.mis_shaped) {
            if (of_head(key)) log::info(str("starting the head anew: ", key));
        }
        std::erase_if(report.mis_shaped, of_head);
    }
    if (!report.clean()) throw Error("weights", file.path.string(), ": does not fit the model: ", report.text());
    if (report.pos_embed_resized) {
        log::info(str("pos_embed resized to a grid of ", model.settings().grid_height(), " x ",
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
