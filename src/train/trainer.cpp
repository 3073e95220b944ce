#include "dynvit/train/trainer.hpp"

#include <ATen/ATen.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/infer/autocast.hpp"
#include "dynvit/infer/eval_report.hpp"
#include "dynvit/infer/model_file.hpp"

namespace dynvit {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// What each seed is for; the numbers only have to differ.
enum SeedUse : std::uint64_t { kWeightsSeed = 1, kDataSeed, kNoiseSeed, kPolicySeed };

at::Generator make_generator(const at::Device& device, std::uint64_t seed) {
    at::Generator generator = at::globalContext().defaultGenerator(device).clone();
    generator.set_current_seed(seed);
    return generator;
}

LoaderOptions training_loader(const Experiment& e, const at::Device& device, std::int64_t epoch, std::int64_t first_batch) {
    LoaderOptions options;
    options.batch_size = e.train.batch_size;
    options.workers = e.data.worker_count();
    options.shuffle = true;
    options.drop_last = true;
    options.pin_memory = device.is_cuda();
    options.seed = mix_seed({static_cast<std::uint64_t>(e.train.seed), kDataSeed});
    options.epoch = epoch;
    options.first_batch = first_batch;
    return options;
}

DynamicVit make_student(const Experiment& e, const at::Device& device) {
    const std::uint64_t seed = mix_seed({static_cast<std::uint64_t>(e.train.seed), kWeightsSeed});
    DynamicVit model(e.model, make_generator(at::kCPU, seed));
    if (!e.train.weights.empty()) load_weights(*model, read_model_file(e.train.weights), Fit::kFineTune);
    model->to(device);
    return model;
}

// The dense, frozen model that the student is compared with; nothing if no loss asks for it.
DynamicVit make_teacher(const Experiment& e, const at::Device& device) {
    if (!e.train.loss.need_teacher()) return DynamicVit(nullptr);
    ModelSettings settings = e.model;
    settings.pruning_loc = {};
    settings.drop_path = 0;
    DynamicVit model(settings, make_generator(at::kCPU, 0));
    load_weights(*model, read_model_file(e.train.teacher.empty() ? e.train.weights : e.train.teacher), Fit::kTeacher);
    model->to(device);
    for (at::Tensor& parameter : model->parameters()) parameter.requires_grad_(false);
    return model;
}

struct StepOutput {
    Losses losses;
    std::vector<at::Tensor> decisions;  // a stage: (B, N)
};

// Student, teacher (if there is one) and losses of a batch, in the step's precision.
StepOutput forward(DynamicVit& student, DynamicVit& teacher, const TrainSettings& settings, const at::Tensor& images,
                   const at::Tensor& labels, const TrainingNoise& noise, const std::vector<double>& targets,
                   const at::Device& device, at::ScalarType precision) {
    const Autocast autocast(device, precision);
    std::optional<VisionTransformerImpl::Output> dense;
    if (teacher) {
        const torch::NoGradGuard no_grad;
        dense = teacher->forward(images);
    }
    const TrainingOutput out = student->forward_train(images, noise);
    at::Tensor soft;
    if (settings.loss.classification > 0) {
        soft = soft_targets(labels, student->settings().num_classes, settings.loss.label_smoothing);
    }
    return {compute_losses(settings.loss, out, dense, soft, targets), out.decisions};
}

// Sums of what is reported, on the device until a log line needs them.
class Meters {
  public:
    void add(const Losses& losses, const std::vector<at::Tensor>& decisions) {
        std::vector<at::Tensor> values;
        names_.clear();
        const auto take = [&](const char* name, const at::Tensor& value) {
            if (!value.defined()) return;
            names_.push_back(name);
            values.push_back(value.detach().to(at::kFloat));
        };
        take("loss", losses.total);
        take("classification", losses.classification);
        take("kl", losses.kl);
        take("distill", losses.distill);
        take("ratio", losses.ratio);
        for (const at::Tensor& decision : decisions) values.push_back(decision.detach().mean());
        const at::Tensor step = at::stack(values);
        sum_ = sum_.defined() ? sum_ + step : step;
        ++steps_;
    }

