// dynvit bench train: how fast training steps are, without the loader.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "arguments.hpp"
#include "bench_profile.hpp"
#include "command.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/io/safetensors.hpp"
#include "dynvit/models/keep_ratio.hpp"
#include "dynvit/models/macs.hpp"
#include "dynvit/runtime/timing.hpp"
#include "dynvit/train/train_step.hpp"
#include "dynvit/weights/state_dict.hpp"

namespace dynvit::tool {
namespace {

struct Arguments {
    ConfigArguments config;
    std::vector<std::int64_t> batch_sizes;
    double seconds = 5;
    std::size_t profile = 0;
    std::string json;
};

// Weights as they are drawn, in a file: what to start from, and to learn from, where the experiment's own isn't there.
class DrawnWeights {
  public:
    explicit DrawnWeights(const ModelSettings& settings)
        : path_(std::filesystem::temp_directory_path() / str("dynvit-bench-", ::getpid(), ".safetensors")) {
        const DynamicVit model(settings, at::make_generator<at::CPUGeneratorImpl>(0));
        write_safetensors(path_, state_dict(*model), {});
    }
    ~DrawnWeights() {
        std::error_code ignored;
        std::filesystem::remove(path_, ignored);
    }
    DrawnWeights(const DrawnWeights&) = delete;
    DrawnWeights& operator=(const DrawnWeights&) = delete;
    std::string path() const { return path_.string(); }

  private:
    std::filesystem::path path_;
};

Batch random_batch(const ModelSettings& settings, std::int64_t size, const at::Device& device) {
    const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(0);
    Batch batch;
    batch.images = at::randint(0, 256, {size, 3, settings.image_height(), settings.image_width()}, generator, at::kByte)
                       .to(device);
    const std::int64_t classes =
        std::max<std::int64_t>(1, settings.num_classes);  // without a head no loss reads labels
    batch.labels = at::randint(0, classes, {size}, generator, at::kLong).to(device);
    return batch;
}

// What stays on the device between steps: weights, their averages, the optimizer's state, the teacher.
std::int64_t resident_bytes(const Learner& learner, ModelSettings settings, at::ScalarType precision) {
    std::int64_t bytes = 0;
    for (const auto& [name, tensor] : learner.state()) bytes += static_cast<std::int64_t>(tensor.nbytes());
    if (!learner.teacher) return bytes;
    settings.pruning_loc = {};
    return bytes + count_parameters(settings) * static_cast<std::int64_t>(at::elementSize(precision));
}

std::string line(const std::string& batch, const std::string& ms, const std::string& rate, const std::string& between,
                 const std::string& peak) {
    char text[128];
    std::snprintf(text, sizeof text, "%6s %10s %10s %18s %10s\n", batch.c_str(), ms.c_str(), rate.c_str(),
                  between.c_str(), peak.c_str());
    return text;
}

void run(const Arguments& arguments) {
    if (arguments.config.config.empty()) throw Error("bench", "give --config with the experiment whose step to time");
    Experiment experiment = arguments.config.read();
    const TrainSettings& settings = experiment.train;
    const TimingOptions options{parse_device(settings.device), arguments.seconds};
    check_profile(arguments.profile, options.device);
    Learner learner = [&] {
        const DrawnWeights drawn(experiment.model);
        experiment.train.weights = experiment.train.teacher = drawn.path();
        return make_learner(experiment, options.device);
    }();
    const std::vector<double> targets = settings.stage_targets(experiment.model.stages());

    const std::vector<std::int64_t> sizes =
        arguments.batch_sizes.empty() ? std::vector{settings.batch_size} : arguments.batch_sizes;
    std::vector<std::function<void()>> cases;
    std::vector<std::int64_t> peaks;
    std::int64_t step = 0;
    const std::vector<double> ratios = drawn_ratios(settings.selection);
    for (const std::int64_t size : sizes) {
        cases.emplace_back(
            [&, turn = std::size_t{0}, make_step = std::make_shared<TrainStep>(learner, settings),
             batches = std::vector<Batch>(static_cast<std::size_t>(settings.accumulate),
                                          random_batch(experiment.model, size, options.device))]() mutable {
                StepPlan plan;
                plan.step = step++;
                plan.lr = plan.backbone_lr = settings.schedule.min_lr;
                plan.selection = step_selection(settings.selection, targets, plan.step, /*steps=*/1 << 30,
                                                Random(static_cast<std::uint64_t>(plan.step)));
                if (plan.selection.deterministic && !ratios.empty()) {  // in turn, so that all steps repeat
                    plan.selection.targets = stage_ratios(ratios[turn++ % ratios.size()], std::ssize(targets));
                }
                (*make_step)(plan, batches);
            });
        const std::size_t kinds = std::max<std::size_t>(1, ratios.size());
        for (std::size_t i = 0; i < kinds; ++i) cases.back()();  // a first step sets things up
        std::int64_t peak = 0;
        for (std::size_t i = 0; i < 2 * kinds; ++i) {  // the second of each kind records
            learner.optimizer.zero_grad();             // what is freed must have been counted
            peak = std::max(peak, peak_tensor_bytes(cases.back(), options.device));
        }
        peaks.push_back(resident_bytes(learner, experiment.model, parse_precision(settings.precision)) + peak);
    }
    Progress bar("measuring", 1000);
    const std::vector<Timing> timings = time_interleaved(
        cases, options, [&](double share) { bar.update(static_cast<std::int64_t>(1000 * share), "training steps"); });

    nlohmann::json report = {{"model", experiment.model.name},
                             {"precision", settings.precision},
                             {"device", options.device.str()},
                             {"accumulate", settings.accumulate},
                             {"rows", nlohmann::json::array()}};
    print(str(experiment.model.name, ", ", settings.precision, " on ", options.device.str(), ", ", settings.accumulate,
              " batch(es) a step\n", line("batch", "ms a step", "images/s", "(95 %)", "peak GiB")));
    for (std::size_t i = 0; i < cases.size(); ++i) {
        const MedianInterval pace = median_interval(timings[i].pace);
        const auto images = static_cast<double>(sizes[i] * settings.accumulate);
        print(line(str(sizes[i]), fixed(1e3 * pace.median, 2), fixed(images / pace.median, 1),
                   str('(', fixed(images / pace.high, 0), " - ", fixed(images / pace.low, 0), ')'),
                   fixed(static_cast<double>(peaks[i]) / (1 << 30), 2)));
        report["rows"].push_back({{"batch", sizes[i]},
                                  {"seconds", {{"median", pace.median}, {"low", pace.low}, {"high", pace.high}}},
                                  {"images_per_second", images / pace.median},
                                  {"peak_bytes", peaks[i]}});
    }
    std::vector<std::string> names;
    for (const std::int64_t size : sizes) names.push_back(str("a step of batch ", size));
    print_profiles(cases, names, arguments.profile, options.device);
    write_json(arguments.json, std::move(report), "bench");
}

}  // namespace

void add_bench_train(CLI::App& bench) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = bench.add_subcommand(
        "train", "An experiment's training step: random pictures on the device, weights as they are drawn");
    arguments->config.add_to(*command);
    add_list(*command, "-b,--batch-size", arguments->batch_sizes, "in place of the experiment's; several: 128,256",
             within(between(1, kMostBatch)));
    command->add_option("--seconds", arguments->seconds, "how long to measure each batch size")
        ->check(within(above(0)))
        ->capture_default_str();
    add_profile_option(*command, arguments->profile);
    command->add_option("--json", arguments->json, "write the results to this file too");
    command->callback([arguments] { run(*arguments); });
}

}  // namespace dynvit::tool
