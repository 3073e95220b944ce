#include "dynvit/train/trainer.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <set>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/infer/slow_paths.hpp"
#include "dynvit/models/macs.hpp"
#include "dynvit/runtime/device.hpp"
#include "dynvit/train/metrics.hpp"
#include "dynvit/train/run_log.hpp"
#include "dynvit/train/seed_use.hpp"
#include "dynvit/train/train_step.hpp"

namespace dynvit {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

LoaderOptions training_loader(const Experiment& e, const at::Device& device, std::int64_t epoch,
                              std::int64_t first_batch) {
    LoaderOptions options = loader_options(e.data, Split::kTrain);
    options.batch_size = e.train.batch_size;
    options.pin_memory = device.is_cuda();
    options.seed = seed_for(e.train.seed, SeedUse::kData);
    options.epoch = epoch;
    options.first_batch = first_batch;
    return options;
}

// The run's length in steps; an Error where the pictures do not do for one, or have more classes than the model.
std::int64_t count_steps_per_epoch(const Experiment& e, const Dataset& pictures, const at::Device& device) {
    const TrainSettings& settings = e.train;
    const std::int64_t steps = batch_count(pictures.size(), training_loader(e, device, 0, 0)) / settings.accumulate;
    if (steps == 0) {
        throw Error("train", "found ", pictures.size(), " training pictures, expected at least train.batch_size",
                    settings.accumulate > 1 ? " x train.accumulate, " : ", ",
                    settings.batch_size * settings.accumulate);
    }
    if (settings.loss.classification > 0 && !pictures.labelled()) {
        throw Error("train",
                    "the training pictures have no labels, expected train.loss.classification 0 and "
                    "data.labelled false with them");
    }
    if (settings.loss.classification > 0 && std::ssize(pictures.class_names()) > e.model.num_classes) {
        throw Error("train", "found ", pictures.class_names().size(),
                    " classes in the data, expected at most "
                    "model.num_classes, ",
                    e.model.num_classes);
    }
    return steps;
}

// The next step's batches.
std::vector<Batch> next_batches(Loader& loader, std::int64_t count) {
    std::vector<Batch> batches;
    while (std::ssize(batches) < count) {
        std::optional<Batch> batch = loader.next();
        if (!batch) break;
        batches.push_back(std::move(*batch));
    }
    return batches;
}

std::vector<std::string> names_of(const std::vector<Batch>& batches) {
    std::vector<std::string> names;
    for (const Batch& batch : batches) names.insert(names.end(), batch.names.begin(), batch.names.end());
    return names;
}

std::string progress_text(const nlohmann::json& line) {
    const auto number = [](const nlohmann::json& value, int digits) {
        return value.is_number() ? fixed(value, digits) : std::string("-");  // "-": every step was skipped
    };
    std::string text = str("loss ", number(line["loss"], 4));
    if (!line["keep_ratio"].empty()) text += "  kept";
    for (const nlohmann::json& ratio : line["keep_ratio"]) text += str(' ', number(ratio, 2));
    return str(text, "  ", number(line["images_per_second"], 0), " img/s");
}

// The validation pictures; nothing where there are none. An Error where their classes are numbered otherwise than in
// training.
std::unique_ptr<Dataset> open_validation(const Experiment& e, const Dataset& training) {
    if (e.train.eval_every == 0) return nullptr;
    if (!has_validation(e.data)) {
        if (!e.data.val_root.empty()) throw Error("data", e.data.val_root, ": no folder val in it (data.val_root)");
        log::warn("no folder val in " + e.data.root + ": nothing is evaluated, and no best checkpoint kept");
        return nullptr;
    }
    auto pictures = make_dataset(e.data, Split::kVal, e.model.image_height(), e.model.image_width());
    if (training.labelled() && training.class_names() != pictures->class_names()) {
        throw Error("data", "the class folders of val/ (", pictures->class_names().size(),
                    ") are not those of train/ (", training.class_names().size(),
                    "), expected the same, or a class list that numbers both: data.classes");
    }
    return pictures;
}

// Names each corrupt picture in the log once.
void report_corrupt(const Loader& loader, std::set<std::string>& known) {
    for (const CorruptSample& sample : loader.corrupt()) {
        if (known.insert(sample.name).second) log::warn("replaced by another picture: " + sample.reason);
    }
}

// Names skipped steps in the log; an Error where too many came in a row.
// @param steps what `skipped` has told
void report_skipped(const std::vector<SkippedSteps::Skipped>& steps, const SkippedSteps& skipped, RunProgress& progress,
                    const TrainSettings& settings, const RunFolder& run) {
    constexpr std::size_t kMostNames = 8;
    for (const SkippedSteps::Skipped& step : steps) {
        ++progress.skipped;
        if (!step.bad_loss && settings.precision == "float16") {  // the scaler looking for its scale
            log::debug(str("step ", step.step, " was skipped: a gradient is too large for float16 at this loss scale"));
            continue;
        }
        std::vector<std::string> names = step.names;
        if (names.size() > kMostNames) names.resize(kMostNames);
        const std::string more =
            step.names.size() > kMostNames ? str(" and ", step.names.size() - kMostNames, " more") : "";
        log::warn(str("step ", step.step, " was skipped: its ", step.bad_loss ? "loss" : "gradient",
                      " is not finite; its pictures: ", join(names, ", "), more));
    }
    if (skipped.in_a_row() < settings.max_skipped_steps) return;
    throw Error("train", "the loss or a gradient was not finite in the ", skipped.in_a_row(), " steps up to ",
                progress.step,
                std::filesystem::exists(run.last()) ? "; the last good checkpoint is " + run.last().string()
                                                    : "; no checkpoint was written");
}

// The model that train.best_by means, with its top-1.
struct Evaluated {
    DynamicVit model{nullptr};
    double top1 = 0.0;
};

// Evaluates the weights and their average, dense and pruned, in one pass over the pictures.
Evaluated evaluate_learner(Learner& learner, const Experiment& e, const Dataset& pictures, const EvalOptions& options,
                           std::int64_t step, RunLog& run_log, TrainResult& result) {
    const DynamicVit outcome = learner.outcome();
    std::vector<EvalCase> cases = {{"predicted", 1.0, {}, outcome}};
    const std::int64_t stages = e.model.stages();
    if (stages > 0) {
        cases.push_back({"predicted", e.train.keep_ratio.front(), e.train.stage_targets(stages), outcome});
    }
    const std::size_t count = cases.size();
    for (std::size_t i = 0; learner.ema && i < count; ++i) {
        cases.push_back(cases[i]);
        cases.back().model = learner.ema->average();
    }
    const auto results = evaluate_split(outcome, cases, pictures, e.data, e.train.batch_size, options);
    const auto middle = results.begin() + static_cast<std::ptrdiff_t>(count);
    result.last_eval.assign(results.begin(), middle);
    result.last_ema_eval.assign(middle, results.end());

    std::string summary = str("step ", step, ':');
    for (std::size_t i = 0; i < results.size(); ++i) {
        const bool averaged = i >= count;
        run_log.eval(step, results[i], averaged ? "ema" : "weights");
        summary += str(' ', results[i].policy, averaged ? " (ema) " : " ", fixed(results[i].top1(), 2), " %");
    }
    log::info(summary);

    const bool by_ema = e.train.best_by.ends_with("_ema"), by_dense = e.train.best_by.starts_with("dense");
    const std::vector<EvalResult>& chosen = by_ema ? result.last_ema_eval : result.last_eval;
    const Evaluated evaluated{by_ema ? learner.ema->average() : outcome,
                              (by_dense ? chosen.front() : chosen.back()).top1()};
    run_log.pictures(step, evaluated.model, options);
    return evaluated;
}

}  // namespace

