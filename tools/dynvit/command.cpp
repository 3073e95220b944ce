#include "command.hpp"

#include <ATen/CPUGeneratorImpl.h>

#include <iostream>

#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/data/image_folder.hpp"
#include "dynvit/infer/slow_paths.hpp"
#include "dynvit/models/keep_ratio.hpp"
#include "dynvit/models/macs.hpp"

namespace dynvit::tool {

std::vector<std::filesystem::path> find_pictures(const std::vector<std::string>& given) {
    std::vector<std::filesystem::path> found;
    const auto add = [&](const std::filesystem::path& path) {
        if (!std::filesystem::is_directory(path)) {
            found.push_back(path);
            return;
        }
        const std::vector<std::filesystem::path> below = pictures_below(path);
        if (below.empty()) throw Error("pictures", path.string(), ": no JPEG or PNG picture is in this folder");
        found.insert(found.end(), below.begin(), below.end());
    };
    for (const std::string& name : given) {
        if (name != "-") {
            add(name);
            continue;
        }
        for (std::string line; std::getline(std::cin, line);) {
            if (line.ends_with('\r')) line.pop_back();
            if (!line.empty()) add(line);
        }
    }
    if (found.empty()) throw Error("pictures", "found none, expected files, folders or a list on standard input");
    return found;
}

void ConfigArguments::add_to(CLI::App& command) {
    command.add_option("-c,--config", config, "YAML file of the experiment; `dynvit config` shows its keys");
    command.add_option("-s,--set", overrides, "change one of its settings; may be repeated")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false)
        ->take_all();
}

Experiment ConfigArguments::read() const {
    if (config.empty()) return read_config<Experiment>({"", "config", overrides});
    return read_config<Experiment>(config_from_file(config, overrides));
}

void ModelArguments::add_to(CLI::App& command) {
    config.add_to(command);
    command.add_option("-m,--model", model,
                       "a model of the zoo: deit_tiny, deit_256, deit_320, deit_small, deit_base, "
                       "deit_base_384; not needed for weights that dynvit wrote");
    command
        .add_option("-w,--weights", weights,
                    "safetensors file or PyTorch checkpoint (.pth), a published one or one of dynvit's")
        ->required();
    command.add_option("--image-size", image_size, "pixels, or height,width; the position embedding is resized")
        ->delimiter(',');
    command.add_option("--pruning-loc", pruning_loc, "blocks with a prediction module before them, from 0")
        ->delimiter(',');
    command
        .add_option("-k,--keep-ratio", keep_ratios,
                    "share of the patches that stage 1 keeps, rho; the following keep "
                    "rho^2, rho^3; 1.0 is dense; several: 1.0,0.7")
        ->delimiter(',');
    command
        .add_option("--gmacs", gmacs,
                    "in place of a keep ratio: the largest one of at most so many 10^9 multiply-accumulates an image; "
                    "several: 2.9,3.4")
        ->delimiter(',');
    command.add_option("-d,--device", device, "auto (the GPU if there is one), cpu, cuda, cuda:1")
        ->capture_default_str();
    command
        .add_option(
            "-p,--precision", precision,
            "float32, bfloat16, float16; 8-bit matrix products: int8 on processors that have them, float8 on GPUs of "
            "compute capability 9.0")
        ->check(CLI::IsMember(inference_precisions()))
        ->capture_default_str();
}

ModelSettings ModelArguments::settings_without_config(const ModelFile& file) const {
    if (!model.empty()) return zoo_settings(model, file);
    if (file.settings) return *file.settings;
    throw Error("model", weights, ": does not say which model it is of; give --model or --config");
}

void ModelArguments::find_keep_ratios(const ModelSettings& settings) {
    for (const double budget : gmacs) {
        const double ratio = settings.stages() > 0 ? find_keep_ratio(settings, budget) : -1.0;
        if (!(ratio > 0)) {
            const std::vector<std::int64_t> none(settings.pruning_loc.size(), 0);
            throw Error("gmacs", "found ", budget, ", expected at least the ",
                        fixed(1e-9 * static_cast<double>(count_macs(settings, none)), 3),
                        settings.stages() > 0 ? " of a model that keeps no patch"
                                              : " of this model, which has no stage that could save any");
        }
        keep_ratios.push_back(ratio);
    }
}

