#include "dynvit/train/trainer.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/core/sha256.hpp"
#include "dynvit/infer/slow_paths.hpp"
#include "dynvit/models/macs.hpp"
#include "dynvit/runtime/device.hpp"
#include "dynvit/train/run_log.hpp"
#include "dynvit/train/seed_use.hpp"
#include "dynvit/train/train_step.hpp"
#include "step_log.hpp"
#include "training_pictures.hpp"

namespace dynvit {
namespace {

constexpr std::int64_t kEstimateSteps = 3;  // on a processor a step takes seconds: how long all will take is said

// How long a run is, in steps.
struct RunLength {
    std::int64_t epoch = 0;  // one
    std::int64_t all = 0;    // every epoch: what schedules go by
    std::int64_t last = 0;   // where the run ends: train.max_steps may come before

    bool ends_epoch(std::int64_t step) const { return step % epoch == 0; }
};

RunLength run_length(const TrainSettings& settings, std::int64_t steps_per_epoch) {
    const std::int64_t all = settings.epochs * steps_per_epoch;
    return {steps_per_epoch, all, settings.max_steps > 0 ? std::min(settings.max_steps, all) : all};
}

// What of it the settings fix of step `step`, from 0.
StepPlan plan_step(const TrainSettings& settings, const std::vector<double>& targets, const RunLength& length,
                   std::int64_t step) {
    StepPlan plan;
    plan.step = step;
    plan.lr = learning_rate(settings.schedule, step, length.epoch, settings.epochs);
    plan.backbone_lr = backbone_learning_rate(settings.schedule, step, length.epoch, settings.epochs);
    plan.selection = step_selection(settings.selection, targets, step, length.all,
                                    Random(seed_for(settings.seed, SeedUse::kRatio, step)));
    return plan;
}

// Whether the settings ask for an evaluation, or a checkpoint, once `step` steps are done.
bool evaluates_after(const TrainSettings& settings, const RunLength& length, std::int64_t step) {
    if (settings.eval_every == 0) return false;
    return step == length.last || (length.ends_epoch(step) && step / length.epoch % settings.eval_every == 0);
}

bool saves_after(const TrainSettings& settings, const RunLength& length, std::int64_t step) {
    return step == length.last || (length.ends_epoch(step) && step / length.epoch % settings.save_every == 0);
}

// Sets how many processor threads steps have: those of the settings or, where they leave it open, those that the run
// had before. @return their number
int use_threads(std::int64_t asked, std::int64_t before) {
    const int now = at::get_num_threads();
    const std::int64_t wanted = asked > 0 ? asked : before;
    if (wanted > 0 && wanted != now) {
        log::info(str(wanted, " processor threads in place of ", now, asked > 0 ? "" : ", as the run began",
                      ": other numbers give other last bits"));
        at::set_num_threads(static_cast<int>(wanted));
    }
    return at::get_num_threads();
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

// Throws Error where the processes don't do the same.
void check_agreement(const ProcessGroup& group, const Experiment& experiment, const Dataset& pictures,
                     const RunProgress& progress) {
    if (group.alone()) return;
    group.check_same("settings", write_config(experiment));
    group.check_same("a program", sha256_of_file("/proc/self/exe", "train"));
    Sha256 names;
    for (std::size_t i = 0; i < pictures.size(); ++i) {
        const std::string name = pictures.name(i) + '\n';
        names.add(name.data(), name.size());
    }
    group.check_same("training pictures", str(pictures.size(), ' ', names.hex()));
    group.check_same("a checkpoint to go on from", str(progress.step));
}

// The model that train.best_by means, with its top-1, or mean average precision.
struct Evaluated {
    DynamicVit model{nullptr};
    double accuracy = 0.0;
};

// Evaluates the weights and their average, dense and pruned, in one pass over the pictures.
Evaluated evaluate_learner(Learner& learner, const Experiment& e, const Dataset& pictures, const EvalOptions& options,
                           std::int64_t step, RunLog& run_log, TrainResult& result) {
    const DynamicVit outcome = learner.outcome();
    std::vector<EvalCase> cases = {{}};  // dense; of the outcome, as the next one
    const std::int64_t stages = e.model.stages();
    if (stages > 0) {
        cases.push_back({plan_for_shares(e.model, e.train.stage_targets(stages)), e.train.keep_ratio.front()});
    }
    const std::size_t count = cases.size();
    const DynamicVit average = learner.ema ? learner.ema->average() : DynamicVit{nullptr};
    for (std::size_t i = 0; average && i < count; ++i) {
        cases.push_back(cases[i]);
        cases.back().model = average;
    }
    const auto results = evaluate_split(outcome, cases, pictures, e.data, e.train.batch_size, options);
    const auto middle = results.begin() + static_cast<std::ptrdiff_t>(count);
    result.last_eval.assign(results.begin(), middle);
    result.last_ema_eval.assign(middle, results.end());

    std::string summary = str("step ", step, ':');
    for (std::size_t i = 0; i < results.size(); ++i) {
        const bool averaged = i >= count;
        run_log.eval(step, results[i], averaged ? "ema" : "weights");
        summary += str(' ', results[i].policy, averaged ? " (ema) " : " ", fixed(results[i].accuracy(), 2), " %");
    }
    log::info(summary);

    const bool by_ema = e.train.best_by.ends_with("_ema"), by_dense = e.train.best_by.starts_with("dense");
    const std::vector<EvalResult>& chosen = by_ema ? result.last_ema_eval : result.last_eval;
    const Evaluated evaluated{by_ema ? average : outcome, (by_dense ? chosen.front() : chosen.back()).accuracy()};
    run_log.pictures(step, *evaluated.model);
    return evaluated;
}

}  // namespace

TrainResult train(Experiment experiment, const std::filesystem::path& output, const TrainOptions& options) {
    ProcessGroup nobody{Launch{}};
    ProcessGroup& group = options.group ? *options.group : nobody;
    const TrainSettings& settings = experiment.train;
    const ModelSettings& shape = experiment.model;
    const at::Device device = parse_device(settings.device);
    const TrainingPictures pictures = open_pictures(experiment);
    const RunLength length = run_length(settings, pictures.steps_per_epoch);

    Learner learner = make_learner(experiment, device);
    const RunFolder run(output, options.resume, group.leads());
    RunProgress progress{.steps_per_epoch = length.epoch};
    if (run.resumes()) progress = run.restore(learner, length.epoch);
    progress.threads = use_threads(options.threads > 0 ? options.threads : settings.threads, progress.threads);
    check_agreement(group, experiment, *pictures.training, progress);
    run.save_config(experiment);
    for (const std::string& line : slow_paths(shape, device)) log::info(line);
    log::info(str("training ", shape.name, " on ", device.str(), ", ", settings.precision, ": ",
                  fixed(1e-6 * static_cast<double>(count_parameters(shape)), 1), " M parameters, ",
                  pictures.training->size(), " pictures, ", length.epoch, " steps an epoch, ", settings.epochs,
                  " epochs, into ", output.string(),
                  run.resumes() ? str(", from its checkpoint of step ", progress.step) : ""));

    const std::vector<double> targets = settings.stage_targets(shape.stages());
    EvalOptions eval_options{device, parse_precision(settings.precision), seed_for(settings.seed, SeedUse::kPolicy)};
    eval_options.independent_classes = settings.loss.binary();
    eval_options.group = group.alone() ? nullptr : &group;
    const Stopwatch total;
    Loader loader = training_loader(experiment, pictures, device.is_cuda(), progress.step, length.last,
                                    {group.rank(), group.size()});
    TrainStep step(learner, settings, &group);
    RunLog run_log(run, experiment, progress.step, options.draw_kept);
    StepLog step_log(settings, run, run_log, loader, progress);
    TrainResult result;
    result.reached_target = settings.stop_at > 0 && progress.best_top1 >= settings.stop_at;
    std::optional<Progress> bar;  // one an epoch
    const std::int64_t begin = progress.step, estimated_at = device.is_cuda() ? -1 : begin + kEstimateSteps;

    while (progress.step < length.last && !result.reached_target && !result.interrupted) {
        const std::int64_t epoch = progress.step / length.epoch;
        if (!bar && group.leads())
            bar.emplace(str("epoch ", epoch + 1, '/', settings.epochs), length.epoch, progress.step % length.epoch);

        const std::vector<Batch> batches = next_batches(loader, settings.accumulate);
        const StepPlan plan = plan_step(settings, targets, length, progress.step);
        const StepOutput out = step(plan, batches);
        ++progress.step;
        if (progress.step == begin + 1) {  // until then it is a longer one
            group.set_timeout(std::chrono::milliseconds(std::llround(1000 * settings.timeout)));
        }
        if (progress.step == estimated_at && progress.step < length.last) {
            const double a_step = total.seconds() / kEstimateSteps;
            log::info(str("about ", clock_text(a_step * static_cast<double>(length.last - progress.step)), " for the ",
                          length.last - progress.step, " steps to come"));
        }
        step_log.add(plan, out, batches, progress.step == length.last);
        if (bar) bar->update(progress.step - epoch * length.epoch, step_log.last_line());
        const auto is_stopped = [&] {
            return progress.step < length.last && group.any(options.stop && options.stop());
        };
        result.interrupted = is_stopped();
        if (!length.ends_epoch(progress.step) && progress.step != length.last && !result.interrupted) continue;

        bar.reset();
        step_log.pause();
        DynamicVit best(nullptr);
        if (pictures.validation && evaluates_after(settings, length, progress.step)) {
            const Evaluated evaluated = evaluate_learner(learner, experiment, *pictures.validation, eval_options,
                                                         progress.step, run_log, result);
            const bool judged = !result.last_eval.empty() && result.last_eval.front().labelled;
            if (judged && evaluated.accuracy > progress.best_top1) {
                best = evaluated.model;
                progress.best_top1 = evaluated.accuracy;
            }
            result.reached_target = settings.stop_at > 0 && evaluated.accuracy >= settings.stop_at;
            result.interrupted = result.interrupted || is_stopped();
        }
        if (best || result.reached_target || result.interrupted || saves_after(settings, length, progress.step)) {
            step_log.tell_skipped();
            run.save(learner, progress, best, parse_precision(settings.save_as));
        }
        step_log.go_on();
    }

    result.steps = progress.step;
    result.seconds = total.seconds();
    result.best_top1 = progress.best_top1;
    result.skipped_steps = progress.skipped;
    result.corrupt_pictures = step_log.corrupt_pictures();
    return result;
}

}  // namespace dynvit
