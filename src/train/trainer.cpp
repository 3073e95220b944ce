#include "dynvit/train/trainer.hpp"

#include <ATen/ATen.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/train/metrics.hpp"
#include "dynvit/train/run_log.hpp"
#include "dynvit/train/seed_use.hpp"
#include "dynvit/train/train_step.hpp"

namespace dynvit {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

LoaderOptions training_loader(const Experiment& e, const at::Device& device, std::int64_t epoch, std::int64_t first_batch) {
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
                    settings.accumulate > 1 ? " x train.accumulate, " : ", ", settings.batch_size * settings.accumulate);
    }
    if (settings.loss.classification > 0 && std::ssize(pictures.class_names()) > e.model.num_classes) {
        throw Error("train", "found ", pictures.class_names().size(), " classes in the data, expected at most "
                    "model.num_classes, ", e.model.num_classes);
    }
    return steps;
}

// The next step's batches; fewer than `count` at the epoch's end.
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

// Names each corrupt picture in the log once.
void report_corrupt(const Loader& loader, std::set<std::string>& known) {
    for (const CorruptSample& sample : loader.corrupt()) {
        if (known.insert(sample.name).second) log::warn("replaced by another picture: " + sample.reason);
    }
}

// Names skipped steps in the log; an Error where too many came in a row.
void report_skipped(SkippedSteps& skipped, RunProgress& progress, const TrainSettings& settings, const RunFolder& run) {
    constexpr std::size_t kMostNames = 8;
    for (const SkippedSteps::Skipped& step : skipped.take()) {
        ++progress.skipped;
        std::vector<std::string> names = step.names;
        if (names.size() > kMostNames) names.resize(kMostNames);
        log::warn(str("step ", step.step, " was skipped: its loss or a gradient is not finite; its pictures: ", join(names, ", "),
                      step.names.size() > kMostNames ? str(" and ", step.names.size() - kMostNames, " more") : ""));
    }
    if (skipped.in_a_row() < settings.max_skipped_steps) return;
    throw Error("train", "the loss or a gradient was not finite in the ", skipped.in_a_row(), " steps up to ", progress.step,
                std::filesystem::exists(run.last()) ? "; the last good checkpoint is " + run.last().string()
                                                    : "; no checkpoint was written");
}

// Evaluates the weights and their average, dense and pruned; returns the model that train.best_by means, with its top-1.
struct Evaluated {
    DynamicVit model{nullptr};
    double top1 = 0.0;
};

Evaluated evaluate_learner(const Learner& learner, const Experiment& e, const std::vector<EvalCase>& cases,
                           const EvalOptions& options, std::int64_t step, RunLog& run_log, TrainResult& result) {
    const bool by_ema = e.train.best_by.ends_with("_ema"), by_dense = e.train.best_by.starts_with("dense");
    std::string summary = str("step ", step, ':');
    const auto evaluate_model = [&](const DynamicVit& model, const std::string& weights) {
        std::vector<EvalResult> results = evaluate_split(model, cases, e.data, e.train.batch_size, options);
        for (const EvalResult& r : results) {
            run_log.eval(step, r, weights);
            summary += str(' ', r.policy, weights == "ema" ? " (ema) " : " ", fixed(r.top1(), 2), " %");
        }
        return results;
    };
    result.last_eval = evaluate_model(learner.student, "weights");
    if (learner.ema) result.last_ema_eval = evaluate_model(learner.ema->average(), "ema");
    log::info(summary);
    Evaluated evaluated;
    evaluated.model = by_ema ? learner.ema->average() : learner.student;
    const std::vector<EvalResult>& chosen = by_ema ? result.last_ema_eval : result.last_eval;
    evaluated.top1 = (by_dense ? chosen.front() : chosen.back()).top1();
    run_log.pictures(step, evaluated.model, options);
    return evaluated;
}

}  // namespace