    // The means since the last call: losses by name, "keep_ratio" a stage.
    nlohmann::json take() {
        const at::Tensor means = (sum_ / static_cast<double>(steps_)).cpu();
        nlohmann::json line;
        for (std::size_t i = 0; i < names_.size(); ++i) line[names_[i]] = means[i].item<float>();
        line["keep_ratio"] = nlohmann::json::array();
        for (std::int64_t i = std::ssize(names_); i < means.size(0); ++i) line["keep_ratio"].push_back(means[i].item<float>());
        sum_ = at::Tensor();
        steps_ = 0;
        return line;
    }

  private:
    std::vector<std::string> names_;
    at::Tensor sum_;
    std::int64_t steps_ = 0;
};

std::string progress_text(const nlohmann::json& line) {
    std::string text = "loss " + fixed(line["loss"], 4);
    if (!line["keep_ratio"].empty()) {
        text += "  kept";
        for (const double ratio : line["keep_ratio"]) text += " " + fixed(ratio, 2);
    }
    return text + "  " + fixed(line["images_per_second"], 0) + " img/s";
}

}  // namespace

std::vector<EvalResult> evaluate_split(DynamicVit model, const std::vector<EvalCase>& cases, const DataSettings& data,
                                       std::int64_t batch_size, const EvalOptions& options) {
    const ModelSettings& settings = model->settings();
    const auto dataset = make_dataset(data, Split::kVal, settings.image_height(), settings.image_width());
    LoaderOptions loading;
    loading.batch_size = batch_size;
    loading.workers = data.worker_count();
    loading.pin_memory = options.device.is_cuda();
    Loader loader(*dataset, make_transform(data, Split::kVal, settings.image_height(), settings.image_width()), loading);
    const auto total = static_cast<std::int64_t>(dataset->size());
    Progress bar("evaluating", total);
    const auto start = Clock::now();
    return evaluate(model, cases, loader, options, [&](std::int64_t done) {
        bar.update(done, fixed(static_cast<double>(done) / seconds_since(start), 0) + " img/s");
    });
}

