#include "command.hpp"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "arguments.hpp"
#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/data/image_folder.hpp"
#include "dynvit/infer/slow_paths.hpp"
#include "dynvit/io/json_text.hpp"

namespace dynvit::tool {
namespace {

// A name a line or, where there is a NUL, as `find -print0` writes them: a name before each.
std::vector<std::string> listed_on_standard_input() {
    const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
    const bool zeros = text.find('\0') != std::string::npos;
    std::vector<std::string> names;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line, zeros ? '\0' : '\n');) {
        if (!zeros && line.ends_with('\r')) line.pop_back();
        if (!line.empty()) names.push_back(std::move(line));
    }
    return names;
}

}  // namespace

std::vector<std::filesystem::path> find_pictures(const std::vector<std::string>& given) {
    std::vector<std::filesystem::path> found;
    const auto add = [&](const std::filesystem::path& path) {
        if (!std::filesystem::is_directory(path)) {
            found.push_back(path);
            return;
        }
        PassedOver passed_over;
        const std::vector<std::filesystem::path> below = pictures_below(path, passed_over);
        if (below.empty()) {
            throw Error("pictures", path.string(), ": no picture (", picture_endings(), ") is in this folder or below",
                        passed_over.empty() ? "" : ": found " + passed_over.text());
        }
        passed_over.say("pictures", path.string());
        found.insert(found.end(), below.begin(), below.end());
    };
    for (const std::string& name : given) {
        if (name != "-") {
            add(name);
            continue;
        }
        for (const std::string& listed : listed_on_standard_input()) add(listed);
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

void take_head_size(Experiment& experiment, const ModelFile& file) {
    if (experiment.num_classes_given || !file.settings || !file.settings->classifies()) return;
    const std::int64_t before = experiment.model.num_classes;
    experiment.set_num_classes(file.settings->num_classes);
    if (before == experiment.model.num_classes) return;
    log::info(str("model.num_classes: ", experiment.model.num_classes, ", from the head of ", file.path.string()));
}

Experiment ConfigArguments::read(const std::optional<Preprocessing>& of_model) const {
    Experiment defaults;
    if (of_model) defaults.data.preprocessing = *of_model;
    if (config.empty()) return read_config<Experiment>({"", "config", overrides}, defaults);
    return read_config<Experiment>(config_from_file(config, overrides), defaults);
}

namespace {

CLI::Validator policy_check(PolicyFilter serves) {
    const auto check = [serves](const std::string& name) {
        find_policy(name, serves);
        return std::string();
    };
    return {check, ""};
}

std::string describe_policy_option(PolicyFilter serves, const char* several) {
    return str("who selects: ", describe_policies(serves), several, "; else the model's own: predicted, or ",
               kSimilarity, " with the reduction tome");
}

}  // namespace

void add_policy_option(CLI::App& command, std::string& policy, PolicyFilter serves) {
    command.add_option("--policy", policy, describe_policy_option(serves, ""))->check(policy_check(serves));
}

void add_policy_option(CLI::App& command, std::vector<std::string>& policies, PolicyFilter serves) {
    add_list(command, "--policy", policies, describe_policy_option(serves, "; several: predicted,random"),
             policy_check(serves));
}

void add_preprocessing_options(CLI::App& command, PreprocessingChanges& changes) {
    add_list(command, "--mean", changes.mean,
             "taken off each colour, in units of 1 = 255: one number, or red,green,blue; as the other options of how "
             "pictures are prepared: in place of the config's, then the model file's, then ImageNet's");
    add_list(command, "--std", changes.std, "what the rest is divided by, likewise");
    command.add_option("--interpolation", changes.interpolation, "bicubic, bilinear or lanczos, as Pillow has them");
    command.add_option("--crop", changes.crop,
                       "center: the middle of a picture whose short side is resized; squash: all of it, at any aspect "
                       "ratio");
    command
        .add_option("--resize", changes.resize, "short side before the centre crop, pixels; 0: int(size / --crop-pct)")
        ->check(within(at_least(0)));
    command.add_option("--crop-pct", changes.crop_pct, "the centre crop's share of the short side");
}

void PictureArguments::add_to(CLI::App& command) {
    add_preprocessing_options(command, preprocessing);
    command.add_option("-b,--batch-size", batch_size, "pictures at a time")
        ->check(within(at_least(1)))
        ->capture_default_str();
    command.add_option("-j,--workers", workers, "threads that decode pictures; 0: one a core")
        ->check(within(between(0, kMostThreads)));
}

void PictureArguments::change(DataSettings& data) const {
    data.preprocessing = preprocessing.over(data.preprocessing);
    if (workers > 0) data.workers = workers;
}

void ModelArguments::add_model_to(CLI::App& command) {
    command.add_option("-m,--model", model,
                       "a model of the zoo: deit_tiny, deit_256, deit_320, deit_small, deit_base, "
                       "deit_base_384; not needed, since weights are recognized: then it is checked");
    command
        .add_option("-w,--weights", weights,
                    "safetensors file or PyTorch checkpoint (.pth), or a folder as it was downloaded: of dynvit, timm, "
                    "transformers, DeiT, MAE, DINOv2, CLIP, open_clip, torchvision")
        ->required();
    command.add_option("--weights-part", reading.part,
                       "which weights of a PyTorch checkpoint: a key of it such as teacher, or ema");
    command.add_option("--weights-prefix", reading.prefix,
                       "what the wanted model's names begin with, where a file holds several");
    command.add_option("--num-heads", reading.known.num_heads, "attention heads, where no file says how many")
        ->check(within(at_least(1)));
    command.add_option("--activation", reading.known.activation, "of the MLPs, where no file says which")
        ->check(one_of({"gelu", "gelu_tanh", "quick_gelu"}));
    add_list(command, "--image-size", image_size, "pixels, or height,width; the position embedding is resized",
             within(at_least(1)));
    add_list(command, "--pruning-loc", pruning_loc, "blocks that have a stage, from 0", within(at_least(0)));
    command.add_option(
        "--reduction", reduction,
        "what becomes of tokens that a stage does not keep, in place of the model's own: delete, merge (into the kept "
        "one that resembles them most), fuse (into one more token: EViT), or tome (the most similar ones are merged)");
    command.add_option(
        "--stage-place", stage_place,
        "where a stage stands, in place of the model's own: before_block, or after_attention in its block");
    add_list(command, "-k,--keep-ratio", keep_ratios,
             "share of the patches that stage 1 keeps, rho; the following keep "
             "rho^2, rho^3; 1.0 is dense; several: 1.0,0.7");
    add_list(command, "--gmacs", gmacs,
             "in place of a keep ratio: the largest one of at most so many 10^9 multiply-accumulates an image; "
             "several: 2.9,3.4");
    command.add_option("-d,--device", device, "auto (the GPU if there is one), cpu, cuda, cuda:1")
        ->capture_default_str();
}

void ModelArguments::add_to(CLI::App& command) {
    config.add_to(command);
    add_model_to(command);
    add_list(command, "--tokens", tokens, "in place of a keep ratio: how many patch tokens each stage keeps: 137,96,67",
             within(at_least(0)));
    command
        .add_option(
            "-p,--precision", precision,
            "float32, bfloat16, float16; 8-bit matrix products: int8 on processors that have them, float8 on GPUs of "
            "compute capability 9.0")
        ->check(one_of(inference_precisions()))
        ->capture_default_str();
}

bool ModelArguments::asks_for_stages() const {
    const auto prunes = [](double ratio) { return ratio < 1; };
    return !tokens.empty() || !gmacs.empty() || std::ranges::any_of(keep_ratios, prunes);
}

ModelSettings ModelArguments::settings_without_config(const ModelFile& file) const {
    if (weights.empty()) return settings_of(file, model);
    ModelSettings settings = settings_of(file, model);
    if (!file.recognized || has_prediction_modules(file)) return settings;
    settings.pruning_loc = asks_for_stages() ? default_stages(settings.depth) : std::vector<std::int64_t>();
    if (settings.stages() > 0 && pruning_loc.empty()) {
        log::note(str("stages at blocks ", join(settings.pruning_loc, ", "), "; --pruning-loc places them elsewhere"));
    }
    return settings;
}

std::vector<std::string> ModelArguments::Choice::class_names(const std::string& list) const {
    std::vector<std::string> names;
    if (!list.empty()) {
        names = read_class_list(list).names;
    } else {
        names = file.class_names;
    }
    if (!names.empty()) {
        check_class_count(list.empty() ? file.path.string() : list, std::ssize(names), experiment.model.num_classes);
    }
    return names;
}

namespace {

// The bundle's counts; for other sizes than its own, which the arguments may have asked for, the same shares of the
// patches.
PruningPlan plan_of(const ModelFile& file, const ModelSettings& model) {
    const PruningPlan& plan = file.bundle->plan;
    const ModelSettings& own = *file.settings;
    if (plan.dense() || (model.patches() == own.patches() && model.stages() == own.stages())) return plan;
    std::vector<double> shares;
    for (const std::int64_t count : plan.tokens) {
        shares.push_back(static_cast<double>(count) / static_cast<double>(own.patches()));
    }
    if (std::ssize(shares) != model.stages()) shares = {shares.front()};
    return plan_for_shares(model, stage_shares(shares, model.stages()));
}

}  // namespace

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
    ReadOptions options = reading;
    options.known.normalization_known = configured || !model.empty();  // it is in the config; the zoo's are DeiTs
    ModelFile file = weights.empty() ? ModelFile() : read_model_file(weights, options);
    if (!configured) {
        experiment.model = settings_without_config(file);
        experiment.data.preprocessing = file.preprocessing.value_or(Preprocessing());
    } else if (file.preprocessing) {
        experiment = config.read(file.preprocessing);
    }
    if (configured) take_head_size(experiment, file);
    if (!image_size.empty()) experiment.model.image_size = image_size;
    if (!pruning_loc.empty()) experiment.model.pruning_loc = pruning_loc;
    if (!reduction.empty()) experiment.model.reduction = reduction;
    if (!stage_place.empty()) experiment.model.stage_place = stage_place;
    const std::string settings = write_config(experiment.model, false);  // checks what the arguments changed
    experiment.model = read_config<ModelSettings>({settings, "the model's settings", {}});
    if (!tokens.empty() && !(keep_ratios.empty() && gmacs.empty())) {
        throw Error("tokens", "found --keep-ratio or --gmacs beside it, expected one of them");
    }

    const ModelSettings& settings_now = experiment.model;
    Choice choice;
    if (!configured && file.bundle && file.settings) {
        choice.plan = plan_of(file, settings_now);
        choice.plan.policy = own_policy(settings_now);
        if (!choice.plan.dense()) {
            choice.keep_ratio =
                static_cast<double>(choice.plan.tokens.front()) / static_cast<double>(settings_now.patches());
        }
    } else {
        choice.plan = plan_for_shares(settings_now, experiment.train.stage_targets(settings_now.stages()));
        if (!choice.plan.dense()) choice.keep_ratio = experiment.train.keep_ratio.front();
    }
    choice.experiment = std::move(experiment);
    choice.file = std::move(file);
    return choice;
}

std::vector<ModelArguments::Asked> ModelArguments::plans_of(const ModelSettings& settings,
                                                            const std::string& policy) const {
    const auto share = [&](std::int64_t count) {
        return static_cast<double>(count) / static_cast<double>(settings.patches());
    };
    std::vector<double> ratios = keep_ratios;
    const bool predicts = find_policy(policy).predicts;
    for (const double budget : gmacs) ratios.push_back(keep_ratio_for_gmacs(settings, budget, predicts));
    std::vector<Asked> asked;
    for (const double ratio : ratios) {
        asked.push_back({plan_for_ratio(settings, ratio), ratio});
        check_plan(asked.back().plan, settings, str("a keep ratio of ", ratio));
    }
    if (!tokens.empty()) {
        asked.push_back({{.tokens = tokens}, share(tokens.front())});
        check_plan(asked.back().plan, settings, "--tokens");
    }
    for (Asked& one : asked) {
        if (!one.plan.dense()) one.plan.policy = policy;
    }
    return asked;
}

std::vector<ModelArguments::Asked> ModelArguments::plans(const ModelSettings& settings,
                                                         std::vector<std::string> policies) const {
    if (policies.empty()) policies = {own_policy(settings)};
    std::vector<std::vector<Asked>> asked;  // of each policy
    for (const std::string& policy : policies) asked.push_back(plans_of(settings, policy));
    std::vector<Asked> all;
    bool dense = false, averaged = false;
    for (std::size_t i = 0; i < asked.front().size(); ++i) {
        for (const std::vector<Asked>& of_policy : asked) {
            const PruningPlan& plan = of_policy[i].plan;
            const bool own_number = find_policy(plan.policy).selects == Selects::kAveraged;
            bool* const once = plan.dense() ? &dense : own_number ? &averaged : nullptr;
            if (!once || !std::exchange(*once, true)) all.push_back(of_policy[i]);
        }
    }
    return all;
}

PruningPlan ModelArguments::plan(const Choice& choice, const std::string& policy) const {
    const std::vector<std::string> policies = policy.empty() ? std::vector<std::string>() : std::vector{policy};
    const std::vector<Asked> asked = plans(choice.experiment.model, policies);
    if (asked.size() > 1) throw Error("keep-ratio", "found several, expected one");
    if (!asked.empty()) return asked.front().plan;
    PruningPlan plan = choice.plan;
    if (!plan.dense() && !policy.empty()) plan.policy = policy;
    return plan;
}

DynamicVit ModelArguments::load(const Choice& choice, const std::vector<PruningPlan>& plans) const {
    const at::Device target = parse_device(device);
    for (const std::string& line : slow_paths(choice.experiment.model, target)) log::note(line);
    DynamicVit loaded(choice.experiment.model, at::make_generator<at::CPUGeneratorImpl>(0));
    const bool prunes = std::ranges::any_of(plans, asks_prediction_modules);
    if (!weights.empty()) load_weights(*loaded, choice.file, Fit::kEvaluate, prunes);
    loaded->to(target);
    loaded->eval();
    return loaded;
}

EvalOptions ModelArguments::options() const {
    return {parse_device(device), parse_inference_precision(precision), 0, DynamicVit(nullptr), {}};
}

void write_json(const std::string& path, nlohmann::json report, const std::string& area) {
    if (path.empty()) return;
    report["notes"] = log::notes();
    write_file_atomically(path, json_text(report, 2) + '\n', area);
}

}  // namespace dynvit::tool
