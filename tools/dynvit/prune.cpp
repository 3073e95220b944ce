// dynvit prune: the Vision Transformer that one has, faster, by pictures without labels.
#include <ATen/CPUGeneratorImpl.h>

#include <nlohmann/json.hpp>

#include "arguments.hpp"
#include "command.hpp"
#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/data/image_folder.hpp"
#include "dynvit/export/bundle.hpp"
#include "dynvit/infer/eval_report.hpp"
#include "dynvit/infer/inference_session.hpp"
#include "dynvit/infer/nearest_neighbours.hpp"
#include "dynvit/io/weights_format.hpp"
#include "dynvit/runtime/timing.hpp"
#include "dynvit/train/label_free_recipe.hpp"
#include "dynvit/train/trainer.hpp"
#include "stop_signals.hpp"

namespace dynvit::tool {
namespace {

struct Arguments {
    ModelArguments model;
    std::string images, output = "pruned.safetensors", run, json;
    std::vector<std::string> overrides;
    PreprocessingChanges preprocessing;
    double agreement = 0.9;
    double seconds = 0.5;
    std::int64_t steps = 0;
    std::uint64_t seed = 0;
    bool print_config = false;
};

// Batch sizes that speed is measured at; a large one on a GPU, which small ones do not fill, where training has as
// large ones.
std::vector<std::int64_t> timed_batches(const Experiment& experiment, const at::Device& device) {
    constexpr std::int64_t kLarge = 256;
    std::vector<std::int64_t> batches = {1, 32};
    if (device.is_cuda() && experiment.train.batch_size >= kLarge) batches.push_back(kLarge);
    return batches;
}

// What is known of one keep ratio in the end.
struct Row {
    EvalResult result;
    PruningPlan plan;
    std::vector<double> speedup;  // a timed batch: times the dense model's pace; empty: not measured