TrainResult train(const Experiment& experiment, const std::filesystem::path& output, bool resume) {
    const TrainSettings& settings = experiment.train;
    const ModelSettings& shape = experiment.model;
    const at::Device device = parse_device(settings.device);
    const std::vector<double> targets = settings.stage_targets(shape.stages());

    const auto pictures = make_dataset(experiment.data, Split::kTrain, shape.image_height(), shape.image_width());
    const SampleTransform transform =
        make_transform(experiment.data, Split::kTrain, shape.image_height(), shape.image_width());
    const std::int64_t steps_per_epoch = count_steps_per_epoch(experiment, *pictures, device);
    const std::unique_ptr<Dataset> validation = open_validation(experiment, *pictures);

    Learner learner = make_learner(experiment, device);
    const RunFolder run(output, resume);
    RunProgress progress{.steps_per_epoch = steps_per_epoch};
    if (resume) progress = run.restore(learner, steps_per_epoch);
    run.save_config(experiment);
    RunLog run_log(run, experiment, progress.step);
    for (const std::string& line : slow_paths(shape, device)) log::info(line);
    log::info(str("training ", shape.name, " on ", device.str(), ", ", settings.precision, ": ",
                  fixed(1e-6 * static_cast<double>(count_parameters(shape)), 1), " M parameters, ", pictures->size(),
                  " pictures, ", steps_per_epoch, " steps an epoch, ", settings.epochs, " epochs, into ",
                  output.string()));

    const std::int64_t all_steps = settings.epochs * steps_per_epoch;
    const std::int64_t last_step = settings.max_steps > 0 ? std::min(settings.max_steps, all_steps) : all_steps;
    const std::int64_t look_every = std::min(settings.log_every, settings.max_skipped_steps);
    const EvalOptions eval_options{device, parse_precision(settings.precision),
                                   seed_for(settings.seed, SeedUse::kPolicy)};
    TrainStep step(learner, settings);
    TrainResult result;
    result.reached_target = settings.stop_at > 0 && progress.best_top1 >= settings.stop_at;
    Meters meters;
    SkippedSteps skipped;
    std::set<std::string> corrupt;
    const auto start = Clock::now();
    auto logged = start;
    std::int64_t logged_step = progress.step;

    while (progress.step < last_step && !result.reached_target) {
        const std::int64_t epoch = progress.step / steps_per_epoch, done = progress.step % steps_per_epoch;
        {
            Loader loader(*pictures, transform, training_loader(experiment, device, epoch, done * settings.accumulate));
            Progress bar(str("epoch ", epoch + 1, '/', settings.epochs), steps_per_epoch, done);
            std::string text;
            while (progress.step < std::min(last_step, (epoch + 1) * steps_per_epoch)) {
                const std::vector<Batch> batches = next_batches(loader, settings.accumulate);
                StepPlan plan;
                plan.step = progress.step;
                plan.lr = learning_rate(settings.schedule, plan.step, steps_per_epoch, settings.epochs);
                plan.backbone_lr =
                    backbone_learning_rate(settings.schedule, plan.step, steps_per_epoch, settings.epochs);
                plan.selection = step_selection(settings.selection, targets, plan.step, all_steps,
                                                Random(seed_for(settings.seed, SeedUse::kRatio, plan.step)));
                const StepOutput out = step(plan, batches);
                meters.add(out);
                skipped.add(++progress.step, out, names_of(batches));

                const bool logs = progress.step % settings.log_every == 0 || progress.step == last_step;
                if (logs || progress.step % look_every == 0) {  // a line waits for the device anyway
                    report_skipped(logs ? skipped.take() : skipped.take_earlier(), skipped, progress, settings, run);
                }
                if (logs) {
                    nlohmann::json line = meters.take();
                    line["kind"] = "train";
                    line["step"] = progress.step;
                    line["epoch"] = static_cast<double>(progress.step) / static_cast<double>(steps_per_epoch);
                    line["lr"] = plan.lr;
                    line["skipped_steps"] = progress.skipped;
                    const double images =
                        static_cast<double>((progress.step - logged_step) * settings.batch_size * settings.accumulate);
                    line["images_per_second"] = images / seconds_since(logged);
                    logged = Clock::now();
                    logged_step = progress.step;
                    run_log.train(line);
                    report_corrupt(loader, corrupt);
                    text = progress_text(line);
                }
                bar.update(progress.step - epoch * steps_per_epoch, text);
            }
            report_corrupt(loader, corrupt);
        }

        const auto paused = Clock::now();
        const bool finished = progress.step == last_step;
        const std::int64_t epochs_done = progress.step / steps_per_epoch;
        const bool epoch_ended = progress.step % steps_per_epoch == 0;
        DynamicVit best(nullptr);
        if (validation && ((epoch_ended && epochs_done % settings.eval_every == 0) || finished)) {
            const Evaluated evaluated =
                evaluate_learner(learner, experiment, *validation, eval_options, progress.step, run_log, result);
            if (evaluated.top1 > progress.best_top1) {
                best = evaluated.model;
                progress.best_top1 = evaluated.top1;
            }
            result.reached_target = settings.stop_at > 0 && evaluated.top1 >= settings.stop_at;
        }
        if (finished || best || result.reached_target || (epoch_ended && epochs_done % settings.save_every == 0)) {
            // What a checkpoint says of them is complete.
            report_skipped(skipped.take(), skipped, progress, settings, run);
            run.save(learner, progress, best, parse_precision(settings.save_as));
        }
        logged += Clock::now() - paused;  // evaluating and saving is not training
    }
    result.steps = progress.step;
    result.seconds = seconds_since(start);
    result.best_top1 = progress.best_top1;
    result.skipped_steps = progress.skipped;
    result.corrupt_pictures = std::ssize(corrupt);
    return result;
}

}  // namespace dynvit