std::vector<std::string> ModelArguments::Choice::class_names(const std::string& list) const {
    std::vector<std::string> names;
    if (!list.empty()) {
        names = read_class_list(list).names;
    } else if (file.bundle) {
        names = file.bundle->class_names;
    }
    if (!names.empty() && std::ssize(names) != experiment.model.num_classes) {
        throw Error("classes", list.empty() ? file.path.string() : list, ": names ", names.size(),
                    " classes, expected the model's ", experiment.model.num_classes);
    }
    return names;
}

// What a bundle says takes the place of the defaults.
void use_bundle(const BundleSettings& bundle, const std::string& file, Experiment& experiment) {
    experiment.data.resize = bundle.resize;
    const std::int64_t stages = experiment.model.stages();
    if (bundle.tokens_per_stage.empty()) {
        experiment.train.keep_ratio = {1.0};
        return;
    }
    if (std::ssize(bundle.tokens_per_stage) != stages) {
        throw Error("bundle", file, ": has token counts of ", bundle.tokens_per_stage.size(), " stages, the model ",
                    stages);
    }
    experiment.train.keep_ratio.clear();
    for (const std::int64_t count : bundle.tokens_per_stage) {
        experiment.train.keep_ratio.push_back(static_cast<double>(count) /
                                              static_cast<double>(experiment.model.patches()));
    }
}

ModelArguments::Choice ModelArguments::choose() {
    for (const double ratio : keep_ratios) {
        if (!(ratio > 0 && ratio <= 1)) {
            throw Error("keep-ratio", "found ", ratio, ", expected a number above 0 and at most 1");
        }
    }
    const bool configured = !config.config.empty();
    if (!configured && !config.overrides.empty()) throw Error("config", "--set needs --config");
    if (configured && !model.empty()) throw Error("model", "give --config or --model, not both");
    Experiment experiment = configured ? config.read() : Experiment();
    ModelFile file = weights.empty() ? ModelFile() : read_model_file(weights);
    if (!configured) {
        experiment.model = settings_without_config(file);
        if (file.bundle) use_bundle(*file.bundle, weights, experiment);
    }
    if (!image_size.empty()) experiment.model.image_size = image_size;
    if (!pruning_loc.empty()) experiment.model.pruning_loc = pruning_loc;
    const std::string settings = write_config(experiment.model, false);  // checks what the arguments changed
    experiment.model = read_config<ModelSettings>({settings, "the model's settings", {}});
    find_keep_ratios(experiment.model);
    return {std::move(experiment), std::move(file)};
}

std::vector<std::int64_t> ModelArguments::tokens(const Experiment& experiment) const {
    if (keep_ratios.size() > 1) throw Error("keep-ratio", "found several, expected one");
    const std::int64_t stages = experiment.model.stages();
    if (stages == 0) {
        if (keep_ratios.empty() || keep_ratios.front() >= 1) return {};
        throw Error("keep-ratio", "the model has no prediction modules: expected 1, found ", keep_ratios.front());
    }
    const std::vector<double> ratios =
        keep_ratios.empty() ? experiment.train.stage_targets(stages) : stage_ratios(keep_ratios.front(), stages);
    const bool dense = std::ranges::all_of(ratios, [](double ratio) { return ratio >= 1; });
    return dense ? std::vector<std::int64_t>() : tokens_per_stage(ratios, experiment.model.patches());
}

DynamicVit ModelArguments::load(const Choice& choice) const {
    const at::Device target = parse_device(device);
    for (const std::string& line : slow_paths(choice.experiment.model, target)) log::info(line);
    DynamicVit loaded(choice.experiment.model, at::make_generator<at::CPUGeneratorImpl>(0));
    if (!weights.empty()) load_weights(*loaded, choice.file, Fit::kEvaluate);
    loaded->to(target);
    loaded->eval();
    return loaded;
}

EvalOptions ModelArguments::options() const {
    return {parse_device(device), parse_inference_precision(precision), 0, DynamicVit(nullptr), {}};
}

}  // namespace dynvit::tool