    double agreement() const { return result.classifies ? result.agreement() / 100 : result.cosine; }
};

// The file that training reads: the one that was given or, where it takes more than a path to read that as it was read
// here, the dense model beside the output.
std::string starting_weights(const Arguments& arguments, const ModelArguments::Choice& choice) {
    const ReadOptions& reading = arguments.model.reading;
    const bool plain = reading.part.empty() && reading.prefix.empty() && reading.known.num_heads == 0 &&
                       reading.known.activation.empty();
    if (plain) return arguments.model.weights;
    const std::string path = std::filesystem::path(arguments.output).replace_extension("dense.safetensors").string();
    ModelSettings dense = choice.experiment.model;
    dense.pruning_loc = {};
    write_model_file(path, choice.file.weights, dense, std::nullopt, choice.file.preprocessing);
    log::info(str("the dense model as it was read: ", path));
    return path;
}

Experiment make_experiment(const Arguments& arguments, const ModelArguments::Choice& choice, bool on_gpu) {
    LabelFreeInputs inputs;
    inputs.model = choice.experiment.model;
    if (!has_prediction_modules(choice.file) && inputs.model.predicts()) inputs.model.pruning_loc = {};
    inputs.stages = {arguments.model.pruning_loc, arguments.model.stage_place, arguments.model.reduction};
    inputs.preprocessing = arguments.preprocessing.over(choice.experiment.data.preprocessing);
    inputs.weights = starting_weights(arguments, choice);
    inputs.pictures = arguments.images;
    inputs.on_gpu = on_gpu;
    inputs.steps = arguments.steps;
    inputs.seed = arguments.seed;
    const auto pictures =
        make_dataset(label_free_data(inputs), Split::kTrain, inputs.model.image_height(), inputs.model.image_width());
    inputs.count = static_cast<std::int64_t>(pictures->size());
    Experiment made = label_free_recipe(inputs);
    made.train.device = arguments.model.device;
    return read_config<Experiment>({write_config(made, false), "the recipe", arguments.overrides});
}

// The keep ratios of the table: the usual ones, and what was asked for.
std::vector<double> table_ratios(const Arguments& arguments, const ModelSettings& settings) {
    std::vector<double> ratios = {0.9, 0.8, 0.7, 0.6, 0.5};
    for (const double ratio : arguments.model.keep_ratios) ratios.push_back(ratio);
    for (const double budget : arguments.model.gmacs) ratios.push_back(keep_ratio_for_gmacs(settings, budget));
    std::ranges::sort(ratios, std::greater());
    ratios.erase(std::ranges::unique(ratios).begin(), ratios.end());
    std::erase_if(ratios, [&](double ratio) {  // matching can't leave fewer than half
        return !find_count_fault(settings, plan_for_ratio(settings, ratio).tokens).empty();
    });
    return ratios;
}

// What is known in the end.
struct Measured {
    EvalResult dense;
    std::vector<Row> rows;
    std::shared_ptr<const NeighbourBank> neighbours;  // null: the pictures have no classes, or a head tells them
};

std::vector<std::filesystem::path> paths_of(const Dataset& pictures) {
    std::vector<std::filesystem::path> paths;
    for (std::size_t i = 0; i < pictures.size(); ++i) paths.emplace_back(pictures.name(i));
    return paths;
}

// The pictures held back; of a model that does not classify with their class folders as labels, and with the training
// pictures beside them, where there are such folders.
struct Pictures {
    std::unique_ptr<Dataset> held_back, training;  // training: null where no folder tells a class
};

Pictures open_pictures(const Experiment& e) {
    const auto open = [&](Split split) {
        return make_dataset(e.data, split, e.model.image_height(), e.model.image_width());
    };
    Pictures pictures{open(Split::kVal), nullptr};
    if (e.model.classifies() || e.data.hold_out == 0) return pictures;
    const std::vector<std::filesystem::path> held_back = paths_of(*pictures.held_back),
                                             training = paths_of(*open(Split::kTrain));
    std::vector<std::filesystem::path> all = held_back;
    all.insert(all.end(), training.begin(), training.end());
    const std::optional<PictureLabels> found = label_by_folders(e.data.root, all);
    if (!found) return pictures;
    const auto middle = found->labels.begin() + std::ssize(held_back);
    const std::vector<std::int64_t> first(found->labels.begin(), middle), others(middle, found->labels.end());
    pictures.held_back = std::make_unique<PictureList>(held_back, PictureLabels{first, found->class_names});
    pictures.training = std::make_unique<PictureList>(training, PictureLabels{others, found->class_names});
    return pictures;
}

// How far the model agrees with the dense one on the pictures held back: by its own policy, and by those that learn
// nothing. What an embedding is good for is told, too, where the pictures' folders are their classes: which class the
// nearest of the training pictures have in an index that the dense model made.
Measured measure_agreement(const DynamicVit& pruned, const DynamicVit& dense, const Experiment& experiment,
                           const std::vector<double>& ratios, const EvalOptions& given) {
    const ModelSettings& settings = pruned->settings();
    std::vector<std::string> policies = {own_policy(settings)};
    for (const char* other : {"cls_attention", "random"}) {
        if (find_policy_fault(find_policy(other), settings).empty()) policies.emplace_back(other);
    }
    std::vector<EvalCase> cases;
    for (const std::string& policy : policies) {
        for (const double ratio : ratios) {
            cases.push_back({plan_for_ratio(settings, ratio), ratio});
            cases.back().plan.policy = policy;
        }
    }
    EvalOptions options = given;
    options.baseline = dense;
    const Pictures pictures = open_pictures(experiment);
    const std::int64_t batch_size = experiment.train.batch_size;
    if (pictures.training) {
        options.neighbours = make_neighbour_bank(dense, *pictures.training, experiment.data, batch_size, options);
    }
    const std::vector<EvalResult> results =
        evaluate_split(pruned, cases, *pictures.held_back, experiment.data, batch_size, options);
    Measured measured{results.front(), {}, options.neighbours};
    for (std::size_t i = 0; i < cases.size(); ++i) measured.rows.push_back({results[i + 1], cases[i].plan, {}});
    return measured;
}

// Times the model's own rows beside the dense model, each batch in rounds.
void measure_speed(std::vector<Row>& rows, const DynamicVit& pruned, const DynamicVit& dense,
                   const std::vector<std::int64_t>& batches, const EvalOptions& options, double seconds) {
    const ModelSettings& settings = pruned->settings();
    const auto engine = std::make_shared<const InferenceModel>(*pruned, options.precision);
    std::vector<std::unique_ptr<InferenceSession>> sessions;
    sessions.push_back(std::make_unique<InferenceSession>(*dense, PruningPlan(), options.precision));
    std::vector<Row*> timed;
    for (Row& row : rows) {
        if (row.plan.policy != own_policy(settings)) continue;
        sessions.push_back(std::make_unique<InferenceSession>(engine, row.plan));
        timed.push_back(&row);
    }
    Progress bar("measuring speed", 1000);
    double done = 0;
    for (const std::int64_t batch : batches) {
        const at::Tensor images = at::randn({batch, 3, settings.image_height(), settings.image_width()},
                                            at::make_generator<at::CPUGeneratorImpl>(0))
                                      .to(options.device, options.precision);
        std::vector<std::function<void()>> calls;
        for (const auto& session : sessions) calls.emplace_back([&session, &images] { session->run(images); });
        const TimingOptions timing{options.device, seconds, 5};
        const std::vector<Timing> times = time_interleaved(calls, timing, [&](double share) {
            bar.update(static_cast<std::int64_t>(1000 * (done + share) / static_cast<double>(batches.size())),
                       str("batch ", batch));
        });
        ++done;
        for (std::size_t i = 0; i < timed.size(); ++i) {
            timed[i]->speedup.push_back(speedup(times[i + 1], times[0]).median);
        }
    }
}

// The fastest, at the largest batch, that agrees as far as was asked for; null where none does.
const Row* find_recommended(const std::vector<Row>& rows, double agreement) {
    const Row* best = nullptr;
    for (const Row& row : rows) {
        if (row.speedup.empty() || row.agreement() < agreement) continue;
        if (!best || row.speedup.back() > best->speedup.back()) best = &row;
    }
    return best;
}

// Columns as wide as they are by number, the first to the left.
std::string table_line(const std::vector<std::string>& cells) {
    std::string line;
    for (std::size_t i = 0; i < cells.size(); ++i) {
        constexpr std::size_t kFirst = 14, kOther = 11;
        const std::size_t width = i == 0 ? kFirst : kOther;
        const std::string space(width - std::min(width, cells[i].size()), ' ');
        line += i == 0 ? cells[i] + space : space + cells[i];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    return line + '\n';
}

std::string table(const Measured& measured, const Row* chosen, const std::vector<std::int64_t>& batches) {
    const EvalResult& dense = measured.dense;
    const auto cells = [&](const std::string& policy, const std::string& ratio, double gmacs) {
        return std::vector{policy, ratio, fixed(gmacs, 3)};
    };
    std::vector<std::string> heading = {"policy", "ratio", "GMACs"}, first = cells("dense", "1.00", dense.gmacs);
    if (dense.classifies) heading.insert(heading.end(), {"agree %", "KL, nats"});
    if (!dense.classifies) heading.emplace_back("cosine");
    if (dense.has_knn()) {
        heading.emplace_back("k-NN %");
        first.insert(first.end(), {"", fixed(dense.knn(), 2)});
    }
    for (const std::int64_t batch : batches) heading.push_back(str("x batch ", batch));
    std::string text = table_line(heading) + table_line(first);
    for (const Row& row : measured.rows) {
        const EvalResult& r = row.result;
        std::vector<std::string> line = cells(r.policy, fixed(r.keep_ratio, 2), r.gmacs);
        if (r.classifies) line.insert(line.end(), {fixed(r.agreement(), 2), fixed(r.kl, 4)});
        if (!r.classifies) line.push_back(fixed(r.cosine, 4));
        if (r.has_knn()) line.push_back(fixed(r.knn(), 2));
        for (const double speedup : row.speedup) line.push_back(fixed(speedup, 2));
        if (&row == chosen) line.emplace_back("<- written");
        text += table_line(line);
    }
    return text;
}

nlohmann::json to_json(const Row& row, const std::vector<std::int64_t>& batches) {
    nlohmann::json json = eval_json(row.result);
    for (std::size_t i = 0; i < row.speedup.size(); ++i) json[str("speedup_batch_", batches[i])] = row.speedup[i];
    return json;
}

std::string run_folder(const Arguments& arguments) {
    if (!arguments.run.empty()) return arguments.run;
    return std::filesystem::path(arguments.output).replace_extension("run").string();
}

// What is there already is known before anything is read.
void check_output(const Arguments& arguments) {
    check_safetensors_ending(arguments.output, "prune");
    const std::string folder = run_folder(arguments);
    if (arguments.print_config || !std::filesystem::exists(folder)) return;
    throw Error("prune", folder, ": is there already, expected no folder: another --output or --run, or remove it");
}

// Everything that a run has to do with.
struct Run {
    const Arguments& arguments;
    ModelArguments::Choice choice;
    Experiment experiment;
    EvalOptions options;  // of what is measured
    std::string folder;

    void write_bundle(DynamicVit pruned, const PruningPlan& plan) const {
        ExportOptions exported{
            .plan = plan, .preprocessing = experiment.data.preprocessing, .class_names = choice.class_names({})};
        exported.plan.policy = own_policy(pruned->settings());
        pruned->to(at::kCPU);
        export_bundle(arguments.output, pruned, exported);
    }
};

Run prepare(const Arguments& arguments, ModelArguments::Choice choice) {
    const at::Device device = parse_device(arguments.model.device);
    Experiment experiment = make_experiment(arguments, choice, device.is_cuda());
    EvalOptions options{device, parse_precision(experiment.train.precision), arguments.seed, DynamicVit(nullptr), {}};
    options.independent_classes = experiment.train.loss.binary();
    return {arguments, std::move(choice), experiment, options, run_folder(arguments)};
}

DynamicVit load_trained(const Run& run) {
    DynamicVit pruned(run.experiment.model, at::make_generator<at::CPUGeneratorImpl>(0));
    const std::filesystem::path last = std::filesystem::path(run.folder) / "checkpoints/last.safetensors";
    load_weights(*pruned, read_model_file(last), Fit::kEvaluate);
    pruned->eval();
    return pruned;
}

Measured measure(const Run& run, DynamicVit pruned) {
    const DynamicVit dense = load_dense(run.choice.file, run.experiment.model, run.options.device);
    pruned->to(run.options.device);
    Measured measured = measure_agreement(pruned, dense, run.experiment,
                                          table_ratios(run.arguments, run.experiment.model), run.options);
    measure_speed(measured.rows, pruned, dense, timed_batches(run.experiment, run.options.device), run.options,
                  run.arguments.seconds);
    return measured;
}

// The row whose plan is written: of the ratio that was asked for, or the recommended one, or else the most careful.
const Row& choose_row(const Run& run, const std::vector<Row>& rows, const PruningPlan& wanted, const Row* recommended) {
    if (!wanted.dense()) {
        const auto same = std::ranges::find_if(rows, [&](const Row& row) { return row.plan.tokens == wanted.tokens; });
        return *same;  // table_ratios has it
    }
    if (recommended) return *recommended;
    log::warn(str("no keep ratio agrees with the dense model as far as --agreement ", run.arguments.agreement, ": ",
                  run.arguments.output, " keeps the most tokens of the table"));
    return rows.front();
}

nlohmann::json report_json(const Run& run, const TrainResult& trained, const Measured& measured, const Row& chosen,
                           const Row* recommended) {
    nlohmann::json report = {{"weights", run.arguments.model.weights}, {"output", run.arguments.output},
                             {"device", run.options.device.str()},     {"precision", run.experiment.train.precision},
                             {"train_seconds", trained.seconds},       {"steps", trained.steps},
                             {"tokens_per_stage", chosen.plan.tokens}, {"dense", eval_json(measured.dense)},
                             {"rows", nlohmann::json::array()}};
    const std::vector<std::int64_t> batches = timed_batches(run.experiment, run.options.device);
    for (const Row& row : measured.rows) report["rows"].push_back(to_json(row, batches));
    if (measured.neighbours) report["neighbours"] = neighbours_json(*measured.neighbours);
    if (recommended) report["recommended_keep_ratio"] = recommended->result.keep_ratio;
    return report;
}

void tell(const Run& run, const TrainResult& trained, const Measured& measured, const Row& chosen,
          const Row* recommended) {
    const ModelSettings& settings = run.experiment.model;
    const EvalResult& dense = measured.dense;
    print(str("Beside the dense model, on ", dense.images, " pictures held back: ",
              dense.classifies ? "how often it names the same class" : "the cosine of its embedding to the dense one",
              ", and how many times as fast on ", run.options.device.str(), ", ", run.experiment.train.precision, ":\n",
              table(measured, &chosen, timed_batches(run.experiment, run.options.device)),
              measured.neighbours ? describe_neighbours(*measured.neighbours) + '\n' : ""));
    if (recommended && recommended != &chosen) {
        print(str("recommended: a keep ratio of ", fixed(recommended->result.keep_ratio, 2), '\n'));
    }
    print(str(run.arguments.output, ": keeps ", join(chosen.plan.tokens, "/"), " of ", settings.patches(),
              " patches; trained in ", clock_text(trained.seconds), ", ", run.folder, '\n'));
    if (run.arguments.json.empty()) return;
    write_json(run.arguments.json, report_json(run, trained, measured, chosen, recommended), "prune");
}

// @return the exit code
int run(Arguments& arguments) {
    check_output(arguments);
    const Run run = prepare(arguments, arguments.model.choose());
    if (arguments.print_config) {
        print(write_config(run.experiment));
        return 0;
    }
    const bool asked = arguments.model.asks_for_plans();
    const PruningPlan wanted = asked ? arguments.model.plan({.experiment = run.experiment}) : PruningPlan();
    if (asked && wanted.dense()) {
        throw Error("prune", "--keep-ratio or --gmacs: found what the dense model has, expected less");
    }
    const TrainResult trained = [&] {
        const StopSignals signals;  // behind training one ends the program: what was learnt is written first
        return train(run.experiment, run.folder, {.stop = StopSignals::came});
    }();

    const DynamicVit pruned = load_trained(run);
    // Before anything else can go wrong.
    run.write_bundle(pruned, asked ? wanted : plan_for_ratio(run.experiment.model, kDefaultKeepRatio));
    if (trained.interrupted) {
        log::warn(str(StopSignals::name(), ": stopped at step ", trained.steps, ": ", arguments.output,
                      " holds what was learnt so far"));
    }
    const Measured measured = measure(run, pruned);
    const Row* recommended = find_recommended(measured.rows, arguments.agreement);
    const Row& chosen = choose_row(run, measured.rows, wanted, recommended);
    run.write_bundle(pruned, chosen.plan);
    tell(run, trained, measured, chosen, recommended);
    return trained.interrupted ? StopSignals::exit_code() : 0;
}

}  // namespace

void add_prune(CLI::App& program) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command =
        program.add_subcommand("prune", "Make the Vision Transformer that you have faster, by pictures without labels");
    arguments->model.add_model_to(*command);
    add_preprocessing_options(*command, arguments->preprocessing);
    command
        ->add_option("--images", arguments->images, "a folder: all pictures below it; a tenth is held back to measure")
        ->required();
    command->add_option("-o,--output", arguments->output, "the pruned model: a bundle that every command takes")
        ->capture_default_str();
    command->add_option("--run", arguments->run, "the training's folder; else beside the output, ending in .run");
    command
        ->add_option("--agreement", arguments->agreement,
                     "of the ratios that agree so far with the dense model (share of the pictures with the same class; "
                     "without a head, cosine) the fastest is written, where no ratio is asked for")
        ->check(within(between(0, 1)))
        ->capture_default_str();
    command->add_option("--steps", arguments->steps, "training steps; 0: 1560 on a GPU, 300 on a processor")
        ->check(within(at_least(0)));
    command->add_option("--seconds", arguments->seconds, "how long to measure the speed of each row and batch")
        ->check(within(above(0)))
        ->capture_default_str();
    command->add_option("--seed", arguments->seed, "of everything that is drawn")->capture_default_str();
    command->add_option("-s,--set", arguments->overrides, "change a setting of the recipe; may be repeated")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false)
        ->take_all();
    command->add_flag("--print-config", arguments->print_config,
                      "print the recipe as a file for `dynvit train --config`, and train nothing");
    command->add_option("--json", arguments->json, "write the table to this file too");
    command->callback([arguments] {
        if (const int code = run(*arguments); code != 0) throw CLI::RuntimeError(code);
    });
}

}  // namespace dynvit::tool