TrainResult train(const Experiment& experiment, const std::filesystem::path& output, bool resume) {
    const TrainSettings& settings = experiment.train;
    const ModelSettings& shape = experiment.model;
    const at::Device device = parse_device(settings.device);
    const std::vector<double> targets = settings.stage_targets(shape.stages());
    std::vector<EvalCase> eval_cases = {{"predicted", 1.0, {}}};
    if (shape.stages() > 0) eval_cases.push_back({"predicted", settings.keep_ratio.front(), targets});

    const auto pictures = make_dataset(experiment.data, Split::kTrain, shape.image_height(), shape.image_width());
    const SampleTransform transform =
        make_transform(experiment.data, Split::kTrain, shape.image_height(), shape.image_width());
    const std::int64_t steps_per_epoch = count_steps_per_epoch(experiment, *pictures, device);
    const bool evaluates = settings.eval_every > 0 && has_validation(experiment.data);
    if (settings.eval_every > 0 && !evaluates) log::warn("no val/ folder: nothing is evaluated, and no best checkpoint kept");

    Learner learner = make_learner(experiment, device);
    const RunFolder run(output, resume);
    RunProgress progress = resume ? run.restore(learner) : RunProgress{};
    run.save_config(experiment);
    RunLog run_log(run, experiment, progress.step);
    log::info(str("training ", shape.name, " on ", device.str(), ", ", settings.precision, ": ", pictures->size(),
                  " pictures, ", steps_per_epoch, " steps an epoch, ", settings.epochs, " epochs, into ", output.string()));

    const std::int64_t all_steps = settings.epochs * steps_per_epoch;
    const std::int64_t last_step = settings.max_steps > 0 ? std::min(settings.max_steps, all_steps) : all_steps;
    const std::int64_t look_every = std::min(settings.log_every, settings.max_skipped_steps);
    const EvalOptions eval_options{device, parse_precision(settings.precision), seed_for(settings.seed, SeedUse::kPolicy)};
    TrainResult result;
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
                plan.backbone_lr = plan.lr * backbone_scale(settings.schedule, plan.step, steps_per_epoch);
                plan.selection = step_selection(settings.selection, targets, plan.step, all_steps,
                                                Random(seed_for(settings.seed, SeedUse::kRatio, plan.step)));
                const StepOutput out = train_step(learner, settings, plan, batches);
                meters.add(out);
                skipped.add(++progress.step, out.skipped, names_of(batches));

                const bool logs = progress.step % settings.log_every == 0 || progress.step == last_step;
                if (logs || progress.step % look_every == 0) report_skipped(skipped, progress, settings, run);
                if (logs) {
                    nlohmann::json line = meters.take();
                    line["kind"] = "train";
                    line["step"] = progress.step;
                    line["epoch"] = static_cast<double>(progress.step) / static_cast<double>(steps_per_epoch);
                    line["lr"] = plan.lr;
                    line["skipped_steps"] = progress.skipped;
                    const double images = static_cast<double>((progress.step - logged_step) * settings.batch_size * settings.accumulate);
                    line["images_per_second"] = images / seconds_since(logged);
                    logged = Clock::now();
                    logged_step = progress.step;
                    run_log.train(line);
                    text = progress_text(line);
                }
                bar.update(progress.step - epoch * steps_per_epoch, text);
            }
            report_corrupt(loader, corrupt);
        }

        const bool finished = progress.step == last_step;
        const std::int64_t epochs_done = progress.step / steps_per_epoch;
        const bool epoch_ended = progress.step % steps_per_epoch == 0;
        DynamicVit best(nullptr);
        if (evaluates && ((epoch_ended && epochs_done % settings.eval_every == 0) || finished)) {
            const Evaluated evaluated =
                evaluate_learner(learner, experiment, eval_cases, eval_options, progress.step, run_log, result);
            if (evaluated.top1 > progress.best_top1) {
                best = evaluated.model;
                progress.best_top1 = evaluated.top1;
            }
            result.reached_target = settings.stop_at > 0 && evaluated.top1 >= settings.stop_at;
        }
        if (finished || best || result.reached_target || (epoch_ended && epochs_done % settings.save_every == 0)) {
            run.save(learner, progress, best, parse_precision(settings.save_as));
        }
        logged = Clock::now();
    }
    result.steps = progress.step;
    result.seconds = seconds_since(start);
    result.best_top1 = progress.best_top1;
    result.skipped_steps = progress.skipped;
    result.corrupt_pictures = std::ssize(corrupt);
    return result;
}

}  // namespace dynvit
