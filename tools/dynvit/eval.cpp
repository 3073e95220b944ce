// dynvit eval: accuracy and cost, dense and pruned.
#include <nlohmann/json.hpp>

#include "arguments.hpp"
#include "command.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/data/image_folder.hpp"
#include "dynvit/data/tar_shards.hpp"
#include "dynvit/infer/eval_report.hpp"
#include "dynvit/infer/nearest_neighbours.hpp"
#include "dynvit/train/trainer.hpp"

namespace dynvit::tool {
namespace {

struct Arguments {
    ModelArguments model;
    std::string data, classes, labels, json, baseline;
    PictureArguments reading;
    std::vector<std::string> policies, pictures;
    std::vector<double> thresholds;
};

// Every policy at every ratio, budget or count; once what does not depend on it: dense, what keeps a number of its own,
// and given thresholds.
std::vector<EvalCase> cases(const Arguments& arguments, const ModelArguments::Choice& choice) {
    const ModelSettings& settings = choice.experiment.model;
    std::vector<EvalCase> made;
    for (const auto& [plan, keep_ratio] : arguments.model.plans(settings, arguments.policies)) {
        made.push_back({plan, keep_ratio});
    }
    if (!arguments.model.asks_for_plans()) {
        made.emplace_back();  // dense
        const bool pruned = !choice.plan.dense() && arguments.thresholds.empty();
        const std::vector<std::string> policies =
            arguments.policies.empty() ? std::vector<std::string>{choice.plan.policy} : arguments.policies;
        for (std::size_t p = 0; pruned && p < policies.size(); ++p) {
            made.push_back({choice.plan, choice.keep_ratio});
            made.back().plan.policy = policies[p];
        }
    }
    if (!arguments.thresholds.empty()) made.push_back({plan_for_thresholds(settings, arguments.thresholds), 0});
    return made;
}

// How far each case agrees with the dense model on pictures that nobody has labelled.
std::vector<EvalResult> evaluate_unlabelled(const Arguments& arguments, const DynamicVit& model,
                                            const std::vector<EvalCase>& wanted, DataSettings data,
                                            const EvalOptions& options) {
    if (!options.baseline && !wanted.front().plan.dense()) {
        throw Error("eval",
                    "--pictures have no labels, and there is no dense model to agree with: give --baseline, or "
                    "--keep-ratio with 1.0 first");
    }
    data.kind = "image_folder";
    return evaluate_split(model, wanted, PictureList(find_pictures(arguments.pictures)), data,
                          arguments.reading.batch_size, options);
}

// Among what a model without a head finds the classes of pictures: the training pictures, as the dense model sees them.
// Null where those have no labels.
std::shared_ptr<const NeighbourBank> make_neighbours(const DynamicVit& dense, const DataSettings& data,
                                                     std::int64_t batch_size, const EvalOptions& options) {
    const ModelSettings& settings = dense->settings();
    const auto open = [&](Split split) {
        return make_dataset(data, split, settings.image_height(), settings.image_width());
    };
    const std::unique_ptr<Dataset> validation = open(Split::kVal);
    if (validation->multi_label()) {
        throw Error("eval", validation->classes_from(),
                    ": found labels of any number of classes each, but the model has no head that tells them");
    }
    std::unique_ptr<Dataset> training;
    try {
        training = open(Split::kTrain);
    } catch (const Error& error) {
        throw Error("eval",
                    "a model without a head finds classes by neighbours among the training pictures: ", error.what(),
                    "; or --pictures, which need no labels");
    }
    if (!training->labelled()) return nullptr;
    if (training->class_names() != validation->class_names()) {
        throw Error("eval",
                    "the classes of val/ are not those of train/, among whose pictures a model without a "
                    "head finds neighbours, expected the same, or a class list that numbers both: --classes");
    }
    auto neighbours = make_neighbour_bank(dense, *training, data, batch_size, options);
    log::info(describe_neighbours(*neighbours));
    return neighbours;
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
    if (!arguments.labels.empty()) {
        experiment.data.labels = arguments.labels;
        experiment.data.val_labels = arguments.labels;  // whatever the config has
    }
    arguments.reading.change(experiment.data);

    const std::vector<EvalCase> wanted = cases(arguments, choice);
    std::vector<PruningPlan> plans;
    for (const EvalCase& one : wanted) plans.push_back(one.plan);
    const DynamicVit model = arguments.model.load(choice, plans);
    EvalOptions options = arguments.model.options();
    options.independent_classes = experiment.train.loss.binary();
    if (!arguments.baseline.empty()) {
        const ModelFile file = read_model_file(arguments.baseline);
        options.baseline = load_dense(file, experiment.model, options.device);
        warn_of_other_scaling(file, experiment.data.preprocessing, "the baseline");
    }
    if (!unlabelled && !experiment.model.classifies()) {
        options.neighbours = make_neighbours(options.baseline ? options.baseline : model, experiment.data,
                                             arguments.reading.batch_size, options);
    }
    const std::vector<EvalResult> results =
        unlabelled ? evaluate_unlabelled(arguments, model, wanted, experiment.data, options)
                   : evaluate_split(model, wanted, experiment.data, arguments.reading.batch_size, options);
    for (const EvalResult& result : results) {
        if (result.finite()) continue;
        log::warn(str(result.policy, ' ', fixed(result.keep_ratio, 2),
                      ": outputs are not finite, and its figures mean nothing"));
    }
    print(eval_table(results));
    nlohmann::json report = {{"model", experiment.model.name},
                             {"weights", arguments.model.weights},
                             {"precision", arguments.model.precision},
                             {"device", options.device.str()},
                             {"results", nlohmann::json::array()}};
    if (options.neighbours) report["neighbours"] = neighbours_json(*options.neighbours);
    for (const EvalResult& result : results) report["results"].push_back(eval_json(result));
    write_json(arguments.json, std::move(report), "eval");
}

}  // namespace

void add_eval(CLI::App& program) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = program.add_subcommand(
        "eval", "Top-1, top-5 (or mAP), loss, kept tokens and GMACs, dense and at any keep ratio");
    arguments->model.add_to(*command);
    command->add_option("--data", arguments->data,
                        "the folder that holds val/, a folder a class, *.tar, or pictures with --labels; in place of "
                        "the config's; without a head "
                        "train/ too: among its pictures neighbours are found");
    command
        ->add_option("--pictures", arguments->pictures,
                     "in place of --data: pictures without labels, or folders of them; tells how far pruning agrees "
                     "with the dense model")
        ->excludes("--data");
    command->add_option("--classes", arguments->classes, "file with a class folder's name a line, in index order");
    command
        ->add_option("--labels", arguments->labels,
                     "file with the class of each picture, a line 'a.jpg 3' each, or of several, 'a.jpg,cat dog': "
                     "mean average precision in place of top-1 then; or ILSVRC2012_validation_ground_truth.txt")
        ->excludes("--pictures");
    arguments->reading.add_to(*command);
    add_policy_option(*command, arguments->policies, any_policy);
    add_list(*command, "--threshold", arguments->thresholds,
             "per_image at this probability to be kept, or one a stage; without it per_image finds those that "
             "keep as many tokens as --keep-ratio");
    command->add_option(
        "--baseline", arguments->baseline,
        "weights of the dense model to compare with, such as those that training started from; else --weights, dense");
    command->add_option("--json", arguments->json, "write the results to this file too");
    command->callback([arguments] { run(*arguments); });
}

}  // namespace dynvit::tool
