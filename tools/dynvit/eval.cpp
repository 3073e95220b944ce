// dynvit eval: accuracy and cost, dense and pruned.
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>

#include "command.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/data/image_folder.hpp"
#include "dynvit/data/tar_shards.hpp"
#include "dynvit/infer/eval_report.hpp"
#include "dynvit/infer/inference_session.hpp"
#include "dynvit/train/trainer.hpp"

namespace dynvit::tool {
namespace {

struct Arguments {
    ModelArguments model;
    std::string data, classes, json, baseline;
    std::int64_t resize = -1;
    std::int64_t batch_size = 64;
    std::int64_t workers = 0;
    std::vector<std::string> policies = {"predicted"}, pictures;
    std::vector<double> thresholds;
};

void check_arguments(const Arguments& arguments, std::int64_t stages) {
    const std::vector<std::string>& known = plan_policy_names();
    for (const std::string& policy : arguments.policies) {
        if (std::ranges::find(known, policy) == known.end()) {
            throw Error("policy", "unknown selection policy '", policy, "'; expected one of ", join(known, ", "));
        }
    }
    const std::int64_t given = std::ssize(arguments.thresholds);
    if (given > 1 && given != stages) {
        throw Error("threshold", "found ", given, " numbers, expected one or one a stage, ", stages);
    }
    for (const double ratio : arguments.model.keep_ratios) {
        if (ratio < 1 && stages == 0) {
            throw Error("eval", "keep ratio ", ratio, " was asked for, but the model has no prediction modules");
        }
    }
    if (given > 0 && stages == 0) {
        throw Error("eval", "a threshold was given, but the model has no prediction modules");
    }
}

// Every policy at every ratio; once what does not depend on it: dense, structural, and given thresholds.
std::vector<EvalCase> cases(const Arguments& arguments, const Experiment& experiment) {
    const std::int64_t stages = experiment.model.stages();
    check_arguments(arguments, stages);
    std::vector<EvalCase> wanted, made;
    for (const double ratio : arguments.model.keep_ratios) {
        wanted.emplace_back();
        wanted.back().keep_ratio = ratio;
    }
    if (wanted.empty()) {
        wanted.emplace_back();  // dense
        if (stages > 0 && arguments.thresholds.empty()) {
            wanted.emplace_back();
            wanted.back().keep_ratio = experiment.train.keep_ratio.front();
            wanted.back().per_stage = experiment.train.stage_targets(stages);
        }
    }
    bool pooled = false;
    for (EvalCase& one : wanted) {
        if (one.dense()) {
            made.push_back(one);
            continue;
        }
        for (const std::string& policy : arguments.policies) {
            if (policy == "structural" && std::exchange(pooled, true)) continue;
            one.policy = policy;
            made.push_back(one);
        }
    }
    if (!arguments.thresholds.empty()) {
        std::vector<double> thresholds = arguments.thresholds;
        thresholds.resize(static_cast<std::size_t>(stages), thresholds.back());
        made.push_back({"per_image", 0, {}, DynamicVit(nullptr), thresholds});
    }
    return made;
}

// How far each case agrees with the dense model on pictures that nobody has labelled.
std::vector<EvalResult> evaluate_unlabelled(const Arguments& arguments, const DynamicVit& model,
                                            const std::vector<EvalCase>& wanted, DataSettings data,
                                            const EvalOptions& options) {
    if (!options.baseline && !(wanted.front().dense() || model->settings().stages() == 0)) {
        throw Error("eval",
                    "--pictures have no labels, and there is no dense model to agree with: give --baseline, or "
                    "--keep-ratio with 1.0 first");
    }
    data.kind = "image_folder";
    return evaluate_split(model, wanted, PictureList(find_pictures(arguments.pictures)), data, arguments.batch_size,
                          options);
}

void run(Arguments& arguments) {
    ModelArguments::Choice choice = arguments.model.choose();
    Experiment& experiment = choice.experiment;
    const bool unlabelled = !arguments.pictures.empty();
    if (!unlabelled && arguments.data.empty() && arguments.model.config.config.empty()) {
        throw Error("eval", "--data is missing: the folder that holds val/; or --pictures, without labels");
    }
    if (!arguments.data.empty()) {
        experiment.data.kind =
            has_shards(std::filesystem::path(arguments.data) / "val") ? "tar_shards" : "image_folder";
        experiment.data.root = arguments.data;
        experiment.data.val_root.clear();
    }
    if (!arguments.classes.empty()) experiment.data.classes = arguments.classes;
    if (arguments.resize >= 0) experiment.data.resize = arguments.resize;
    if (arguments.workers > 0) experiment.data.workers = arguments.workers;

    const DynamicVit model = arguments.model.load(choice);
    EvalOptions options = arguments.model.options();
    if (!arguments.baseline.empty())
        options.baseline = load_dense(read_model_file(arguments.baseline), experiment.model, options.device);
    const std::vector<EvalCase> wanted = cases(arguments, experiment);
    const std::vector<EvalResult> results =
        unlabelled ? evaluate_unlabelled(arguments, model, wanted, experiment.data, options)
                   : evaluate_split(model, wanted, experiment.data, arguments.batch_size, options);
    std::cout << eval_table(results);
    if (arguments.json.empty()) return;
    nlohmann::json report = {{"model", experiment.model.name},
                             {"weights", arguments.model.weights},
                             {"precision", arguments.model.precision},
                             {"device", options.device.str()},
                             {"results", nlohmann::json::array()}};
    for (const EvalResult& result : results) report["results"].push_back(eval_json(result));
    write_file_atomically(arguments.json, report.dump(2) + "\n", "eval");
}

}  // namespace

void add_eval(CLI::App& program) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command =
        program.add_subcommand("eval", "Top-1, top-5, loss, kept tokens and GMACs, dense and at any keep ratio");
    arguments->model.add_to(*command);
    command->add_option("--data", arguments->data,
                        "the folder that holds val/, a folder a class or *.tar; in place of the config's");
    command
        ->add_option("--pictures", arguments->pictures,
                     "in place of --data: pictures without labels, or folders of them; tells how far pruning agrees "
                     "with the dense model")
        ->excludes("--data");
    command->add_option("--classes", arguments->classes, "file with a class folder's name a line, in index order");
    command->add_option("--resize", arguments->resize, "short side before the centre crop, pixels; 0: size / 0.875");
    command
        ->add_option("--policy", arguments->policies,
                     "who selects: " + join(plan_policy_names(), ", ") + "; several: predicted,random")
        ->delimiter(',')
        ->capture_default_str();
    command
        ->add_option("--threshold", arguments->thresholds,
                     "per_image at this probability to be kept, or one a stage; without it per_image finds those that "
                     "keep as many tokens as --keep-ratio")
        ->delimiter(',');
    command->add_option(
        "--baseline", arguments->baseline,
        "weights of the dense model to compare with, such as those that training started from; else --weights, dense");
    command->add_option("-b,--batch-size", arguments->batch_size, "pictures at a time")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    command->add_option("-j,--workers", arguments->workers, "threads that decode pictures; 0: one a core")
        ->check(CLI::NonNegativeNumber);
    command->add_option("--json", arguments->json, "write the results to this file too");
    command->callback([arguments] { run(*arguments); });
}

}  // namespace dynvit::tool