TrainResult train(const Experiment& experiment, const std::filesystem::path& output, bool resume) {
    const TrainSettings& settings = experiment.train;
    const ModelSettings& shape = experiment.model;
    const at::Device device = parse_device(settings.device);
    const at::ScalarType precision = parse_precision(settings.precision);
    const std::vector<double> targets = settings.stage_targets(shape.stages());
    std::vector<EvalCase> eval_cases = {{"predicted", 1.0, {}}};
    if (shape.stages() > 0) eval_cases.push_back({"predicted", settings.keep_ratio.front(), targets});

    const auto pictures = make_dataset(experiment.data, Split::kTrain, shape.image_height(), shape.image_width());
    const SampleTransform transform =
        make_transform(experiment.data, Split::kTrain, shape.image_height(), shape.image_width());
    const std::int64_t steps_per_epoch = batch_count(pictures->size(), training_loader(experiment, device, 0, 0));
    if (steps_per_epoch == 0) {
        throw Error("train", "found ", pictures->size(), " training pictures, expected at least train.batch_size, ",
                    settings.batch_size);
    }
    if (settings.loss.classification > 0 && std::ssize(pictures->class_names()) > shape.num_classes) {
        throw Error("train", "found ", pictures->class_names().size(), " classes in the data, expected at most "
                    "model.num_classes, ", shape.num_classes);
    }
    const bool evaluates = settings.eval_every > 0 && has_validation(experiment.data);
    if (settings.eval_every > 0 && !evaluates) log::warn("no val/ folder: nothing is evaluated, and no best checkpoint kept");

    DynamicVit student = make_student(experiment, device), teacher = make_teacher(experiment, device);
    AdamW optimizer(*student, settings.optimizer);
    const RunFolder run(output, resume);
    RunProgress progress = resume ? run.restore(*student, optimizer) : RunProgress{};
    run.save_config(experiment);
    log::info(str("training ", shape.name, " on ", device.str(), ", ", settings.precision, ": ", pictures->size(),
                  " pictures, ", steps_per_epoch, " steps an epoch, ", settings.epochs, " epochs, into ", output.string()));

    const std::int64_t all_steps = settings.epochs * steps_per_epoch;
    const std::int64_t last_step = settings.max_steps > 0 ? std::min(settings.max_steps, all_steps) : all_steps;
    TrainResult result;
    Meters meters;
    const auto start = Clock::now();
    auto logged = start;
    std::int64_t logged_step = progress.step;

    while (progress.step < last_step) {
        const std::int64_t epoch = progress.step / steps_per_epoch, done = progress.step % steps_per_epoch;
        {
            Loader loader(*pictures, transform, training_loader(experiment, device, epoch, done));
            Progress bar(str("epoch ", epoch + 1, '/', settings.epochs), steps_per_epoch, done);
            std::string text;
            while (progress.step < last_step) {
                const std::optional<Batch> batch = loader.next();
                if (!batch) break;
                const std::int64_t step = progress.step;
                const at::Tensor images = normalize_images(batch->images, device);
                const at::Tensor labels = batch->labels.to(device, at::kLong, /*non_blocking=*/true);
                const TrainingNoise noise = student->draw_noise(
                    images.size(0),
                    make_generator(device, mix_seed({static_cast<std::uint64_t>(settings.seed), kNoiseSeed,
                                                     static_cast<std::uint64_t>(step)})),
                    device);

                const StepOutput out =
                    forward(student, teacher, settings, images, labels, noise, targets, device, precision);
                optimizer.zero_grad();
                out.losses.total.backward();
                const double lr = learning_rate(settings.schedule, step, steps_per_epoch, settings.epochs);
                optimizer.step(lr, lr * backbone_scale(settings.schedule, step, steps_per_epoch));
                meters.add(out.losses, out.decisions);
                ++progress.step;

                if (progress.step % settings.log_every == 0 || progress.step == last_step) {
                    nlohmann::json line = meters.take();
                    const double elapsed = seconds_since(logged);
                    line["kind"] = "train";
                    line["step"] = progress.step;
                    line["epoch"] = static_cast<double>(progress.step) / static_cast<double>(steps_per_epoch);
                    line["lr"] = lr;
                    line["images_per_second"] =
                        static_cast<double>((progress.step - logged_step) * settings.batch_size) / elapsed;
                    logged = Clock::now();
                    logged_step = progress.step;
                    run.log_metrics(line);
                    if (!std::isfinite(line["loss"].get<double>())) {
                        const bool saved = std::filesystem::exists(run.last());
                        throw Error("train", "the loss is not finite at step ", progress.step,
                                    saved ? "; the last checkpoint is " + run.last().string() : "; no checkpoint was written");
                    }
                    text = progress_text(line);
                }
                bar.update(progress.step - epoch * steps_per_epoch, text);
            }
        }

        const bool finished = progress.step == last_step;
        const std::int64_t epochs_done = progress.step / steps_per_epoch;
        const bool epoch_ended = progress.step % steps_per_epoch == 0;
        bool best = false;
        if (evaluates && ((epoch_ended && epochs_done % settings.eval_every == 0) || finished)) {
            EvalOptions options{device, precision, mix_seed({static_cast<std::uint64_t>(settings.seed), kPolicySeed})};
            result.last_eval = evaluate_split(student, eval_cases, experiment.data, settings.batch_size, options);
            best = result.last_eval.back().top1() > progress.best_top1;
            if (best) progress.best_top1 = result.last_eval.back().top1();
            std::string summary = str("step ", progress.step, ':');
            for (const EvalResult& r : result.last_eval) {
                nlohmann::json line = eval_json(r);
                line["kind"] = "eval";
                line["step"] = progress.step;
                run.log_metrics(line);
                summary += str(' ', r.policy, ' ', fixed(r.top1(), 2), " %");
            }
            log::info(summary);
        }
        if (finished || best || (epoch_ended && epochs_done % settings.save_every == 0)) {
            run.save(*student, optimizer, progress, best, parse_precision(settings.save_as));
        }
        logged = Clock::now();
    }
    result.steps = progress.step;
    result.seconds = seconds_since(start);
    return result;
}

}  // namespace dynvit
